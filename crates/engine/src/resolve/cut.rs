//! Along what the stage is cut.

use crate::{
    chunk::{CutColumn, Range, Tid},
    finding::Finding,
    ident::Ident,
    job::{ChunkBy, Job, Operation, StageRows},
    mapping::{KeyColumn, Mapping},
    table::{Column, Kind, Table},
};

/// How the stage will be cut.
#[derive(Debug, PartialEq, Eq)]
pub struct Cut {
    /// The columns for key ranges; empty for block ranges.
    pub columns: Vec<CutColumn>,
    /// Whether an index shows that no two staged rows have one target key.
    pub keys_are_unique: bool,
    /// Whether staged rows of one target key always lie in one chunk.
    pub keys_together: bool,
}

/// Decides along what the stage is cut.
pub fn cut(job: &Job, stage: &Table, target: &Table, key: &[KeyColumn], findings: &mut Vec<Finding>) -> Cut {
    let plain: Option<Vec<Ident>> = key.iter().map(|key| plain_column(key, stage, target)).collect();
    let plain = plain.filter(|columns| !columns.is_empty());
    let keys_are_unique = plain.as_ref().is_some_and(|columns| stage.proves_unique(columns));
    let columns = match job.operation {
        Operation::Sql => named(job, stage, findings),
        _ if job.chunks.by == ChunkBy::Sql => own_ranges(job, stage, plain.as_deref(), findings),
        _ => along_key(job, stage, plain.as_deref(), findings),
    };
    let keys_together =
        !columns.is_empty() && plain.is_some_and(|plain| columns.iter().all(|column| plain.contains(column)));
    if job.operation == Operation::Changes && !keys_together && !Finding::any_error(findings) {
        findings.push(Finding::error(
            "chunks.by",
            "would let changes of one key lie in two chunks, each of which would pick a newest one",
            "cut along a column of the target's key",
        ));
    }
    let order_matters = !matches!(job.operation, Operation::Sql | Operation::Delete);
    if job.stage_rows == StageRows::Delete && order_matters && !keys_together && !keys_are_unique {
        findings.push(Finding::error(
            "stage_rows",
            "\"delete\" would take two rows of one key, of which the second comes during the run, by two chunks in any order: the older one could be what stays",
            "cut along the target's key (\"chunks\": {\"by\": \"key\"}), create a unique index of the stage on it, or use \"keep\"",
        ));
    }
    let columns = columns.iter().filter_map(|name| cut_column(name, stage)).collect();
    Cut { columns, keys_are_unique, keys_together }
}

/// The columns of the target's key, where the job asks for key ranges or the stage has an index on them.
fn along_key(job: &Job, stage: &Table, plain: Option<&[Ident]>, findings: &mut Vec<Finding>) -> Vec<Ident> {
    let indexed = plain.and_then(|columns| stage.indexed_order(columns));
    let heap = stage.kind != Kind::NoHeap;
    match job.chunks.by {
        ChunkBy::Ctid if heap => return Vec::new(),
        ChunkBy::Ctid => findings.push(no_heap(stage)),
        ChunkBy::Auto if heap && job.operation != Operation::Changes => return indexed.unwrap_or_default(),
        _ if plain.is_none() => findings.push(not_plain(heap && job.operation != Operation::Changes)),
        _ if indexed.is_none() && heap => findings.push(no_index(stage, "the key")),
        _ => {}
    }
    indexed.or_else(|| plain.map(<[Ident]>::to_vec)).unwrap_or_default()
}

/// The one column of the operation `sql`; none for block ranges.
fn named(job: &Job, stage: &Table, findings: &mut Vec<Finding>) -> Vec<Ident> {
    let heap = stage.kind != Kind::NoHeap;
    let Some(column) = job.chunks.column.as_ref().and_then(|name| known(name, stage, findings)) else {
        if !heap {
            let remedy = "name the column to cut along in chunks.column";
            findings.push(Finding::error("chunks.by", format!("{} has no heap of its own to cut", stage.name), remedy));
        }
        return Vec::new();
    };
    let indexed = stage.indexed_order(std::slice::from_ref(&column)).is_some();
    match job.chunks.by {
        ChunkBy::Ctid if heap => return Vec::new(),
        ChunkBy::Ctid => findings.push(no_heap(stage)),
        ChunkBy::Auto if heap && !indexed => return Vec::new(),
        _ if heap && !indexed => findings.push(no_index(stage, column.as_str())),
        _ => {}
    }
    vec![column]
}

/// The one column of the job's own ranges.
fn own_ranges(job: &Job, stage: &Table, plain: Option<&[Ident]>, findings: &mut Vec<Finding>) -> Vec<Ident> {
    let column = match (&job.chunks.column, plain) {
        (Some(name), _) => known(name, stage, findings),
        (None, Some([column])) => Some(column.clone()),
        (None, _) => {
            let fault = "is missing: the target's key is not one plain column of the stage";
            findings.push(Finding::error("chunks.column", fault, "name the stage's column that the ranges are of"));
            None
        }
    };
    column.into_iter().collect()
}

/// Some range of the kind that the mapping cuts, for the server to plan.
pub fn any_range(mapping: &Mapping) -> Range {
    match mapping.stage_leaves.first().filter(|_| mapping.cut.is_empty()) {
        Some(leaf) => Range::Blocks { leaf: leaf.clone(), low: Tid::block(0), high: Some(Tid::block(1)) },
        None => Range::Keys { low: None, high: None },
    }
}

fn known(name: &str, stage: &Table, findings: &mut Vec<Finding>) -> Option<Ident> {
    // Parsed before, when the job was read.
    let column = Ident::parse(name).ok()?;
    if stage.column(&column).is_none() {
        let fault = format!("{} is not a column of {}", column.as_str(), stage.name);
        findings.push(Finding::error("chunks.column", fault, "name a column of the stage"));
        return None;
    }
    Some(column)
}

fn no_heap(stage: &Table) -> Finding {
    Finding::error(
        "chunks.by",
        format!("{} has no heap of its own to cut into block ranges", stage.name),
        "use \"by\": \"key\"",
    )
}

fn no_index(stage: &Table, on: &str) -> Finding {
    Finding::warning(
        "chunks.by",
        format!("{} has no index on {on}: each chunk reads it whole", stage.name),
        "create one, or use \"by\": \"ctid\" where the operation allows",
    )
}

fn not_plain(heap: bool) -> Finding {
    let instead = if heap { ", or use \"by\": \"ctid\"" } else { "" };
    Finding::error(
        "chunks.by",
        "key ranges need each key column to be a plain stage column of the target's type and collation",
        format!("two spellings of one key could lie in two chunks otherwise: change the stage column's type{instead}"),
    )
}

fn cut_column(name: &Ident, stage: &Table) -> Option<CutColumn> {
    let column = stage.column(name)?;
    Some(CutColumn {
        column: name.clone(),
        type_name: column.type_name.clone(),
        collation: column.collation.clone(),
        nullable: !column.not_null,
    })
}

/// The stage column that holds a key, where its order and equality are the target's.
pub(super) fn plain_column(key: &KeyColumn, stage: &Table, target: &Table) -> Option<Ident> {
    let (from, to) = (stage_column(&key.expression, stage)?, target.column(&key.column)?);
    (keeps_order(from, to) && from.collation == to.collation).then(|| from.name.clone())
}

/// The stage column that an expression is, when it is nothing else.
pub(super) fn stage_column<'a>(expression: &str, stage: &'a Table) -> Option<&'a Column> {
    let text = expression.trim();
    let text =
        text.get(..6).filter(|start| start.eq_ignore_ascii_case("stage.")).map_or(text, |start| &text[start.len()..]);
    stage.column(&Ident::parse(text).ok()?)
}

pub(super) fn keeps_order(from: &Column, to: &Column) -> bool {
    let widened = matches!(
        (from.base_type.as_str(), to.type_name.as_str()),
        ("smallint", "integer" | "bigint") | ("integer", "bigint") | ("character varying", "text")
    );
    let longer = from.base_type == to.base_type && length(from) <= length(to) && length(from).is_some();
    // A modifier narrows: `varchar(3)` takes 'abc ' for 'abc'.
    from.type_name == to.type_name
        || (from.base_type == to.base_type && to.type_name == to.base_type)
        || widened
        || longer
}

/// The n of `character varying(n)`.
fn length(column: &Column) -> Option<u32> {
    column.type_name.strip_prefix("character varying(")?.strip_suffix(')')?.parse().ok()
}
