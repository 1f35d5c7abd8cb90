//! Cuts the stage table: looks at its size, and lets the server choose boundaries that hold equal numbers of rows.

mod own;

pub use own::ranges as own_ranges;

use tokio_postgres::types::Type;

use crate::{
    chunk::{self, Range},
    failure::Failure,
    job::Chunks,
    mapping::Mapping,
    pg::Connection,
    probe,
    table::{Kind, Leaf, Table},
};

/// Heap blocks that are looked at to learn how many rows a block holds; statistics can be missing, or mislead after a reload.
const BLOCKS_LOOKED_AT: f64 = 200.0;

/// Up to so many rows the boundaries are counted out along the key, which is exact; beyond it a sample tells. Between a load and the next VACUUM the index
/// alone does not show which rows there are: each is fetched from the heap, which takes 1.5 s for a million, and a read each where the stage is not cached.
const COUNTED_OUT: f64 = 200_000.0;

/// Rows of a chunk that are in the sample: chunks of rows in no order come out within about a third of their mean.
const SAMPLED_ROWS: f64 = 120.0;

/// Rows that are in a sample at least: where they are few for all chunks, more of each cost little.
const LEAST_SAMPLED: f64 = 20_000.0;

/// Where rows lie in the order of the key, each block tells of its own few keys alone: so many blocks of a chunk are looked at, evenly spaced, and
/// so many rows of each. (5 % of the blocks, drawn at random, made a chunk six times as large as the mean.)
const SAMPLED_BLOCKS: f64 = 12.0;
const ROWS_A_SAMPLED_BLOCK: f64 = 4.0;

/// Blocks that are looked at to learn in what order rows lie.
const BLOCKS_LOOKED_AT_FOR_ORDER: f64 = 50.0;

/// Cuts the stage into chunks of about `chunks.rows` rows that the job's condition lets through.
///
/// # Errors
/// What the server or the connection says.
pub async fn stage(
    connection: &Connection,
    mapping: &Mapping,
    stage: &Table,
    chunks: &Chunks,
    parallelism: u32,
) -> Result<Vec<Range>, Failure> {
    if let Some(query) = &chunks.query {
        return own_ranges(connection, mapping, query).await;
    }
    let heaps = measure(connection, mapping, stage).await?;
    let rows: f64 = heaps.iter().map(|heap| heap.rows_a_page * f64::from(heap.pages)).sum();
    if mapping.cut.is_empty() {
        let size = chunk::rows_a_chunk(chunks.rows, rows as u64, parallelism);
        return Ok(heaps
            .iter()
            .flat_map(|heap| chunk::cut_blocks(&heap.leaf, heap.pages, heap.rows_a_page, size))
            .collect());
    }
    if stage.kind == Kind::NoHeap {
        let boundaries = count_out(connection, mapping, u64::from(chunks.rows)).await?;
        return Ok(chunk::cut_keys(boundaries, &mapping.cut));
    }
    if heaps.is_empty() {
        return Ok(Vec::new());
    }
    let size = chunk::rows_a_chunk(chunks.rows, rows as u64, parallelism);
    let boundaries = if rows <= COUNTED_OUT {
        count_out(connection, mapping, size).await?
    } else {
        sample(connection, mapping, &heaps, rows, size).await?
    };
    Ok(chunk::cut_keys(boundaries, &mapping.cut))
}

struct Heap {
    leaf: Leaf,
    pages: u32,
    /// Rows that are cut, those with a NULL in the key aside.
    rows_a_page: f64,
    /// The share of pages that have rows: after a DELETE many have none.
    used: f64,
    /// All rows of a page that has any.
    lines_a_page: f64,
    /// The highest line of a page.
    lines: f64,
}

/// Measures every heap that has blocks.
async fn measure(connection: &Connection, mapping: &Mapping, stage: &Table) -> Result<Vec<Heap>, Failure> {
    let mut heaps = Vec::new();
    for leaf in &stage.leaves {
        let sql = "SELECT pg_catalog.pg_relation_size($1::oid) / pg_catalog.current_setting('block_size')::bigint";
        let pages: i64 = probe::ask_one(connection, &mapping.settings, sql, &[(&leaf.oid, Type::OID)]).await?.get(0);
        let pages = u32::try_from(pages).unwrap_or(u32::MAX);
        if pages == 0 {
            continue;
        }
        let percent = (100.0 * BLOCKS_LOOKED_AT / f64::from(pages)).min(100.0);
        let Keys { condition, .. } = Keys::of(mapping);
        let filter = if condition.is_empty() { "true" } else { &condition };
        let sql = format!(
            "SELECT (pg_catalog.count(*) FILTER (WHERE {filter}))::float8, pg_catalog.count(*)::float8,
                    pg_catalog.count(DISTINCT (stage.ctid::text::point)[0])::float8, COALESCE(pg_catalog.max((stage.ctid::text::point)[1]), 1)
             FROM ONLY {} AS stage TABLESAMPLE SYSTEM ({percent})",
            leaf.name
        );
        let row = probe::ask_one(connection, &mapping.settings, &sql, &[]).await?;
        let looked_at = f64::from(pages) * percent / 100.0;
        let count = |n: usize| row.get::<_, f64>(n);
        heaps.push(Heap {
            leaf: leaf.clone(),
            pages,
            rows_a_page: count(0) / looked_at,
            used: (count(2) / looked_at).min(1.0),
            lines_a_page: count(1) / count(2).max(1.0),
            lines: count(3),
        });
    }
    Ok(heaps)
}

/// Every `rows`-th key that has another one behind it, in order, found by steps along the key's index.
async fn count_out(connection: &Connection, mapping: &Mapping, rows: u64) -> Result<Vec<Vec<String>>, Failure> {
    let Keys { columns, condition } = Keys::of(mapping);
    let stage = &mapping.stage;
    let skip = rows.saturating_sub(1);
    let list = |prefix: &str| columns.iter().map(|column| format!("{prefix}.{column}")).collect::<Vec<_>>().join(", ");
    // A name that hides no table which the job's condition reads.
    let boundary = "\"stagemill boundary\"";
    let behind = format!("({}) > ({})", list("stage"), list(boundary));
    let step = |more: &str| {
        format!(
            "SELECT {0} FROM {stage} AS stage WHERE {condition}{more} ORDER BY {0} OFFSET {skip} LIMIT 1",
            list("stage")
        )
    };
    let sql = format!(
        "WITH RECURSIVE {boundary} AS (
            ({first})
            UNION ALL
            SELECT n.* FROM {boundary}, LATERAL ({next}) n
         )
         SELECT {texts} FROM {boundary} WHERE EXISTS (SELECT FROM {stage} AS stage WHERE {condition} AND {behind})",
        first = step(""),
        next = step(&format!(" AND {behind}")),
        texts = columns.iter().map(|column| format!("{boundary}.{column}::text")).collect::<Vec<_>>().join(", "),
    );
    ask_boundaries(connection, mapping, &sql).await
}

/// Quantiles of a sample: of blocks drawn at random, or of single rows of blocks that are evenly spaced, where rows lie in the order of the key.
async fn sample(
    connection: &Connection,
    mapping: &Mapping,
    heaps: &[Heap],
    rows: f64,
    size: u64,
) -> Result<Vec<Vec<String>>, Failure> {
    let Keys { columns, condition } = Keys::of(mapping);
    let names = columns.join(", ");
    let sampled = columns.iter().map(|column| format!("stage.{column}")).collect::<Vec<_>>().join(", ");
    let texts = columns.iter().map(|column| format!("{column}::text")).collect::<Vec<_>>().join(", ");
    let in_order = lies_in_order(connection, mapping, heaps).await?;
    let random = (SAMPLED_ROWS / size as f64).max(LEAST_SAMPLED / rows).min(1.0);
    let (from, step): (Vec<String>, String) = if in_order {
        let (share, from): (Vec<f64>, Vec<String>) = heaps.iter().map(|heap| spaced(heap, size)).unzip();
        // Of all heaps alike, but for rounding.
        let share = share.iter().sum::<f64>() / share.len().max(1) as f64;
        (from, ((size as f64 * share) as u64).max(1).to_string())
    } else {
        // How many blocks are drawn is left to chance, a tenth more or less of a hundred: what was drawn tells.
        let step = format!(
            "GREATEST(1, pg_catalog.floor(pg_catalog.count(*) OVER () * {size}::float8 / {rows}::float8)::int8)"
        );
        (heaps.iter().map(|heap| at_random(heap, random)).collect(), step)
    };
    let from = from.iter().map(|from| format!("SELECT {sampled} {from} AND {condition}"));
    let sql = format!(
        "SELECT {texts} FROM (
            SELECT {names}, pg_catalog.row_number() OVER (ORDER BY {names}) AS \"stagemill row\", {step} AS \"stagemill step\"
            FROM ({}) AS sample
         ) AS numbered WHERE \"stagemill row\" % \"stagemill step\" = 0 ORDER BY \"stagemill row\"",
        from.collect::<Vec<_>>().join("\nUNION ALL\n")
    );
    ask_boundaries(connection, mapping, &sql).await
}

/// Whether neighbours along the key are neighbours in the heap too, by a few blocks of the largest one.
async fn lies_in_order(connection: &Connection, mapping: &Mapping, heaps: &[Heap]) -> Result<bool, Failure> {
    let Some(heap) = heaps.iter().max_by_key(|heap| heap.pages) else { return Ok(false) };
    let Keys { columns, condition } = Keys::of(mapping);
    let names = columns.join(", ");
    let sampled = columns.iter().map(|column| format!("stage.{column}")).collect::<Vec<_>>().join(", ");
    let percent = (100.0 * BLOCKS_LOOKED_AT_FOR_ORDER / f64::from(heap.pages)).min(100.0);
    let sql = format!(
        "SELECT COALESCE(pg_catalog.avg((\"stagemill block\" = \"stagemill before\")::int) > 0.5, false) FROM (
            SELECT \"stagemill block\", pg_catalog.lag(\"stagemill block\") OVER (ORDER BY {names}) AS \"stagemill before\"
            FROM (SELECT {sampled}, (stage.ctid::text::point)[0] AS \"stagemill block\"
                  FROM ONLY {} AS stage TABLESAMPLE SYSTEM ({percent}) WHERE {condition}) AS sample
         ) AS neighbours",
        heap.leaf.name
    );
    Ok(probe::ask_one(connection, &mapping.settings, &sql, &[]).await?.get(0))
}

/// Rows of whole blocks, drawn at random.
fn at_random(heap: &Heap, share: f64) -> String {
    format!("FROM ONLY {} AS stage TABLESAMPLE SYSTEM ({}) WHERE true", heap.leaf.name, share * 100.0)
}

/// The share of a heap's rows that is drawn, and from where: a few lines of a block of each interval, whether there is a row or not.
fn spaced(heap: &Heap, size: u64) -> (f64, String) {
    let blocks_a_chunk = size as f64 / heap.rows_a_page.max(1.0) * heap.used;
    let every = (blocks_a_chunk / SAMPLED_BLOCKS).floor().max(1.0);
    // A chunk of fewer blocks takes more of each.
    let rows_a_block = ROWS_A_SAMPLED_BLOCK * (SAMPLED_BLOCKS * every / blocks_a_chunk).max(1.0);
    let line_step = (heap.lines_a_page / rows_a_block).floor().max(1.0);
    let lines = heap.lines.max(1.0);
    let share = (lines / line_step).ceil() / lines / every;
    // Anywhere in its interval: dead pages that come at equal distances would else be met again and again, or never.
    let from = format!(
        "FROM ONLY {} AS stage WHERE stage.ctid = ANY (ARRAY(
            WITH blocks AS MATERIALIZED (
                SELECT first + pg_catalog.floor(pg_catalog.random() * {every})::int8 AS block
                FROM pg_catalog.generate_series(0, {}, {every}) AS first)
            SELECT pg_catalog.format('(%s,%s)', block, line)::tid FROM blocks, pg_catalog.generate_series(1, {lines}, {line_step}) AS line))",
        heap.leaf.name,
        heap.pages.saturating_sub(1),
    );
    (share, from)
}

struct Keys {
    columns: Vec<String>,
    condition: String,
}

impl Keys {
    fn of(mapping: &Mapping) -> Self {
        let columns: Vec<String> = mapping.cut.iter().map(|cut| cut.column.to_string()).collect();
        let not_null = columns.iter().map(|column| format!("stage.{column} IS NOT NULL"));
        let condition = not_null.chain(mapping.row_conditions()).collect::<Vec<_>>().join(" AND ");
        Self { columns, condition }
    }
}

async fn ask_boundaries(connection: &Connection, mapping: &Mapping, sql: &str) -> Result<Vec<Vec<String>>, Failure> {
    let rows = probe::ask(connection, &mapping.settings, sql, &[]).await?;
    let mut boundaries: Vec<Vec<String>> =
        rows.iter().map(|row| (0..row.len()).map(|n| row.get(n)).collect()).collect();
    boundaries.dedup();
    Ok(boundaries)
}
