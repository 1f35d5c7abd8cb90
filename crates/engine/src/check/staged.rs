//! Whether staged rows can be taken away, or set aside, as the job asks.

use tokio_postgres::types::Type;

use crate::{
    failure::Failure,
    finding::Finding,
    ident::Ident,
    job::{Job, OnBadRow, StageRows},
    pg::Connection,
    resolve::Cut,
    table::{Kind, Table},
};

/// The oldest minors (`server_version_num`) of each release whose TID range scans look again at a row that another session has changed meanwhile.
const RECHECKING: [(i32, i32); 4] = [(14, 140_020), (15, 150_015), (16, 160_011), (17, 170_007)];

pub(super) async fn examine(
    connection: &Connection,
    job: &Job,
    stage: &Table,
    same_heap: bool,
    cut: &Cut,
    findings: &mut Vec<Finding>,
) -> Result<(), Failure> {
    if job.stage_rows != StageRows::Keep {
        emptying(connection, job, stage, same_heap, cut, findings).await?;
    }
    if job.stage_rows == StageRows::Delete {
        kept(connection, stage, findings).await?;
    }
    if job.stage_rows == StageRows::Delete && cut.columns.is_empty() {
        rechecks(connection, findings).await?;
    }
    if job.on_bad_row == OnBadRow::Quarantine {
        temporary(connection, findings).await?;
        if job.watermark.is_some() {
            findings.push(Finding::warning(
                "on_bad_row",
                "sets rows aside that lie below the next run's watermark: that run does not take them",
                "mend them and try them again (`stagemill rejects RUN --retry`) before the next run starts",
            ));
        }
    }
    Ok(())
}

async fn emptying(
    connection: &Connection,
    job: &Job,
    stage: &Table,
    same_heap: bool,
    cut: &Cut,
    findings: &mut Vec<Finding>,
) -> Result<(), Failure> {
    if stage.kind == Kind::NoHeap {
        let fault = format!("{} is a view, or has foreign partitions", stage.name);
        findings.push(Finding::error("stage_rows", fault, "use \"keep\", and empty the table behind it yourself"));
    }
    if same_heap {
        findings.push(Finding::error("stage_rows", "would empty the target: it is the stage too", "use \"keep\""));
    }
    let truncate = job.stage_rows == StageRows::Truncate;
    if truncate && job.stage.filter.is_some() {
        findings.push(Finding::warning(
            "stage_rows",
            "truncates only when no row is outside stage.where",
            "use \"delete\" where such rows can be there",
        ));
    }
    let privilege = if truncate { "TRUNCATE" } else { "DELETE" };
    // Block ranges are deleted from the partitions themselves, where the parent's privileges don't count.
    let by_block = cut.columns.is_empty() && !truncate;
    let leaves = stage.leaves.iter().filter(|leaf| by_block && leaf.oid != stage.oid);
    let emptied = leaves.map(|leaf| (leaf.oid, &leaf.name)).chain([(stage.oid, &stage.name)]);
    let sql = "SELECT pg_catalog.has_table_privilege($1, $2), CURRENT_USER::text";
    for (oid, name) in emptied {
        let row = connection.query_one(sql, &[(&oid, Type::OID), (&privilege, Type::TEXT)]).await?;
        if !row.get::<_, bool>(0) {
            let role: String = row.get(1);
            let grant = format!("GRANT {privilege} ON {name} TO {}", Ident::exact(role.clone()));
            findings.push(Finding::error("stage_rows", format!("role {role} lacks {privilege} on {name}"), grant));
        }
    }
    Ok(())
}

// Bits of tgtype: 1 row, 2 before, 8 delete, 64 instead.
const KEPT: &str = "
SELECT 'the trigger ' || pg_catalog.quote_ident(t.tgname) FROM pg_catalog.pg_trigger t
WHERE t.tgrelid = ANY ($1) AND NOT t.tgisinternal AND t.tgenabled <> 'D' AND t.tgtype & 11 = 11
UNION ALL SELECT 'the rule ' || pg_catalog.quote_ident(r.rulename) FROM pg_catalog.pg_rewrite r
WHERE r.ev_class = ANY ($1) AND r.ev_type = '4' AND r.ev_enabled <> 'D'
UNION ALL SELECT 'row-level security' FROM pg_catalog.unnest($1) AS o WHERE pg_catalog.row_security_active(o) LIMIT 20";

/// What a trigger, a rule or a policy keeps in the stage is not returned by DELETE: its rows would not be applied, and nothing would say so.
async fn kept(connection: &Connection, stage: &Table, findings: &mut Vec<Finding>) -> Result<(), Failure> {
    let tables: Vec<u32> = stage.leaves.iter().map(|leaf| leaf.oid).chain([stage.oid]).collect();
    for row in connection.query(KEPT, &[(&tables, Type::OID_ARRAY)]).await? {
        let what: String = row.get(0);
        findings.push(Finding::error(
            "stage_rows",
            format!("\"delete\" would not take the rows of {} that {what} keeps", stage.name),
            "take it away (DISABLE), or use \"keep\"",
        ));
    }
    Ok(())
}

/// A row that is updated while its block range is deleted would be deleted in its new version, which nobody applied.
async fn rechecks(connection: &Connection, findings: &mut Vec<Finding>) -> Result<(), Failure> {
    let row = connection.query_one("SELECT pg_catalog.current_setting('server_version_num')::int4", &[]).await?;
    let version: i32 = row.get(0);
    let oldest = RECHECKING.iter().find(|(major, _)| *major == version / 10_000).map_or(180_001, |(_, oldest)| *oldest);
    if version < oldest {
        findings.push(Finding::error(
            "stage_rows",
            format!(
                "\"delete\" along block ranges needs PostgreSQL {}.{} or newer of this release",
                oldest / 10_000,
                oldest % 10_000
            ),
            "update the server, or use \"by\": \"key\"",
        ));
    }
    Ok(())
}

/// The rows of a chunk are frozen in a temporary table while the bad ones are looked for.
async fn temporary(connection: &Connection, findings: &mut Vec<Finding>) -> Result<(), Failure> {
    let sql = "SELECT pg_catalog.has_database_privilege(pg_catalog.current_database(), 'TEMPORARY'), CURRENT_USER::text, pg_catalog.current_database()::text";
    let row = connection.query_one(sql, &[]).await?;
    if !row.get::<_, bool>(0) {
        let (role, database): (String, String) = (row.get(1), row.get(2));
        let grant = format!("GRANT TEMPORARY ON DATABASE {} TO {}", Ident::exact(database), Ident::exact(role.clone()));
        findings.push(Finding::error("on_bad_row", format!("role {role} may not create temporary tables"), grant));
    }
    Ok(())
}
