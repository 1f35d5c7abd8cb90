//! Where a chunk that was too slow is cut in two: between two of its rows, so that each half holds one at least.

use crate::{
    chunk::{Middle, Range, Tid},
    failure::Failure,
    job::placeholder,
    ledger::chunk::{Claimed, Planned},
    mapping::Mapping,
    pg::Connection,
    probe,
    statement::{self, chunk_condition},
};

/// Both halves of a chunk, which share what it may delete; `None` where it can't be cut: one row, or one key, is left, its rows have no order, or
/// a statement goes by the range's ends.
pub(super) async fn halves(
    connection: &Connection,
    mapping: &Mapping,
    chunk: &Claimed,
) -> Result<Option<[Planned; 2]>, Failure> {
    let range = &chunk.range;
    let middle = match range {
        // Between two staged values may lie ids of another table, which neither half would name.
        Range::Ids { .. } if mapping.statements.iter().any(|statement| placeholder::names_ids(statement)) => None,
        Range::Blocks { .. } => middle_tid(connection, mapping, range).await?,
        Range::Keys { .. } | Range::Ids { .. } => middle_key(connection, mapping, range).await?,
        Range::NullKeys | Range::Rejects { .. } => None,
    };
    let Some([first, second]) = middle.and_then(|middle| range.split(middle)) else { return Ok(None) };
    let [limit, rest] = match chunk.delete_limit {
        Some(limit) => {
            let sql = statement::count_deletes(mapping, [(0, &first)]);
            let counted: i64 = probe::ask_one(connection, &mapping.settings, &sql, &[]).await?.get(1);
            let counted = counted.min(limit);
            [Some(counted), Some(limit - counted)]
        }
        None => [None, None],
    };
    Ok(Some([Planned { range: first, delete_limit: limit }, Planned { range: second, delete_limit: rest }]))
}

async fn middle_tid(connection: &Connection, mapping: &Mapping, range: &Range) -> Result<Option<Middle>, Failure> {
    let sql = format!(
        "SELECT tid::text FROM (
             SELECT stage.ctid AS tid, pg_catalog.row_number() OVER (ORDER BY stage.ctid) AS n, pg_catalog.count(*) OVER () AS rows
             FROM {} WHERE {}) AS numbered
         WHERE rows > 1 AND n = rows / 2 + 1",
        range.from_clause(&mapping.stage),
        chunk_condition(mapping, range),
    );
    let rows = probe::ask(connection, &mapping.settings, &sql, &[]).await?;
    Ok(rows.first().and_then(|row| Tid::parse(row.get(0))).map(Middle::Tid))
}

async fn middle_key(connection: &Connection, mapping: &Mapping, range: &Range) -> Result<Option<Middle>, Failure> {
    let columns: Vec<String> = mapping.cut.iter().map(|cut| cut.column.to_string()).collect();
    let of = |table: &str| columns.iter().map(|column| format!("{table}.{column}")).collect::<Vec<_>>().join(", ");
    let texts =
        |table: &str| columns.iter().map(|column| format!("{table}.{column}::text")).collect::<Vec<_>>().join(", ");
    let sql = format!(
        "WITH keys AS MATERIALIZED (
             SELECT {stage}, pg_catalog.row_number() OVER (ORDER BY {stage}) AS \"stagemill row\" FROM {from} WHERE {condition} GROUP BY {stage}),
         halfway AS (SELECT pg_catalog.count(*) / 2 AS n FROM keys)
         SELECT ARRAY[{last}], ARRAY[{next}] FROM halfway
         JOIN keys AS last ON last.\"stagemill row\" = halfway.n JOIN keys AS next ON next.\"stagemill row\" = halfway.n + 1",
        stage = of("stage"),
        from = range.from_clause(&mapping.stage),
        condition = chunk_condition(mapping, range),
        last = texts("last"),
        next = texts("next"),
    );
    let rows = probe::ask(connection, &mapping.settings, &sql, &[]).await?;
    Ok(rows.first().map(|row| Middle::Keys { last: row.get(0), next: row.get(1) }))
}
