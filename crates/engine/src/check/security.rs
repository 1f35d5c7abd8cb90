//! Row-level security: rows that this role does not see are neither applied nor missed.

use super::subject::{Subject, heaps, oids};
use crate::{failure::Failure, finding::Finding};

const ACTIVE: &str = "SELECT EXISTS (SELECT FROM pg_catalog.unnest($1) AS o WHERE pg_catalog.row_security_active(o))";

/// Warns where row-level security applies to this role.
pub(super) async fn examine(subject: &Subject<'_>, findings: &mut Vec<Finding>) -> Result<(), Failure> {
    let stage = ("stage.table", subject.stage, "rows that it does not see are not applied, and nothing says so");
    let target = (
        "target.table",
        subject.target,
        "rows that it does not see are not found: they are skipped, or inserted once more and fail",
    );
    for (at, table, what) in [stage, target] {
        let tables = heaps(table);
        let rows = subject.ask(ACTIVE, &[oids(&tables)]).await?;
        if rows.first().is_some_and(|row| row.get(0)) {
            let role = subject.role().await?;
            findings.push(Finding::warning(
                at,
                format!("has row-level security that applies to role {}: {what}", role.as_str()),
                format!("ALTER ROLE {role} BYPASSRLS, or a policy on {} that shows it every row", table.name),
            ));
        }
    }
    Ok(())
}
