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
        let mut with = staged::rows(mapping, Source::AllFrozen);
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
            let mut with = staged::rows(&keep, Source::Chunk(range));
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

/// What this moment sees, as two columns: the snapshot, and the transactions between its bounds of which a staged row is seen, so many at most.
/// They are looked for only while others are open.
pub fn snapshot(mapping: &Mapping, most: usize) -> String {
    let now = "(SELECT pg_catalog.pg_current_snapshot() AS \"stagemill now\")";
    let (xid, oldest) = (number("stage.xmin"), number("pg_catalog.pg_snapshot_xmin(n.\"stagemill now\")"));
    let newest = number("pg_catalog.pg_snapshot_xmax(n.\"stagemill now\")");
    format!(
        "SELECT n.\"stagemill now\"::pg_catalog.text,
                CASE WHEN {oldest} < {newest} THEN
                    ARRAY(SELECT DISTINCT {xid} FROM {} AS stage WHERE {xid} >= 3 AND {} >= {oldest} LIMIT {most})
                ELSE ARRAY[]::bigint[] END
         FROM {now} AS n",
        mapping.stage,
        widened(&newest),
    )
}

fn number(xid: &str) -> String {
    format!("{xid}::pg_catalog.text::bigint")
}

/// A row's xmin has 32 bits: it is widened by the epoch, going back from the newest transaction. Frozen rows keep theirs.
fn widened(newest: &str) -> String {
    format!("({newest} - (({newest} - {}) & 4294967295))", number("stage.xmin"))
}

/// How many rows of the window a snapshot did not see, of those outside some ranges: they came, or were changed, since it was taken.
pub fn count_new(mapping: &Mapping, snapshot: &str, except: &[Range]) -> String {
    // Each a query of its own, so that it is asked once and not for each row.
    let newest = format!("(SELECT {})", number("pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())"));
    let planned = format!("CAST({} AS pg_catalog.pg_snapshot)", ident::literal(snapshot));
    let oldest = format!("pg_catalog.pg_snapshot_xmin({planned})");
    let (xid, widened) = (number("stage.xmin"), widened(&newest));
    // A subtransaction of one that was open then is not in the snapshot.
    let unseen = mapping.seen.as_ref().map(|seen| {
        let seen = seen.iter().map(i64::to_string).collect::<Vec<_>>().join(",");
        format!(" OR {widened} >= {} AND {xid} <> ALL ('{{{seen}}}'::bigint[])", number(&oldest))
    });
    let except: String = except.iter().map(|range| format!("\nAND NOT ({})", lies_in(mapping, range))).collect();
    format!(
        "SELECT pg_catalog.count(*) FROM {stage} AS stage
         WHERE {condition}
         -- Few rows pass the first test, which is cheap: whatever is older than the oldest transaction that was open then (frozen rows are older
         -- than all). The next is exact. Only what passes both is looked for in the ranges, of which there can be thousands: the server keeps
         -- this order in a CASE alone.
         AND CASE WHEN pg_catalog.age(stage.xmin) <= (SELECT pg_catalog.age({oldest}::pg_catalog.xid)) AND {xid} >= 3
         THEN (NOT pg_catalog.pg_visible_in_snapshot({widened}::pg_catalog.text::pg_catalog.xid8, {planned}){unseen}){except}
         ELSE false END",
        stage = mapping.stage,
        unseen = unseen.unwrap_or_default(),
        condition = chunk_condition(&whole(mapping), &WHOLE),
    )
}

/// Whether a row of the whole stage lies in a range, whichever heap it is in.
fn lies_in(mapping: &Mapping, range: &Range) -> String {
    let predicate = range.predicate(&mapping.cut);
    match range {
        Range::Blocks { leaf, .. } => format!("stage.tableoid = {}::pg_catalog.oid AND {predicate}", leaf.oid),
        Range::Rejects { run, .. } => staged::is_of_rejects(mapping, &format!("run_id = {run} AND retried_in IS NULL")),
        _ => format!("COALESCE({predicate}, false)"),
    }
}
