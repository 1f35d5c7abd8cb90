//! The engine of stagemill: applies a stage table to a target table on PostgreSQL, in parallel chunks, every staged row exactly once.
//!
//! It knows neither AWS nor a command line: the Lambda functions and `stagemill run` call the same functions.
//!
//! # Layout
//!
//! In the order in which data flows; each module uses those above it.
//!
//! * [`ident`]: names and literals, quoted in one place
//! * [`table`]: what the catalog says of a table
//! * [`failure`], [`retry`]: what went wrong, what is done about it
//! * [`finding`]: what is wrong with a job
//! * [`settings`]: the PostgreSQL settings of a run
//! * [`job`]: the job file
//! * [`chunk`]: ranges of the stage, and items of the Map
//! * [`mapping`], [`resolve`]: what a job means in this database
//! * [`statement`]: the SQL of a chunk
//! * [`outcome`], [`verdict`], [`account`], [`answer`]: counts, how a run ends, what comes next
//! * [`pg`], [`probe`]: connections, errors, the catalog
//! * [`ledger`]: jobs, runs and chunks in the database
//! * [`gate`]: limits, deadlines, how many chunks at a time
//! * [`explain`], [`check`], [`cut`], [`plan`]: the planner
//! * [`grants`]: the least that a role needs for it
//! * [`apply`]: the executor
//! * [`record`], [`resume`], [`skip`]: the recorder, going on, and passing over
//! * [`local`]: the driver on one machine

pub mod account;
pub mod answer;
pub mod apply;
pub mod check;
pub mod chunk;
pub mod cut;
pub mod explain;
pub mod failure;
pub mod finding;
pub mod gate;
pub mod grants;
pub mod ident;
pub mod job;
pub mod ledger;
pub mod local;
pub mod mapping;
pub mod outcome;
pub mod pg;
pub mod plan;
pub mod probe;
pub mod record;
pub mod resolve;
pub mod resume;
pub mod retry;
pub mod settings;
pub mod skip;
pub mod statement;
pub mod table;
pub mod verdict;
