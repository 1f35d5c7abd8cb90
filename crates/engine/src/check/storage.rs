//! The tables as they lie on disk: dead rows, missing statistics, autovacuum that was turned off.

use tokio_postgres::Row;

use super::subject::{Subject, heaps, oids};
use crate::{
    failure::Failure,
    finding::Finding,
    ident::{Ident, TableName},
    table::Table,
};

/// Smaller heaps (1 MB, by default) are read in no time, and any plan will do.
const PAGES_WORTH_A_WORD: i64 = 128;

/// A heap of a table.
struct Heap {
    name: TableName,
    pages: i64,
    analyzed: bool,
    live: i64,
    dead: i64,
    counted: bool,
    autovacuum: bool,
}

/// Warns of what makes a run slow, or leaves the target in a bad state.
pub(super) async fn examine(subject: &Subject<'_>, findings: &mut Vec<Finding>) -> Result<(), Failure> {
    let stage = heaps_of(subject, subject.stage).await?;
    let target = heaps_of(subject, subject.target).await?;
    for (at, heaps) in [("stage.table", &stage), ("target.table", &target)] {
        let never: Vec<&Heap> = heaps.iter().filter(|heap| !heap.analyzed).collect();
        if let Some(names) = named(&never) {
            findings.push(Finding::warning(
                at,
                format!("has no statistics ({names} was never analyzed): the server guesses how to find its rows"),
                format!("ANALYZE {}", if at == "stage.table" { &subject.stage.name } else { &subject.target.name }),
            ));
        }
    }
    // Every row of it is wide or dead: a page holds at least one row that lives.
    let is_bloated = |heap: &&Heap| heap.counted && (heap.dead > heap.live || heap.live < heap.pages);
    let bloated: Vec<&Heap> = stage.iter().filter(is_bloated).collect();
    if let (Some(names), Some(first)) = (named(&bloated), bloated.first()) {
        let (pages, live, dead): (i64, i64, i64) =
            bloated.iter().fold((0, 0, 0), |sum, heap| (sum.0 + heap.pages, sum.1 + heap.live, sum.2 + heap.dead));
        findings.push(Finding::warning(
            "stage.table",
            format!("is mostly dead space ({names}: {pages} blocks, about {live} rows, {dead} dead ones): a run reads all of it"),
            format!("VACUUM (ANALYZE) {0}; before the next load TRUNCATE {0} instead of DELETE", first.name),
        ));
    }
    let unattended: Vec<&Heap> = target.iter().filter(|heap| !heap.autovacuum).collect();
    if let (Some(names), Some(first)) = (named(&unattended), unattended.first()) {
        findings.push(Finding::warning(
            "target.table",
            format!("has autovacuum turned off ({names}): the dead rows that a run leaves stay"),
            format!("ALTER TABLE {} RESET (autovacuum_enabled), or VACUUM it after the run", first.name),
        ));
    }
    Ok(())
}

/// `a`, or `a and 3 more`.
fn named(heaps: &[&Heap]) -> Option<String> {
    let first = heaps.first()?;
    let more = heaps.len() - 1;
    Some(if more == 0 { first.name.to_string() } else { format!("{} and {more} more", first.name) })
}

const HEAPS: &str = "
SELECT n.nspname::text, c.relname::text,
       pg_catalog.pg_relation_size(c.oid) / pg_catalog.current_setting('block_size')::bigint,
       c.reltuples >= 0, COALESCE(s.n_live_tup, 0), COALESCE(s.n_dead_tup, 0),
       COALESCE(s.n_live_tup + s.n_dead_tup > 0 OR s.last_vacuum IS NOT NULL OR s.last_autovacuum IS NOT NULL
                OR s.last_analyze IS NOT NULL OR s.last_autoanalyze IS NOT NULL, false),
       NOT EXISTS (SELECT FROM pg_catalog.pg_options_to_table(c.reloptions) o
                   WHERE o.option_name = 'autovacuum_enabled' AND NOT o.option_value::boolean)
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_stat_all_tables s ON s.relid = c.oid
WHERE c.oid = ANY ($1) AND c.relkind IN ('r', 'm')
ORDER BY c.oid";

async fn heaps_of(subject: &Subject<'_>, table: &Table) -> Result<Vec<Heap>, Failure> {
    let ids = heaps(table);
    let heaps = subject.ask(HEAPS, &[oids(&ids)]).await?;
    Ok(heaps.iter().map(heap).filter(|heap| heap.pages >= PAGES_WORTH_A_WORD || !heap.autovacuum).collect())
}

fn heap(row: &Row) -> Heap {
    let pages: i64 = row.get(2);
    let small = pages < PAGES_WORTH_A_WORD;
    Heap {
        name: TableName {
            schema: Some(Ident::exact(row.get::<_, String>(0))),
            name: Ident::exact(row.get::<_, String>(1)),
        },
        pages,
        analyzed: small || row.get(3),
        live: row.get(4),
        dead: row.get(5),
        counted: !small && row.get(6),
        autovacuum: row.get(7),
    }
}
