//! Statements that count staged rows, and change nothing.

use super::{S, Source, W, changes, chunk_condition, key_aliases, staged};
use crate::{chunk::Range, ident, job::StageRows, mapping::Mapping};

/// No bounds: the whole stage, as far as the job's condition and the run's window let it through.
const WHOLE: Range = Range::Keys { low: None, high: None };

/// How many rows a chunk holds.
pub fn count_rows(mapping: &Mapping, range: &Range) -> String {
    let (from, condition) = (range.from_clause(&mapping.stage), chunk_condition(mapping, range));
    format!("SELECT pg_catalog.count(*) FROM {from} WHERE {condition}")
}

/// How many rows are the run's.
pub fn count_window(mapping: &Mapping) -> String {
    count_rows(&whole(mapping), &WHOLE)
}

/// How many rows of the stage are not the run's.
pub fn count_untaken(mapping: &Mapping) -> String {
    let conditions = mapping.row_conditions();
    let condition = if conditions.is_empty() { "true".to_owned() } else { conditions.join(" AND ") };
    format!("SELECT pg_catalog.count(*) FROM {} AS stage WHERE ({condition}) IS NOT TRUE", mapping.stage)
}

/// How many target keys are staged more than once.
pub fn count_duplicates(mapping: &Mapping) -> String {
    format!(
        "WITH {}\nSELECT pg_catalog.count(*) AS duplicates FROM (\n{}\n) AS d",
        staged::only_keys(&whole(mapping), Source::Chunk(&WHOLE)),
        duplicate_keys(mapping)
    )
}

/// In a chunk's frozen list: keys that are staged more than once, and keys whose newest change can't be told; `None` where neither can be.
pub fn contradictions(mapping: &Mapping) -> Option<String> {
    if mapping.changes.is_some() {
        let mut with = vec![staged::rows(mapping, Source::AllFrozen)];
        with.extend(changes::newest(mapping));
        return Some(format!(
            "WITH {}\nSELECT 0::bigint AS duplicates, {} AS ties",
            with.join(",\n"),
            super::count(changes::TIES)
        ));
    }
    let keys = staged::only_keys(mapping, Source::AllFrozen);
    (!mapping.keys_are_unique).then(|| {
        format!(
            "WITH {keys}\nSELECT pg_catalog.count(*) AS duplicates, 0::bigint AS ties FROM (\n{}\n) AS d",
            duplicate_keys(mapping)
        )
    })
}

/// Without columns to cut along nothing is said of NULLs.
fn whole(mapping: &Mapping) -> Mapping {
    Mapping { cut: Vec::new(), ..mapping.clone() }
}

/// The keys that occur more than once in the list.
pub(super) fn duplicate_keys(mapping: &Mapping) -> String {
    let aliases = key_aliases(mapping);
    let not_null = aliases.iter().map(|alias| format!("{alias} IS NOT NULL")).collect::<Vec<_>>().join(" AND ");
    format!("SELECT 1 FROM {S} WHERE {not_null} GROUP BY {} HAVING pg_catalog.count(*) > 1", aliases.join(", "))
}

/// For each of these chunks how many rows it would delete at most: its id, and the number.
pub fn count_deletes<'a>(mapping: &Mapping, chunks: impl IntoIterator<Item = (i32, &'a Range)>) -> String {
    let keep = Mapping { stage_rows: StageRows::Keep, ..mapping.clone() };
    let chunks = chunks.into_iter().map(|(id, range)| {
        let deletes = if mapping.changes.is_some() {
            let mut with = vec![staged::rows(&keep, Source::Chunk(range))];
            with.extend(changes::newest(&keep));
            format!("WITH {} SELECT pg_catalog.count(*) FROM {W} WHERE {}", with.join(",\n"), changes::IS_DELETE)
        } else {
            count_rows(&keep, range)
        };
        format!("SELECT {id}::integer, (\n{deletes}\n)")
    });
    chunks.collect::<Vec<_>>().join("\nUNION ALL\n")
}

/// How many rows lie in none of these ranges, which are in ascending order and don't overlap.
pub fn count_outside(mapping: &Mapping, ranges: &[Range]) -> String {
    let Some(cut) = mapping.cut.first() else { return "SELECT 0::bigint".to_owned() };
    let bounds = ranges.iter().filter_map(|range| match range {
        Range::Ids { low, high } => Some((cut.value(low), cut.value(high))),
        _ => None,
    });
    let (lows, highs): (Vec<String>, Vec<String>) = bounds.unzip();
    // An array of arrays is one array of more dimensions: each is a row's only field then.
    let boxed = |value: &String| if cut.type_name.ends_with("[]") { format!("ROW({value})") } else { value.clone() };
    let array = |values: &[String]| format!("ARRAY[{}]", values.iter().map(boxed).collect::<Vec<_>>().join(", "));
    let column = boxed(&format!("stage.{}", cut.column));
    format!(
        "SELECT pg_catalog.count(*) FROM {} AS stage,\n(SELECT {} AS \"stagemill lows\", {} AS \"stagemill highs\") AS \"stagemill bounds\"\nWHERE {}
         AND NOT COALESCE({column} <= \"stagemill highs\"[pg_catalog.width_bucket({column}, \"stagemill lows\")], false)",
        mapping.stage,
        array(&lows),
        array(&highs),
        chunk_condition(&whole(mapping), &WHOLE),
    )
}

/// How many rows of the window a snapshot did not see, of those outside some ranges: they came, or were changed, since it was taken.
///
/// A row's xmin has 32 bits: it is widened by the epoch, going back from the newest transaction (frozen rows keep theirs, and those below 3
/// are frozen of old). Rows that a savepoint wrote in a transaction that was open at the time are not noticed: a snapshot names no subtransactions.
pub fn count_new(mapping: &Mapping, snapshot: &str, except: &[Range]) -> String {
    let number = |xid: &str| format!("{xid}::pg_catalog.text::bigint");
    let (planned, newest) = ("\"stagemill planned\"", "\"stagemill newest xid\"");
    let xid = number("stage.xmin");
    let except: String = except.iter().map(|range| format!("\nAND NOT ({})", lies_in(mapping, range))).collect();
    format!(
        "SELECT pg_catalog.count(*) FROM {stage} AS stage,
         (SELECT CAST({snapshot} AS pg_catalog.pg_snapshot) AS {planned}, {now} AS {newest}) AS \"stagemill then\"
         WHERE {condition}
         -- Cheap, and true of few rows; what follows is exact.
         AND pg_catalog.age(stage.xmin) <= {newest} - {oldest} + 100000 AND {xid} >= 3
         AND NOT pg_catalog.pg_visible_in_snapshot(({newest} - (({newest} - {xid}) & 4294967295))::pg_catalog.text::pg_catalog.xid8, {planned}){except}",
        stage = mapping.stage,
        snapshot = ident::literal(snapshot),
        now = number("pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())"),
        oldest = number(&format!("pg_catalog.pg_snapshot_xmin({planned})")),
        condition = chunk_condition(&whole(mapping), &WHOLE),
    )
}

/// Whether a row of the whole stage lies in a range, whichever heap it is in.
fn lies_in(mapping: &Mapping, range: &Range) -> String {
    let predicate = range.predicate(&mapping.cut);
    match range {
        Range::Blocks { leaf, .. } => format!("stage.tableoid = {}::pg_catalog.oid AND {predicate}", leaf.oid),
        Range::Rejects { run, .. } => {
            let open = staged::is_of_rejects(mapping, &format!("run_id = {run} AND retried_in IS NULL"));
            format!("COALESCE({open}, false)")
        }
        _ => format!("COALESCE({predicate}, false)"),
    }
}
