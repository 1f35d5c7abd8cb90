//! `sql`: the user's statements, for one chunk.

use super::chunk_condition;
use crate::{chunk::Range, job::placeholder, mapping::Mapping};

/// The statements for a chunk, in their order.
pub fn statements(mapping: &Mapping, range: &Range) -> Vec<String> {
    let mut condition = chunk_condition(mapping, range);
    if let Range::Blocks { leaf, .. } = range
        && mapping.stage_leaves.len() > 1
    {
        // The statement names the parent, whose every partition has such blocks.
        condition = format!("stage.tableoid = {}::pg_catalog.oid AND {condition}", leaf.oid);
    }
    let condition = format!("({condition})");
    let ids = match (range, mapping.cut.first()) {
        (Range::Ids { low, high }, Some(cut)) => Some((cut.value(low), cut.value(high))),
        _ => None,
    };
    let ids = ids.as_ref().map(|(low, high)| (low.as_str(), high.as_str()));
    mapping.statements.iter().map(|statement| placeholder::fill(statement, &condition, ids)).collect()
}
