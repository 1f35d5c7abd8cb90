//! Who applies the stage to the target: stagemill, and what a user would otherwise do.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    program::{self, Program, benches, timed},
    server::{COPY, Server},
    workload::{Operation, Size},
};

/// Rows a chunk at most, as stagemill's jobs have it when they do not say.
const ROWS: u64 = 5_000;

/// Chunks a session at least.
const CHUNKS_A_SESSION: u64 = 8;

/// One way to apply the stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Contestant {
    /// The single statement.
    Single,
    /// The single statement over the stage sorted by key.
    Sorted,
    /// A plpgsql procedure that loops over chunks with COMMIT.
    Procedure,
    /// The replaced program's way.
    Threads { threads: u32, rows: u32 },
    /// Ranges cut by hand beforehand, through parallel psql with nothing else around.
    Limit { sessions: u32 },
    /// stagemill, with so many sessions; `None` for `"auto"`.
    Stagemill { parallelism: Option<u32> },
}

/// How it went.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Lap {
    /// From the start of its program to its end.
    pub(crate) seconds: f64,
    #[serde(default)]
    /// Of which the server's sessions kept a processor busy, all of them together.
    pub(crate) processor: f64,
    /// What stagemill's ledger says of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ledger: Option<Ledger>,
}

/// What stagemill's ledger says of a run.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Ledger {
    /// From the run's start to its end.
    pub(crate) seconds: f64,
    /// Until all chunks were cut.
    pub(crate) planning: f64,
    /// From then until the last chunk was applied.
    pub(crate) applying: f64,
    pub(crate) chunks: u64,
    /// With `"auto"`: how many chunks at a time it ended with, and the seconds after which it kept to that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) settled: Option<Settled>,
}

/// What `"auto"` found.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Settled {
    pub(crate) sessions: u32,
    pub(crate) after: f64,
    /// Each number tried, with the second of the run in which it was.
    pub(crate) tried: Vec<(f64, u32)>,
}

/// What contestants are told.
pub(crate) struct Task<'a> {
    pub(crate) server: &'a Server,
    /// The database of which [`COPY`] is a copy.
    pub(crate) template: &'a str,
    pub(crate) operation: Operation,
    pub(crate) size: Size,
    /// A folder of its own for its files.
    pub(crate) folder: &'a Path,
}

impl Contestant {
    /// Its name in tables.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Single => "single statement".to_owned(),
            Self::Sorted => "single statement, sorted by key".to_owned(),
            Self::Procedure => "procedure".to_owned(),
            Self::Threads { threads, rows } => format!("Python, {threads} threads, {rows} rows"),
            Self::Limit { sessions } => format!("limit: psql, {}", plural(*sessions)),
            Self::Stagemill { parallelism: Some(sessions) } => format!("stagemill, {}", plural(*sessions)),
            Self::Stagemill { parallelism: None } => "stagemill, auto".to_owned(),
        }
    }

    /// Applies the stage of [`COPY`] by the command that was made ready.
    pub(crate) fn run(&self, task: &Task<'_>, command: Command) -> Result<Lap> {
        let before = task.server.processor_seconds()?;
        let (output, took) = timed(command).with_context(|| self.name())?;
        let processor = task.server.processor_seconds()? - before;
        let ledger = match self {
            Self::Stagemill { .. } => Some(ledger(task.server, &output)?),
            _ => None,
        };
        Ok(Lap { seconds: took.as_secs_f64(), processor, ledger })
    }

    /// What applies the stage of [`COPY`], with its files made ready: that is no part of the time.
    pub(crate) fn prepare(&self, task: &Task<'_>) -> Result<Command> {
        let url = task.server.url(COPY);
        let file = |name: &str, text: &str| -> Result<std::path::PathBuf> {
            let path = task.folder.join(name);
            fs::write(&path, text)?;
            Ok(path)
        };
        let psql = |path: &Path| {
            let mut psql = task.server.psql(COPY);
            psql.arg("-f").arg(path);
            psql
        };
        Ok(match self {
            Self::Single => psql(&file("single.sql", &task.operation.statement("stage"))?),
            Self::Sorted => psql(&file("sorted.sql", &task.operation.statement("(SELECT * FROM stage ORDER BY id)"))?),
            Self::Procedure => {
                let mut psql = psql(&benches().join("peers/procedure.sql"));
                psql.arg("-v").arg(format!("rows={ROWS}"));
                psql
            }
            Self::Threads { threads, rows } => {
                let mut command = program::python()?.command(&[], &url);
                command.arg(benches().join("peers/threads.py")).args([threads.to_string(), rows.to_string()]);
                command
            }
            Self::Limit { sessions } => {
                let folder = hand_cut(task, *sessions)?;
                let mut command = Command::new("sh");
                let path = std::env::var("PATH").unwrap_or_default();
                let psql = task.server.psql(COPY);
                let bin = Path::new(psql.get_program()).parent().context("psql has no folder")?.display().to_string();
                command
                    .arg(benches().join("peers/parallel_psql.sh"))
                    .arg(folder)
                    .env("DATABASE_URL", &url)
                    .env("PATH", format!("{bin}:{path}"));
                command
            }
            Self::Stagemill { parallelism } => {
                let mut job = task.operation.job();
                job["parallelism"] = parallelism.map_or(json!("auto"), |sessions| json!(sessions));
                let path = file("job.json", &job.to_string())?;
                let mut command = Program::stagemill()?.command(&["run", "--quiet", "--json"], &url);
                command.arg(path).current_dir(task.folder);
                command
            }
        })
    }
}

fn plural(sessions: u32) -> String {
    if sessions == 1 { "1 session".to_owned() } else { format!("{sessions} sessions") }
}

/// A folder with one file of statements for each session: chunks as stagemill would cut them, dealt out in turn.
fn hand_cut(task: &Task<'_>, sessions: u32) -> Result<std::path::PathBuf> {
    let rows = ROWS.min(task.size.staged / (u64::from(sessions) * CHUNKS_A_SESSION)).max(1);
    // In the template: what is read of the copy would be in the cache.
    let ends = task.server.sql(
        task.template,
        &format!("SELECT id FROM (SELECT id, row_number() OVER (ORDER BY id) AS n FROM stage) s WHERE n % {rows} = 0 ORDER BY id"),
    )?;
    let ends: Vec<&str> = ends.lines().collect();
    let folder = task.folder.join(format!("ranges-{sessions}"));
    fs::create_dir_all(&folder)?;
    // What stagemill sets too: compiling a statement costs more than it gains.
    let mut files = vec![String::from("SET jit = off;\n"); sessions as usize];
    for chunk in 0..=ends.len() {
        let low = chunk.checked_sub(1).map(|before| format!("id > {}", ends[before]));
        let high = ends.get(chunk).map(|end| format!("id <= {end}"));
        let within: Vec<String> = low.into_iter().chain(high).collect();
        let within = if within.is_empty() { "true".to_owned() } else { within.join(" AND ") };
        let staged = format!("(SELECT * FROM stage WHERE {within} ORDER BY id)");
        files[chunk % sessions as usize].push_str(&task.operation.statement(&staged));
    }
    for (number, text) in files.iter().enumerate() {
        fs::write(folder.join(format!("session-{number}.sql")), text)?;
    }
    Ok(folder)
}

/// Reads a run's summary, and what its ledger says of its parts.
pub(crate) fn ledger(server: &Server, summary: &str) -> Result<Ledger> {
    let summary: Value = serde_json::from_str(summary).context("stagemill's summary is no JSON")?;
    if summary["status"] != "COMPLETE" {
        bail!("stagemill's run ended {}: {}", summary["status"], summary["error"]);
    }
    let run = &summary["run"];
    let parts = server.sql(
        COPY,
        &format!(
            "SELECT extract(epoch FROM planned_at - started_at), extract(epoch FROM max(c.ended_at) - planned_at), count(*)
             FROM stagemill.run r JOIN stagemill.chunk c USING (run_id) WHERE run_id = {run} GROUP BY run_id"
        ),
    )?;
    let parts: Vec<f64> = parts.split('|').map(str::parse).collect::<Result<_, _>>().context("the ledger's times")?;
    let [planning, applying, chunks] = parts[..] else { bail!("the ledger says nothing of run {run}") };
    let settled = if summary["auto"] == true { Some(settled(server, &summary)?) } else { None };
    Ok(Ledger {
        seconds: summary["seconds"].as_f64().unwrap_or_default(),
        planning,
        applying,
        chunks: chunks as u64,
        settled,
    })
}

/// What `"auto"` tried, and when it kept to what it found.
fn settled(server: &Server, summary: &Value) -> Result<Settled> {
    let run = &summary["run"];
    let rows = server.sql(
        COPY,
        &format!(
            "SELECT extract(epoch FROM since - started_at), p.allowed FROM stagemill.pace p JOIN stagemill.run r USING (run_id)
             WHERE run_id = {run} ORDER BY since"
        ),
    )?;
    let tried: Vec<(f64, u32)> = rows
        .lines()
        .filter_map(|row| row.split_once('|'))
        .map(|(after, sessions)| Ok((after.parse()?, sessions.parse()?)))
        .collect::<Result<_>>()?;
    let after = tried.last().map_or(0.0, |(after, _)| *after);
    let sessions = summary["allowed"].as_u64().and_then(|sessions| u32::try_from(sessions).ok()).unwrap_or_default();
    Ok(Settled { sessions, after, tried })
}
