//! Cutting large stages: how long it takes, and how even the chunks are.

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Effort, cores};
use crate::{
    program::{Program, timed},
    server::Server,
    statistic,
};

const DATABASE: &str = "planning";

/// What was measured of one way to cut one stage.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Cut {
    pub(crate) rows: u64,
    /// Whether one tenth of the keys spreads over almost all of their range.
    pub(crate) skewed: bool,
    /// `ctid` or `key`.
    pub(crate) by: String,
    /// `stagemill plan --json`, from its start to its end, checks included.
    pub(crate) plan_seconds: Vec<f64>,
    /// In a run: from its start until all chunks were cut and written to the ledger.
    pub(crate) run_planning_seconds: f64,
    pub(crate) chunks: u64,
    /// The rows of each chunk, counted: the mean of all, and the most.
    pub(crate) mean: f64,
    pub(crate) largest: f64,
}

/// Rows in no order of keys, so that a sample of blocks is one of keys. The prime has no factor in common with a number of rows used here.
const STAGE: &str = "
DROP TABLE IF EXISTS stage;
BEGIN;
CREATE TABLE stage AS
SELECT {id} AS id, 'x'::text AS v FROM (SELECT (g * 982451653) % {rows} + 1 AS k FROM generate_series(1::bigint, {rows}) g) s;
ALTER TABLE stage ADD PRIMARY KEY (id);
COMMIT;
VACUUM (FREEZE, ANALYZE) stage;";

pub(crate) fn run(effort: Effort, cuts: &mut Vec<Cut>) -> Result<()> {
    let server = Server::start("1GB", &[])?;
    server.sql("postgres", &format!("CREATE DATABASE {DATABASE}"))?;
    server
        .sql(DATABASE, "CREATE TABLE target (id bigint PRIMARY KEY, v text); CREATE UNLOGGED TABLE sizes (n bigint)")?;
    Program::stagemill()?.run(&["init"], &server.url(DATABASE))?;
    let millions: [(u64, bool); 5] = [(1, false), (1, true), (10, false), (10, true), (40, true)];
    let unit = if effort.quick { 20_000 } else { 1_000_000 };
    for (million, skewed) in millions {
        let rows = million * unit;
        eprintln!("planning: filling {rows} staged rows{}", if skewed { ", skewed" } else { "" });
        let id = if skewed { "CASE WHEN k % 10 = 0 THEN k * 1000000 ELSE k END".to_owned() } else { "k".to_owned() };
        server.sql(DATABASE, &STAGE.replace("{id}", &id).replace("{rows}", &rows.to_string()))?;
        for by in ["ctid", "key"] {
            let cut = cut(&server, rows, skewed, by, effort.repetitions)?;
            let seconds = statistic::median(&cut.plan_seconds).unwrap_or_default();
            eprintln!(
                "  {by}: {} chunks planned in {seconds:.3} s, the largest {:.2} of the mean",
                cut.chunks,
                cut.largest / cut.mean
            );
            cuts.push(cut);
        }
    }
    Ok(())
}

fn cut(server: &Server, rows: u64, skewed: bool, by: &str, repetitions: u32) -> Result<Cut> {
    let url = server.url(DATABASE);
    let folder = tempfile::tempdir()?;
    let job = |value: &Value| -> Result<String> {
        let path = folder.path().join("job.json");
        std::fs::write(&path, value.to_string())?;
        Ok(path.display().to_string())
    };
    let update = job(
        &json!({ "name": "planned", "stage": { "table": "public.stage" }, "target": { "table": "public.target", "key": ["id"] },
                              "operation": "update", "columns": { "id": "stage.id", "v": "stage.v" }, "chunks": { "by": by } }),
    )?;
    let mut plan_seconds = Vec::new();
    for _ in 0..repetitions {
        let (_, took) = timed(Program::stagemill()?.command(&["plan", "--json", &update], &url))?;
        plan_seconds.push(took.as_secs_f64());
    }
    // Counted for real: each chunk counts its rows, whose number is all that it writes.
    server.sql(DATABASE, "TRUNCATE sizes")?;
    let mut chunks = json!({ "by": by });
    if by == "key" {
        chunks["column"] = json!("id");
    }
    let count = job(
        &json!({ "name": "counted", "stage": { "table": "public.stage" }, "target": { "table": "public.sizes" }, "operation": "sql",
                             "sql": ["INSERT INTO sizes SELECT count(*) FROM stage WHERE {chunk}"], "chunks": chunks, "parallelism": cores() }),
    )?;
    let mut counting = Program::stagemill()?.command(&["run", "--quiet", "--json", &count], &url);
    counting.current_dir(folder.path());
    let (summary, _) = timed(counting)?;
    let run = serde_json::from_str::<Value>(&summary).context("stagemill's summary is no JSON")?["run"].clone();
    let planning = server.number(
        DATABASE,
        &format!("SELECT extract(epoch FROM planned_at - started_at) FROM stagemill.run WHERE run_id = {run}"),
    )?;
    let counted = server.number(DATABASE, "SELECT sum(n) FROM sizes")?;
    if counted as u64 != rows {
        bail!("the chunks by {by} of {rows} rows hold {counted}");
    }
    Ok(Cut {
        rows,
        skewed,
        by: by.to_owned(),
        plan_seconds,
        run_planning_seconds: planning,
        chunks: server.number(DATABASE, "SELECT count(*) FROM sizes")? as u64,
        mean: server.number(DATABASE, "SELECT avg(n)::float8 FROM sizes")?,
        largest: server.number(DATABASE, "SELECT max(n) FROM sizes")?,
    })
}
