//! The least that a role needs to run jobs, as SQL.

use std::collections::BTreeSet;

use tokio_postgres::types::Type;

use crate::{
    check::expression::{self, Expression},
    failure::Failure,
    ident::{self, Ident, TableName},
    job::{Operation, StageRows},
    mapping::Mapping,
    pg::Connection,
    table::Table,
};

/// What planner, executors and recorder do with the ledger's tables; the command line does no more.
const LEDGER: [(&str, &[&str]); 4] = [
    ("SELECT", &["migration", "job", "run_status"]),
    ("SELECT, INSERT, UPDATE", &["run", "reject", "hold"]),
    ("SELECT, INSERT", &["round", "pace"]),
    ("SELECT, INSERT, UPDATE, DELETE", &["chunk"]),
];

/// What `stagemill status` reads.
const READERS: [(&str, &[&str]); 1] = [("SELECT", &["migration", "run_status"])];

/// What a role that runs jobs needs of the ledger.
pub fn ledger(role: &Ident) -> Vec<String> {
    of_ledger(&LEDGER, role)
}

/// What a role needs that looks at runs, and sees no row's value.
pub fn reader(role: &Ident) -> Vec<String> {
    of_ledger(&READERS, role)
}

fn of_ledger(privileges: &[(&str, &[&str])], role: &Ident) -> Vec<String> {
    let tables = privileges.iter().map(|(privileges, tables)| {
        let tables = tables.iter().map(|table| format!("stagemill.{table}")).collect::<Vec<_>>().join(", ");
        format!("GRANT {privileges} ON {tables} TO {role};")
    });
    [format!("GRANT USAGE ON SCHEMA stagemill TO {role};")].into_iter().chain(tables).collect()
}

/// What a role needs to run a job, the ledger aside: its tables, the stage's partitions, what its subqueries read and its functions' schemas,
/// and sequences that give default values.
///
/// # Errors
/// What the server or the connection says.
pub async fn job(
    connection: &Connection,
    role: &Ident,
    mapping: &Mapping,
    stage: &Table,
) -> Result<Vec<String>, Failure> {
    let mut leaves: BTreeSet<TableName> = stage.leaves.iter().map(|leaf| leaf.name.clone()).collect();
    leaves.remove(&mapping.stage);
    let mut read = BTreeSet::new();
    let mut schemas = BTreeSet::new();
    let expressions = Expression::all_of(mapping);
    let facts = expression::facts(connection, &mapping.settings, &mapping.stage, &mapping.target, &expressions).await?;
    for facts in facts.into_iter().flatten().flatten() {
        read.extend(facts.tables);
        schemas.extend(facts.schemas);
    }
    read.remove(&mapping.stage);
    read.remove(&mapping.target);
    let sequences = sequences(connection, mapping).await?;
    let named = [&mapping.stage, &mapping.target].into_iter().chain(&leaves).chain(&read).chain(&sequences);
    schemas.extend(named.filter_map(|name| name.schema.clone()));
    let closed = closed(connection, schemas).await?;

    let mut grants = Vec::new();
    if !closed.is_empty() {
        grants.push(format!("GRANT USAGE ON SCHEMA {} TO {role};", ident::list(&closed)));
    }
    grants.push(format!("GRANT {} ON {} TO {role};", on_stage(mapping), mapping.stage));
    grants.extend(all(&format!("{} ON", on_stage(mapping)), &leaves, role));
    grants.extend(all("SELECT ON", &read, role));
    grants.push(match on_target(mapping) {
        Some(privileges) => format!("GRANT {privileges} ON {} TO {role};", mapping.target),
        // A name may hold a line's end, and what follows it would be no comment.
        None => format!(
            "-- job with statements of its own: GRANT what they do on {} and others",
            mapping.target.to_string().replace(char::is_control, " ")
        ),
    });
    // To freeze a chunk's rows, or to ask what an expression depends on.
    let overlaps = mapping.window.as_ref().is_some_and(|window| window.overlap.is_some());
    if mapping.reject_limit.is_some() || mapping.skip_unchanged || overlaps {
        grants.extend(temporary(connection, role).await?);
    }
    grants.extend(all("USAGE ON SEQUENCE", &sequences, role));
    Ok(grants)
}

const fn on_stage(mapping: &Mapping) -> &'static str {
    match mapping.stage_rows {
        StageRows::Keep => "SELECT",
        StageRows::Delete => "SELECT, DELETE",
        StageRows::Truncate => "SELECT, TRUNCATE",
    }
}

/// What the operation does; `None` where nobody but its author knows.
const fn on_target(mapping: &Mapping) -> Option<&'static str> {
    Some(match mapping.operation {
        Operation::Insert => "SELECT, INSERT",
        Operation::Update => "SELECT, UPDATE",
        Operation::Upsert => "SELECT, INSERT, UPDATE",
        Operation::Delete => "SELECT, DELETE",
        Operation::Changes => "SELECT, INSERT, UPDATE, DELETE",
        Operation::Sql => return None,
    })
}

/// Temporary tables and views, where not everybody may create them.
async fn temporary(connection: &Connection, role: &Ident) -> Result<Option<String>, Failure> {
    let sql = "SELECT pg_catalog.current_database()::text, pg_catalog.has_database_privilege('public', pg_catalog.current_database(), 'TEMPORARY')";
    let row = connection.query_one(sql, &[]).await?;
    let database = Ident::exact(row.get::<_, String>(0));
    Ok((!row.get::<_, bool>(1)).then(|| format!("GRANT TEMPORARY ON DATABASE {database} TO {role};")))
}

fn all(privilege: &str, names: &BTreeSet<TableName>, role: &Ident) -> Option<String> {
    let list = names.iter().map(TableName::to_string).collect::<Vec<_>>().join(", ");
    (!names.is_empty()).then(|| format!("GRANT {privilege} {list} TO {role};"))
}

const SEQUENCES: &str = "
SELECT DISTINCT a.attname::text, n.nspname::text, c.relname::text
FROM pg_catalog.pg_attrdef def
JOIN pg_catalog.pg_attribute a ON a.attrelid = def.adrelid AND a.attnum = def.adnum
JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass AND d.objid = def.oid
     AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
JOIN pg_catalog.pg_class c ON c.oid = d.refobjid AND c.relkind = 'S' JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE def.adrelid = pg_catalog.to_regclass($1)";

/// The sequences behind the defaults (`serial`) of columns that an inserted row leaves to them. Identity columns need no privilege.
async fn sequences(connection: &Connection, mapping: &Mapping) -> Result<BTreeSet<TableName>, Failure> {
    if !mapping.operation.inserts() {
        return Ok(BTreeSet::new());
    }
    let given = |column: &str| mapping.assignments.iter().any(|a| a.column.as_str() == column && a.insert.is_some());
    let rows = connection.query(SEQUENCES, &[(&mapping.target.to_string(), Type::TEXT)]).await?;
    Ok(rows
        .iter()
        .filter(|row| !given(row.get(0)))
        .map(|row| TableName {
            schema: Some(Ident::exact(row.get::<_, String>(1))),
            name: Ident::exact(row.get::<_, String>(2)),
        })
        .collect())
}

/// Those that are not open to everybody, as `public` mostly is: only their owner may grant them.
async fn closed(connection: &Connection, schemas: BTreeSet<Ident>) -> Result<Vec<Ident>, Failure> {
    let names: Vec<&str> = schemas.iter().map(Ident::as_str).collect();
    let sql = "SELECT n.nspname::text FROM pg_catalog.pg_namespace n
               WHERE n.nspname::text = ANY ($1) AND NOT pg_catalog.has_schema_privilege('public', n.oid, 'USAGE') ORDER BY 1";
    let rows = connection.query(sql, &[(&names, Type::TEXT_ARRAY)]).await?;
    Ok(rows.iter().map(|row| Ident::exact(row.get::<_, String>(0))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_roles_name_stays_a_name() {
        let grants = ledger(&Ident::exact(r#"a"; DROP ROLE b; --"#));
        assert!(grants.iter().all(|grant| grant.ends_with(r#" TO "a""; DROP ROLE b; --";"#)), "{grants:?}");
        assert_eq!(
            reader(&Ident::exact("r")).join(" "),
            r#"GRANT USAGE ON SCHEMA stagemill TO "r"; GRANT SELECT ON stagemill.migration, stagemill.run_status TO "r";"#
        );
    }
}
