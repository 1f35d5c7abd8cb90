//! The real program against a real server.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic is how a test fails")]

mod bad_input;
mod control;
mod demo;
mod examples;
mod grants;
mod interrupted;
mod job;
mod killed;
mod operations;
mod output;
mod prune;
mod rejects;
mod report;
mod runs;
mod skip;
mod support;
