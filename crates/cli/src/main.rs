//! `stagemill`: applies a stage table to a target table on PostgreSQL, in parallel chunks, every staged row exactly once.
//!
//! # Layout
//!
//! * [`args`]: what may be typed
//! * [`world`]: where output goes, and when to stop
//! * [`exit`]: exit codes, and the errors that lead to them
//! * [`server`], [`pgpass`]: where the database is
//! * [`log`], [`progress`], [`table`]: what people see
//! * [`jobfile`], [`drive`]: what several commands do
//! * `aws`: executions, with the feature of that name
//! * [`report`]: a run as an HTML page
//! * [`command`]: one file a command, all of one shape

mod args;
#[cfg(feature = "aws")]
mod aws;
mod command;
mod drive;
mod exit;
mod jobfile;
mod log;
mod pgpass;
mod progress;
mod report;
mod server;
mod table;
mod world;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use crate::{args::Args, world::World};

fn main() -> ExitCode {
    let args = Args::parse();
    let world = World::new(args.connect);
    let Some(command) = args.command else {
        world.say(&Args::command().render_help().to_string());
        return exit::Exit::BadJob.into();
    };
    let json = command.wants_json();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return world.report(&exit::CliError::Internal(format!("cannot start: {error}")), json),
    };
    match runtime.block_on(Box::pin(command::run(command, &world))) {
        Ok(exit) => exit.into(),
        Err(error) => world.report(&error, json),
    }
}
