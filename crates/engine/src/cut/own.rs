//! Chunks by the job's own query: first and last value, both inclusive, as Oracle's CREATE_CHUNKS_BY_SQL.

use crate::{
    chunk::Range,
    failure::{Class, Failure},
    mapping::Mapping,
    pg::Connection,
    probe,
};

/// The ranges that the query gives, in ascending order.
///
/// # Errors
/// When they overlap or can't be used, or the server can't be asked.
pub async fn ranges(connection: &Connection, mapping: &Mapping, query: &str) -> Result<Vec<Range>, Failure> {
    let Some(cut) = mapping.cut.first() else {
        return Err(Failure::new(Class::Internal, "own ranges without a column to cut along"));
    };
    // Compared as the chunks will compare them.
    let collate = cut.collation.as_ref().map(|name| format!(" COLLATE {name}")).unwrap_or_default();
    let value = |name: &str| format!("CAST(given.{name} AS {}){collate} AS {name}", cut.type_name);
    let sql = format!(
        "SELECT r.low::text, r.high::text, r.low > r.high,
                COALESCE(r.low <= pg_catalog.lag(r.high) OVER (ORDER BY r.low, r.high), false)
         FROM (SELECT {}, {} FROM (\n{query}\n) AS given (low, high)) AS r ORDER BY r.low, r.high",
        value("low"),
        value("high")
    );
    let rows = probe::ask(connection, &mapping.settings, &sql, &[]).await?;
    let mut ranges = Vec::with_capacity(rows.len());
    for (n, row) in (1..).zip(rows) {
        let (low, high): (Option<String>, Option<String>) = (row.get(0), row.get(1));
        let (Some(low), Some(high)) = (low, high) else { return Err(bad(n, "has a NULL")) };
        if row.get::<_, Option<bool>>(2) != Some(false) {
            return Err(bad(n, "ends before it starts"));
        }
        if row.get(3) {
            return Err(bad(n, "overlaps the one before it: its rows would be applied twice"));
        }
        ranges.push(Range::Ids { low, high });
    }
    Ok(ranges)
}

fn bad(n: u32, fault: &str) -> Failure {
    Failure::new(
        Class::BadJob,
        format!(
            "chunks.query: range {n}, in ascending order, {fault}. Both values of a range are its own, as in Oracle"
        ),
    )
}
