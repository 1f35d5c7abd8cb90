//! What the server would do for one chunk: its plan, and whether that reads the whole target.

use std::collections::BTreeSet;

use serde_json::Value as Json;

use crate::{
    chunk::Range,
    failure::Failure,
    ident::{Ident, TableName},
    job::Operation,
    mapping::Mapping,
    pg::{Connection, catalog},
    probe, statement,
};

/// Scans of the target that would read more rows than this for each chunk are worth avoiding.
pub const SCAN_WORTH_AVOIDING: f64 = 10_000.0;

/// The plan of a chunk's statement as a person reads it, under the run's settings. Nothing is executed.
///
/// # Errors
/// What the server or the connection says.
pub async fn text(connection: &Connection, mapping: &Mapping, range: &Range) -> Result<String, Failure> {
    let mut lines: Vec<String> = Vec::new();
    for statement in statement::of_chunk(mapping, range) {
        let rows = probe::ask(connection, &mapping.settings, &format!("EXPLAIN {statement}"), &[]).await?;
        lines.extend(rows.iter().map(|row| row.get(0)));
    }
    Ok(lines.join("\n"))
}

/// Where the planner would scan the whole target for each chunk although the key's index is there, hash and merge joins are turned off
/// for the run; where that does not help, nothing is. Returns how many rows each chunk still scans.
///
/// # Errors
/// What the server or the connection says.
pub async fn keep_nested_loop(connection: &Connection, mapping: &mut Mapping, range: &Range) -> Result<f64, Failure> {
    let Some(target) = catalog::table(connection, &mapping.target).await? else { return Ok(0.0) };
    let heaps: BTreeSet<TableName> = target.leaves.into_iter().map(|leaf| leaf.name).collect();
    let left_alone = rows_scanned(connection, mapping, range, &heaps).await?;
    // What a statement of the user's own needs is not ours to say.
    if left_alone < SCAN_WORTH_AVOIDING || mapping.operation == Operation::Sql {
        return Ok(left_alone);
    }
    let mut nested = mapping.clone();
    for setting in ["enable_hashjoin", "enable_mergejoin"] {
        nested.settings.entry(setting.to_owned()).or_insert_with(|| "off".to_owned());
    }
    let scanned = rows_scanned(connection, &nested, range, &heaps).await?;
    if scanned < SCAN_WORTH_AVOIDING {
        *mapping = nested;
        return Ok(scanned);
    }
    Ok(left_alone)
}

/// How many rows of the target one chunk's plan reads in sequential scans.
async fn rows_scanned(
    connection: &Connection,
    mapping: &Mapping,
    range: &Range,
    heaps: &BTreeSet<TableName>,
) -> Result<f64, Failure> {
    let mut rows = 0.0;
    for statement in statement::of_chunk(mapping, range) {
        let sql = format!("EXPLAIN (VERBOSE, FORMAT JSON) {statement}");
        let row = probe::ask_one(connection, &mapping.settings, &sql, &[]).await?;
        rows += scanned(&row.get::<_, Json>(0), heaps);
    }
    Ok(rows)
}

fn scanned(plan: &Json, heaps: &BTreeSet<TableName>) -> f64 {
    let inside: f64 = match plan {
        Json::Array(nodes) => nodes.iter().map(|node| scanned(node, heaps)).sum(),
        Json::Object(fields) => fields.values().map(|field| scanned(field, heaps)).sum(),
        _ => 0.0,
    };
    // A merge join reads an index from end to end.
    let whole = plan["Node Type"] == "Seq Scan"
        || (["Index Scan", "Index Only Scan"].iter().any(|scan| plan["Node Type"] == *scan)
            && plan["Index Cond"].is_null());
    let scans = whole && relation(plan).is_some_and(|name| heaps.contains(&name));
    inside + if scans { plan["Plan Rows"].as_f64().unwrap_or(0.0) } else { 0.0 }
}

/// The table that a node of a plan reads.
fn relation(node: &Json) -> Option<TableName> {
    let name = |field: &str| node[field].as_str().map(Ident::exact);
    Some(TableName { schema: Some(name("Schema")?), name: name("Relation Name")? })
}
