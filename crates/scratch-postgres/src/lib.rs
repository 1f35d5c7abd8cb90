//! A throw-away PostgreSQL server: started in about a second, gone when dropped, and gone when its owner is killed.
//!
//! ```no_run
//! let server = scratch_postgres::ScratchPostgres::builder().setting("max_connections", "50").start()?;
//! let url = server.url("postgres");
//! # Ok::<(), scratch_postgres::Error>(())
//! ```
//!
//! The server listens on a free port of 127.0.0.1 and on a socket in its own temporary folder. Unless
//! [`Builder::password`] is used, every user of this machine who finds the port is let in as superuser, and durability
//! is switched off: this is a server for data that may be lost.
//!
//! A small `/bin/sh` process, the watcher, holds the other end of a pipe. When that pipe closes, because the
//! [`ScratchPostgres`] is dropped or because its owner died in whatever way, the watcher stops the server and removes
//! its folder.

mod account;
mod builder;
mod cluster;
mod error;
mod find;
mod port;
mod postmaster;
mod server;
mod url;
mod watcher;

pub use builder::Builder;
pub use error::Error;
pub use postmaster::Shutdown;
pub use server::{ScratchPostgres, shared};
