//! PostgreSQL: connections, errors and the catalog. Everything else asks through here.

pub mod catalog;
mod connection;
mod error;
mod server;

pub use connection::{Connection, Param};
pub use error::failure;
pub use server::{Server, Trust};
