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

/// Up to so many rows the boundaries are counted out along the key (exact; 10 million took 0.5 s), beyond it a sample tells.
const COUNTED_OUT: f64 = 2_000_000.0;

/// Percent of the blocks in a sample: chunks of 10 million rows came out within 7 % of each other.
const SAMPLE_PERCENT: f64 = 5.0;

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
        sample(connection, mapping, size).await?
    };
    Ok(chunk::cut_keys(boundaries, &mapping.cut))
}

struct Heap {
    leaf: Leaf,
    pages: u32,
    rows_a_page: f64,
}

/// Measures every heap that has blocks.
async fn measure(connection: &Connection, mapping: &Mapping, stage: &Table) -> Result<Vec<Heap>, Failure> {
    let mut heaps = Vec::new();
    for leaf in &stage.leaves {
        let sql = "SELECT pg_catalog.pg_relation_size($1::oid) / pg_catalog.current_setting('block_size')::bigint";
        let pages: i64 = connection.query_one(sql, &[(&leaf.oid, Type::OID)]).await?.get(0);
        let pages = u32::try_from(pages).unwrap_or(u32::MAX);
        if pages == 0 {
            continue;
        }
        let percent = (100.0 * BLOCKS_LOOKED_AT / f64::from(pages)).min(100.0);
        let conditions = mapping.row_conditions();
        let filter = if conditions.is_empty() { String::new() } else { format!(" WHERE {}", conditions.join(" AND ")) };
        let sql = format!(
            "SELECT pg_catalog.count(*)::float8 FROM ONLY {} AS stage TABLESAMPLE SYSTEM ({percent}){filter}",
            leaf.name
        );
        let found: f64 = probe::ask_one(connection, &mapping.settings, &sql, &[]).await?.get(0);
        let rows_a_page = found / (f64::from(pages) * percent / 100.0);
        heaps.push(Heap { leaf: leaf.clone(), pages, rows_a_page });
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

/// Quantiles of a sample of blocks.
async fn sample(connection: &Connection, mapping: &Mapping, rows: u64) -> Result<Vec<Vec<String>>, Failure> {
    let Keys { columns, condition } = Keys::of(mapping);
    let names = columns.join(", ");
    let sampled = columns.iter().map(|column| format!("stage.{column}")).collect::<Vec<_>>().join(", ");
    let texts = columns.iter().map(|column| format!("{column}::text")).collect::<Vec<_>>().join(", ");
    let step = ((rows as f64 * SAMPLE_PERCENT / 100.0) as u64).max(1);
    let sql = format!(
        "SELECT {texts} FROM (
            SELECT {names}, pg_catalog.row_number() OVER (ORDER BY {names}) AS \"stagemill row\"
            FROM (SELECT {sampled} FROM {} AS stage TABLESAMPLE SYSTEM ({SAMPLE_PERCENT}) WHERE {condition}) AS sample
         ) AS numbered WHERE \"stagemill row\" % {step} = 0 ORDER BY \"stagemill row\"",
        mapping.stage
    );
    ask_boundaries(connection, mapping, &sql).await
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
