//! A run on the time axis: its chunks, rounds, waits and pace, in seconds from its start. What a report is made of; no row values.

use std::collections::HashMap;

use serde::Serialize;
use tokio_postgres::{Row, types::Type};

use super::summary::{self, Summary};
use crate::{
    failure::{Class, Failure},
    pg::{Connection, Param},
};

/// A run on the time axis. All times are seconds from the run's start.
#[derive(Debug, Clone, Serialize)]
pub struct Timeline {
    /// The run, without the ends of its window: they are values of rows.
    pub run: Summary,
    /// Up to where it tells: the run's end, the last sign of life of one that was interrupted, or now.
    pub until: f64,
    /// By when the run had to be done.
    pub deadline: Option<f64>,
    /// The job as it was when the run was planned.
    pub job: serde_json::Value,
    /// When each round was opened.
    pub rounds: Vec<f64>,
    /// What held it back.
    pub holds: Vec<Hold>,
    /// How many chunks were allowed at a time, from when on; empty for as many as there are workers.
    pub paces: Vec<Pace>,
    /// Whoever had a chunk, by name.
    pub workers: Vec<String>,
    /// Its chunks, by id.
    pub chunks: Vec<Chunk>,
}

/// A time in which no chunk was started.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Hold {
    /// Who set it.
    pub owner: String,
    /// Why.
    pub reason: String,
    /// From when.
    pub since: f64,
    /// Until when; `None` while it lasts.
    pub until: Option<f64>,
}

/// How many chunks were allowed at a time.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Pace {
    /// From when.
    pub since: f64,
    /// How many.
    pub allowed: i32,
    /// Why.
    pub reason: String,
}

/// A chunk, and its last attempt: of earlier ones only their number is kept.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Chunk {
    /// Its id.
    pub chunk: i32,
    /// Its state.
    pub state: State,
    /// Attempts made.
    pub attempts: i32,
    /// Who had it last: a number of [`Timeline::workers`].
    pub worker: Option<usize>,
    /// When its last attempt began.
    pub since: Option<f64>,
    /// When that ended, where the chunk was done with it.
    pub until: Option<f64>,
    /// Rows read from the stage.
    pub staged: Option<i64>,
    /// Why an attempt failed: the class's name.
    pub error_class: Option<String>,
    /// The server's code for it.
    pub sqlstate: Option<String>,
    /// Why, without values of the row.
    pub error: Option<String>,
}

/// A chunk's state. The words are the ledger's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum State {
    /// Nobody has it.
    Unassigned,
    /// Somebody has it, or died with it.
    Assigned,
    /// Its rows are applied.
    Processed,
    /// It was given up.
    ProcessedWithError,
    /// Two others are in its place.
    Split,
}

/// Chunks read in one go.
const PAGE: i64 = 50_000;

/// Reads it, as of one moment.
///
/// # Errors
/// When there is none of that id, or what the server or the connection says.
pub async fn read(connection: &Connection, run: i64) -> Result<Timeline, Failure> {
    connection.batch("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    let read = read_in_transaction(connection, run).await;
    connection.end(read).await
}

async fn read_in_transaction(connection: &Connection, run: i64) -> Result<Timeline, Failure> {
    let sql = "SELECT EXTRACT(epoch FROM s.started_at)::float8,
                      EXTRACT(epoch FROM COALESCE(s.ended_at, CASE s.status WHEN 'INTERRUPTED' THEN s.heartbeat_at END,
                              pg_catalog.clock_timestamp()) - s.started_at)::float8,
                      EXTRACT(epoch FROM s.deadline_at - s.started_at)::float8, r.spec
               FROM stagemill.run_status s JOIN stagemill.run r USING (run_id) WHERE run_id = $1";
    let summary = Summary { window_low: None, window_high: None, ..summary::of_run(connection, run).await? };
    let row = connection.query_one(sql, &[(&run, Type::INT8)]).await?;
    let start: f64 = row.get(0);
    let (workers, chunks) = chunks(connection, run, start).await?;
    Ok(Timeline {
        run: summary,
        until: row.get(1),
        deadline: row.get(2),
        job: row.get(3),
        rounds: rounds(connection, run, start).await?,
        holds: holds(connection, run, start).await?,
        paces: paces(connection, run, start).await?,
        workers,
        chunks,
    })
}

async fn rounds(connection: &Connection, run: i64, start: f64) -> Result<Vec<f64>, Failure> {
    let sql = "SELECT EXTRACT(epoch FROM opened_at)::float8 - $2 FROM stagemill.round WHERE run_id = $1 ORDER BY round";
    let rows = connection.query(sql, &[(&run, Type::INT8), (&start, Type::FLOAT8)]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

async fn holds(connection: &Connection, run: i64, start: f64) -> Result<Vec<Hold>, Failure> {
    // One that ran out did not hold until somebody noticed.
    let sql = "SELECT owner, reason, EXTRACT(epoch FROM since)::float8 - $2,
                      EXTRACT(epoch FROM LEAST(ended_at, CASE WHEN until <= pg_catalog.clock_timestamp() THEN until END))::float8 - $2
               FROM stagemill.hold WHERE run_id = $1 ORDER BY since";
    let rows = connection.query(sql, &[(&run, Type::INT8), (&start, Type::FLOAT8)]).await?;
    let hold = |row: &Row| Hold { owner: row.get(0), reason: row.get(1), since: row.get(2), until: row.get(3) };
    Ok(rows.iter().map(hold).collect())
}

async fn paces(connection: &Connection, run: i64, start: f64) -> Result<Vec<Pace>, Failure> {
    let sql = "SELECT EXTRACT(epoch FROM since)::float8 - $2, allowed, reason FROM stagemill.pace WHERE run_id = $1 ORDER BY since";
    let rows = connection.query(sql, &[(&run, Type::INT8), (&start, Type::FLOAT8)]).await?;
    Ok(rows.iter().map(|row| Pace { since: row.get(0), allowed: row.get(1), reason: row.get(2) }).collect())
}

async fn chunks(connection: &Connection, run: i64, start: f64) -> Result<(Vec<String>, Vec<Chunk>), Failure> {
    let sql = "SELECT chunk_id, state, attempt, worker, EXTRACT(epoch FROM assigned_at)::float8 - $2, EXTRACT(epoch FROM ended_at)::float8 - $2,
                      staged, error_class, sqlstate, error
               FROM stagemill.chunk WHERE run_id = $1 AND chunk_id > $3 ORDER BY chunk_id LIMIT $4";
    let (mut workers, mut chunks, mut last) = (Workers::default(), Vec::new(), 0_i32);
    loop {
        let params: [Param<'_>; 4] =
            [(&run, Type::INT8), (&start, Type::FLOAT8), (&last, Type::INT4), (&PAGE, Type::INT8)];
        let rows = connection.query(sql, &params).await?;
        for row in &rows {
            chunks.push(chunk(row, run, &mut workers)?);
        }
        match rows.last() {
            Some(row) if rows.len() as i64 == PAGE => last = row.get(0),
            _ => return Ok((workers.names, chunks)),
        }
    }
}

fn chunk(row: &Row, run: i64, workers: &mut Workers) -> Result<Chunk, Failure> {
    let (id, state): (i32, &str) = (row.get(0), row.get(1));
    let state = match state {
        "UNASSIGNED" => State::Unassigned,
        "ASSIGNED" => State::Assigned,
        "PROCESSED" => State::Processed,
        "PROCESSED_WITH_ERROR" => State::ProcessedWithError,
        "SPLIT" => State::Split,
        _ => {
            return Err(Failure::new(
                Class::Ledger,
                format!("chunk {id} of run {run}: its state {state:?} is not known to this version"),
            ));
        }
    };
    Ok(Chunk {
        chunk: id,
        state,
        attempts: row.get(2),
        worker: row.get::<_, Option<&str>>(3).map(|name| workers.number(name)),
        since: row.get(4),
        until: row.get(5),
        staged: row.get(6),
        error_class: row.get(7),
        sqlstate: row.get(8),
        error: row.get(9),
    })
}

/// Workers by number: half a million chunks do not each need a copy of a name.
#[derive(Default)]
struct Workers {
    names: Vec<String>,
    numbers: HashMap<String, usize>,
}

impl Workers {
    fn number(&mut self, name: &str) -> usize {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        let number = self.names.len();
        self.names.push(name.to_owned());
        self.numbers.insert(name.to_owned(), number);
        number
    }
}
