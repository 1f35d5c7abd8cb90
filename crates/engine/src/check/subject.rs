//! What is looked at closely: a job that the server accepts, its two tables, and what it does to the target.

use tokio_postgres::{Row, types::Type};

use crate::{
    failure::Failure,
    ident::Ident,
    job::Operation,
    mapping::Mapping,
    pg::{Connection, Param},
    probe,
    table::Table,
};

/// What a job does to rows of the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Events {
    pub(super) inserts: bool,
    pub(super) updates: bool,
    pub(super) deletes: bool,
}

impl Events {
    pub(super) const fn of(operation: Operation) -> Self {
        Self { inserts: operation.inserts(), updates: operation.updates(), deletes: operation.deletes() }
    }
}

/// What is looked at.
pub(super) struct Subject<'a> {
    pub(super) connection: &'a Connection,
    pub(super) mapping: &'a Mapping,
    pub(super) stage: &'a Table,
    pub(super) target: &'a Table,
    pub(super) events: Events,
}

impl Subject<'_> {
    pub(super) async fn ask(&self, sql: &str, params: &[Param<'_>]) -> Result<Vec<Row>, Failure> {
        probe::ask(self.connection, &self.mapping.settings, sql, params).await
    }

    /// The target's columns that an update sets.
    pub(super) fn updated(&self) -> Vec<String> {
        let updated = self.mapping.assignments.iter().filter(|a| a.update.is_some());
        updated.map(|a| a.column.as_str().to_owned()).collect()
    }

    /// The role that asks.
    pub(super) async fn role(&self) -> Result<Ident, Failure> {
        let row = self.connection.query_one("SELECT CURRENT_USER::text", &[]).await?;
        Ok(Ident::exact(row.get::<_, String>(0)))
    }
}

/// The heaps of a table, and the table itself.
pub(super) fn heaps(table: &Table) -> Vec<u32> {
    let mut oids: Vec<u32> = table.leaves.iter().map(|leaf| leaf.oid).collect();
    if !oids.contains(&table.oid) {
        oids.push(table.oid);
    }
    oids
}

/// A parameter that is a table's id.
pub(super) fn oid(id: &u32) -> Param<'_> {
    (id, Type::OID)
}

/// A parameter that is a list of ids.
pub(super) fn oids(ids: &Vec<u32>) -> Param<'_> {
    (ids, Type::OID_ARRAY)
}
