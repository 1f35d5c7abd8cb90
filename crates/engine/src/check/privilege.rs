//! What the role that asks may not do.

use tokio_postgres::types::Type;

use crate::{
    failure::Failure,
    finding::Finding,
    ident::Ident,
    job::{Job, Operation},
    pg::Connection,
    table::Table,
};

/// Finds privileges on stage and target that the job's operation needs and the role lacks.
pub(super) async fn examine(
    connection: &Connection,
    job: &Job,
    stage: &Table,
    target: &Table,
    findings: &mut Vec<Finding>,
) -> Result<(), Failure> {
    let mut needed = vec![("stage.table", stage, "SELECT")];
    let operation = job.operation;
    for (used, privilege) in [
        (operation != Operation::Sql, "SELECT"),
        (operation.inserts(), "INSERT"),
        (operation.updates(), "UPDATE"),
        (operation.deletes(), "DELETE"),
    ] {
        if used {
            needed.push(("target.table", target, privilege));
        }
    }
    let sql = "SELECT CASE $2 WHEN 'DELETE' THEN pg_catalog.has_table_privilege($1, $2) ELSE pg_catalog.has_any_column_privilege($1, $2) END, CURRENT_USER::text";
    // Its partitions are read by themselves, where the parent's privileges don't count.
    let sql_leaf = "SELECT pg_catalog.has_any_column_privilege($1, 'SELECT'), CURRENT_USER::text";
    for leaf in stage.leaves.iter().filter(|leaf| leaf.oid != stage.oid) {
        let row = connection.query_one(sql_leaf, &[(&leaf.oid, Type::OID)]).await?;
        if !row.get::<_, bool>(0) {
            let role: String = row.get(1);
            let grant = format!("GRANT SELECT ON {} TO {}", leaf.name, Ident::exact(role.clone()));
            findings.push(Finding::error(
                "stage.table",
                format!("role {role} lacks SELECT on its partition {}", leaf.name),
                grant,
            ));
        }
    }
    for (at, table, privilege) in needed {
        let row = connection.query_one(sql, &[(&table.oid, Type::OID), (&privilege, Type::TEXT)]).await?;
        if !row.get::<_, bool>(0) {
            let role: String = row.get(1);
            let grant = format!("GRANT {privilege} ON {} TO {}", table.name, Ident::exact(role.clone()));
            findings.push(Finding::error(at, format!("role {role} lacks {privilege} on {}", table.name), grant));
        }
    }
    Ok(())
}
