//! What a chunk costs beside its statement, and which size of chunks is best.

use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Effort, cores};
use crate::{
    program::{Program, timed},
    sandbox::{Database, Sandbox},
    server::{COPY, Server},
    state_machine::StateMachine,
    statistic,
    workload::{Operation, PREWARM, Secondary, Size, make_target, make_template},
};

/// What was measured.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Coordination {
    /// Chunks of the short and of the long run with empty statements: what does not grow with chunks falls out of the difference.
    pub(crate) chunks: (u64, u64),
    /// Milliseconds a chunk of `stagemill run`, one session.
    pub(crate) local_ms: Vec<f64>,
    /// The same with a session a core: the run's time by its chunks.
    pub(crate) local_parallel_ms: Vec<f64>,
    /// Milliseconds a chunk in one executor.
    pub(crate) executor_ms: Vec<f64>,
    /// Milliseconds of a processor a chunk in one executor.
    pub(crate) executor_processor_ms: Vec<f64>,
    /// Milliseconds a chunk of an execution of the state machine, one executor at a time.
    pub(crate) execution_ms: Vec<f64>,
    /// Milliseconds of a call of an executor that finds nothing to do.
    pub(crate) call_ms: Vec<f64>,
    pub(crate) growth: Vec<Growth>,
}

/// A real update with chunks of some size.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Growth {
    pub(crate) rows: u64,
    pub(crate) rows_a_second: f64,
}

const DATABASE: &str = "empty";
const STAGED: u64 = 200_000;
const GROWTH: [u64; 7] = [500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000];

pub(crate) fn run(effort: Effort, found: &mut Coordination) -> Result<()> {
    let server = Server::start("4GB", &[])?;
    server.sql("postgres", &format!("CREATE DATABASE {DATABASE}"))?;
    server.sql(
        DATABASE,
        &format!(
            "CREATE TABLE target (id bigint PRIMARY KEY);
             CREATE TABLE stage AS SELECT g AS id FROM generate_series(1::bigint, {STAGED}) g;
             ALTER TABLE stage ADD PRIMARY KEY (id); VACUUM (FREEZE, ANALYZE) stage;"
        ),
    )?;
    let url = server.url(DATABASE);
    Program::stagemill()?.run(&["init"], &url)?;
    found.chunks = if effort.quick { (50, 250) } else { (200, 2_200) };
    for repetition in 0..effort.repetitions {
        found.local_ms.push(local(&server, found.chunks, 1)?);
        found.local_parallel_ms.push(local(&server, found.chunks, cores())?);
        executor(&url, repetition, found)?;
    }
    let machine = StateMachine::start(&url)?;
    for repetition in 0..effort.repetitions {
        found.execution_ms.push(execution(&server, &machine, repetition, found.chunks)?);
    }
    drop(machine);
    eprintln!(
        "coordination: ms a chunk: local {:.2?}, executor {:.2?}, execution {:.2?}",
        found.local_ms, found.executor_ms, found.execution_ms
    );
    growth(&server, effort, found)
}

/// A job whose statement touches nothing.
fn empty(name: &str, chunks: u64, parallelism: u32) -> Value {
    json!({ "name": name, "stage": { "table": "public.stage" }, "target": { "table": "public.target" }, "operation": "sql",
            "sql": ["INSERT INTO target SELECT id FROM stage WHERE false AND {chunk}"],
            "chunks": { "by": "key", "column": "id", "rows": STAGED / chunks }, "parallelism": parallelism })
}

/// Milliseconds a chunk with the local driver.
fn local(server: &Server, (few, many): (u64, u64), sessions: u32) -> Result<f64> {
    let lap = |wanted: u64| -> Result<(f64, f64)> {
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join("job.json"), empty("local", wanted, sessions).to_string())?;
        let (summary, took) = timed(stagemill(folder.path(), &server.url(DATABASE))?)?;
        let summary: Value = serde_json::from_str(&summary)?;
        let chunks = summary["chunks"].as_f64().context("the summary has no chunks")?;
        Ok((chunks, took.as_secs_f64()))
    };
    Ok(statistic::slope(lap(few)?, lap(many)?) * 1000.0)
}

fn stagemill(folder: &Path, url: &str) -> Result<std::process::Command> {
    let mut command = Program::stagemill()?.command(&["run", "--quiet", "--json", "job.json"], url);
    command.current_dir(folder);
    Ok(command)
}

/// The same in one executor, which is called once for all chunks.
fn executor(url: &str, repetition: u32, found: &mut Coordination) -> Result<()> {
    let database = Database::Url { url, authority: None };
    let start = |function| Sandbox::start(function, &database);
    let (planner, executor, recorder) = (start("planner")?, start("executor")?, start("recorder")?);
    let lap = |name: &str, wanted: u64| -> Result<(f64, f64, f64, f64)> {
        // Another start each time: the planner would take the same one for a repeated event.
        let owner = format!("bench:{repetition}:{name}");
        let (plan, _) = planner.invoke(&json!({ "start": owner, "input": { "job": empty("executor", wanted, 1) } }))?;
        let items = plan["items"].as_array().context("the planner gave no items")?;
        let (Some(first), Some(last)) = (items.first(), items.last()) else {
            bail!("the planner gave no items: {plan}")
        };
        let mut item = first.clone();
        item["last"] = last["last"].clone();
        let before = executor.processor_seconds()?;
        let (answer, took) = executor.invoke(&item)?;
        let processor = executor.processor_seconds()? - before;
        if answer["remaining"] != 0 {
            bail!("the executor left chunks: {answer}");
        }
        // There is nothing left: this is what a call costs.
        let (_, call) = executor.invoke(&item)?;
        recorder.invoke(&json!({ "start": owner, "run": item["run"], "round": item["round"] }))?;
        let chunks = item["last"].as_f64().context("the last chunk's id")?
            - item["first"].as_f64().context("the first chunk's id")?
            + 1.0;
        Ok((chunks, took.as_secs_f64(), processor, call.as_secs_f64()))
    };
    // The first call connects.
    lap("first", found.chunks.0)?;
    let (few, many) = (lap("few", found.chunks.0)?, lap("many", found.chunks.1)?);
    found.executor_ms.push(statistic::slope((few.0, few.1), (many.0, many.1)) * 1000.0);
    found.executor_processor_ms.push(statistic::slope((few.0, few.2), (many.0, many.2)) * 1000.0);
    found.call_ms.push(many.3 * 1000.0);
    Ok(())
}

/// Milliseconds a chunk of executions of the state machine: items have more chunks, there are not more of them.
fn execution(server: &Server, machine: &StateMachine, repetition: u32, (few, many): (u64, u64)) -> Result<f64> {
    let lap = |wanted: u64| -> Result<(f64, f64)> {
        let name = format!("execution-{repetition}-{wanted}");
        let took = machine.run(&name, &json!({ "job": empty(&name, wanted, 1) }))?;
        let run = format!("SELECT chunks FROM stagemill.run_status WHERE job = '{name}' AND status = 'COMPLETE'");
        Ok((server.number(DATABASE, &run)?, took.as_secs_f64()))
    };
    Ok(statistic::slope(lap(few)?, lap(many)?) * 1000.0)
}

/// Rows a second of a real update, by the size of its chunks.
fn growth(server: &Server, effort: Effort, found: &mut Coordination) -> Result<()> {
    let size = if effort.quick {
        Size { staged: 20_000, target: 200_000 }
    } else {
        Size { staged: 400_000, target: 4_000_000 }
    };
    eprintln!("coordination: filling {} target rows", size.target);
    make_target(server, "base", size, Secondary::Near)?;
    let template = make_template(server, "base", Operation::Update, size)?;
    for rows in GROWTH {
        let mut job = Operation::Update.job();
        job["chunks"] = json!({ "rows": rows });
        job["parallelism"] = json!(cores());
        let mut seconds = Vec::new();
        for _ in 0..effort.repetitions {
            server.copy(&template)?;
            server.sql(COPY, PREWARM)?;
            let folder = tempfile::tempdir()?;
            std::fs::write(folder.path().join("job.json"), job.to_string())?;
            let (_, took) = timed(stagemill(folder.path(), &server.url(COPY))?)?;
            seconds.push(took.as_secs_f64());
        }
        let rows_a_second = size.staged as f64 / statistic::median(&seconds).unwrap_or(f64::NAN);
        eprintln!("  chunks of {rows}: {rows_a_second:.0} rows/s");
        found.growth.push(Growth { rows, rows_a_second });
    }
    Ok(())
}
