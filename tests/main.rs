//! Tests of the whole, in one binary: one link, one server, a database for each test.

mod aws;
mod database;
mod documents;
mod engine;
mod faults;
mod fuzz;
