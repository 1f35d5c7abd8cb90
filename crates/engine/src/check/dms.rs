//! Rows that AWS DMS could not apply to the stage: it notes them in a table, and goes on.

use std::time::Duration;

use super::subject::Subject;
use crate::{
    failure::Failure,
    finding::Finding,
    ident::{Ident, literal},
    probe,
};

const TABLE: &str = "public.awsdms_apply_exceptions";

/// The table is small, or something is very wrong.
const LONGEST: Duration = Duration::from_secs(10);

/// Warns of changes of this stage that DMS did not apply. Only their number and their time are read: the rest quotes rows.
pub(super) async fn examine(subject: &Subject<'_>, findings: &mut Vec<Finding>) -> Result<(), Failure> {
    // DMS writes the names in capitals, people's copies do not.
    let sql = "SELECT a.attname::text FROM pg_catalog.pg_attribute a
               JOIN pg_catalog.pg_class c ON c.oid = a.attrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
               WHERE n.nspname = 'public' AND c.relname = 'awsdms_apply_exceptions'
                 AND pg_catalog.lower(a.attname) IN ('table_name', 'error_time')
                 AND pg_catalog.has_schema_privilege(n.oid, 'USAGE') AND pg_catalog.has_column_privilege(c.oid, a.attnum, 'SELECT')
               ORDER BY pg_catalog.lower(a.attname) DESC";
    let columns: Vec<Ident> =
        subject.connection.query(sql, &[]).await?.iter().map(|row| Ident::exact(row.get::<_, String>(0))).collect();
    let [table, time] = columns.as_slice() else { return Ok(()) };
    let condition = format!("lower({table}) = lower({})", literal(subject.stage.name.name.as_str()));
    let sql = format!("SELECT pg_catalog.count(*), pg_catalog.max({time})::text FROM {TABLE} WHERE {condition}");
    let rows = probe::ask_within(subject.connection, &subject.mapping.settings, LONGEST, &sql).await?;
    let Some((count, newest)) =
        rows.iter().flatten().next().map(|row| (row.get::<_, i64>(0), row.get::<_, Option<String>>(1)))
    else {
        return Ok(());
    };
    if count > 0 {
        findings.push(Finding::warning(
            "stage.table",
            format!(
                "misses {count} change(s) that DMS could not apply to it, the newest at {}",
                newest.as_deref().unwrap_or("an unknown time")
            ),
            format!("SELECT * FROM {TABLE} WHERE {condition} ORDER BY {time} DESC"),
        ));
    }
    Ok(())
}
