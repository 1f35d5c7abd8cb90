//! Staged rows that share a target key, looked for before a run would find them.

use std::time::Duration;

use super::subject::Subject;
use crate::{account::duplicates_query, failure::Failure, finding::Finding, job::Operation, probe, statement};

/// The whole stage is read: longer than this nobody waits for a check.
const LONGEST: Duration = Duration::from_secs(30);

/// Looks for them where no index shows that there are none.
pub(super) async fn examine(subject: &Subject<'_>, findings: &mut Vec<Finding>) -> Result<(), Failure> {
    let mapping = subject.mapping;
    // Of changes the newest is taken, and of the user's own statements nothing is known.
    if mapping.keys_are_unique || matches!(mapping.operation, Operation::Changes | Operation::Sql) {
        return Ok(());
    }
    let sql = statement::count_duplicates(mapping);
    let Some(rows) = probe::ask_within(subject.connection, &mapping.settings, LONGEST, &sql).await? else {
        findings.push(Finding::warning(
            "stage.table",
            format!(
                "was not searched for keys that are staged more than once: it took longer than {} s",
                LONGEST.as_secs()
            ),
            duplicates_query(mapping),
        ));
        return Ok(());
    };
    let duplicates: i64 = rows.first().map_or(0, |row| row.get(0));
    if duplicates > 0 {
        findings.push(Finding::error(
            "stage.table",
            format!("holds {duplicates} target key(s) more than once; only one row may change a target row"),
            duplicates_query(mapping),
        ));
    }
    Ok(())
}
