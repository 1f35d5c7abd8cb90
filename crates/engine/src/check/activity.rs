//! What goes on at the server now: locks, vacuums, and transactions that were left open. A session is named by its id, its state and its
//! program, never by its query.

use std::time::Duration;

use tokio_postgres::{Row, types::Type};

use super::subject::{Subject, heaps, oids};
use crate::{failure::Failure, finding::Finding, job::Job, pg::Connection, probe};

/// A transaction that is open for longer keeps VACUUM from removing what a run leaves behind.
pub const LONG: Duration = Duration::from_secs(600);

// To the tables, and to their partitions: a run takes ACCESS SHARE on the stage and ROW EXCLUSIVE on the target.
const LOCKS: &str = "
WITH RECURSIVE tree(oid, which) AS (
    SELECT oid, which FROM (VALUES (pg_catalog.to_regclass($1)::oid, 'stage.table'), (pg_catalog.to_regclass($2)::oid, 'target.table')) v(oid, which)
    UNION
    SELECT i.inhrelid, tree.which FROM pg_catalog.pg_inherits i JOIN tree ON i.inhparent = tree.oid
)
SELECT DISTINCT tree.which, l.pid, a.state, a.application_name, NULL::text, l.mode,
       EXTRACT(epoch FROM pg_catalog.clock_timestamp() - a.xact_start)::float8
FROM tree JOIN pg_catalog.pg_locks l ON l.relation = tree.oid AND l.locktype = 'relation' AND l.granted
LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
WHERE l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
  AND l.pid IS DISTINCT FROM pg_catalog.pg_backend_pid()
  AND (l.mode = 'AccessExclusiveLock'
       OR tree.which = 'target.table' AND l.mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock'))
ORDER BY 1, 2";

/// Finds sessions that hold a lock which a run would wait for. Asked before anything else is, for an EXPLAIN would wait too.
pub(super) async fn locks(connection: &Connection, job: &Job, findings: &mut Vec<Finding>) -> Result<(), Failure> {
    let params =
        [(&job.stage.table as &(dyn tokio_postgres::types::ToSql + Sync), Type::TEXT), (&job.target.table, Type::TEXT)];
    let rows = match probe::ask(connection, &job.session, LOCKS, &params).await {
        Ok(rows) => rows,
        // A setting or a name that the job can't have: the check of the job says so.
        Err(refused) if !refused.class.is_retryable() => return Ok(()),
        Err(failure) => return Err(failure),
    };
    for row in rows {
        let (at, mode): (String, String) = (row.get(0), row.get(5));
        let since = row.get::<_, Option<f64>>(6).map(|age| format!(" for {}", span(age))).unwrap_or_default();
        findings.push(Finding::error(
            at,
            format!(
                "is locked by {} ({mode}){since}: a run would wait for it, and so would the rest of this check",
                session(&row, 1)
            ),
            ended_by(&row, 1),
        ));
    }
    Ok(())
}

/// Warns of vacuums on the tables, and of what keeps VACUUM from its work.
pub(super) async fn examine(subject: &Subject<'_>, findings: &mut Vec<Finding>) -> Result<(), Failure> {
    vacuums(subject, findings).await?;
    open_transactions(subject.connection, LONG, findings).await
}

const VACUUMS: &str = "
SELECT pg_catalog.format('%I.%I', n.nspname, c.relname), p.pid, a.state, a.application_name, a.backend_type, p.what, p.phase,
       p.relid = ANY ($1)
FROM (SELECT pid, datname, relid, phase, 'VACUUM' AS what FROM pg_catalog.pg_stat_progress_vacuum
      UNION ALL SELECT pid, datname, relid, phase, command FROM pg_catalog.pg_stat_progress_cluster) p
JOIN pg_catalog.pg_class c ON c.oid = p.relid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = p.pid
WHERE p.datname = pg_catalog.current_database() AND p.relid = ANY ($1 || $2)
ORDER BY 1";

async fn vacuums(subject: &Subject<'_>, findings: &mut Vec<Finding>) -> Result<(), Failure> {
    let (stage, target) = (heaps(subject.stage), heaps(subject.target));
    for row in subject.ask(VACUUMS, &[oids(&stage), oids(&target)]).await? {
        let (table, what, phase): (String, String, String) = (row.get(0), row.get(5), row.get(6));
        let at = if row.get(7) { "stage.table" } else { "target.table" };
        findings.push(Finding::warning(
            at,
            format!(
                "is in the middle of {what} on {table} by {} ({phase}): it and a run slow each other",
                session(&row, 1)
            ),
            "wait for it: SELECT * FROM pg_stat_progress_vacuum (pg_stat_progress_cluster for VACUUM FULL)",
        ));
    }
    Ok(())
}

const OPEN: &str = "
SELECT NULL::text, pid, state, application_name, NULL::text, EXTRACT(epoch FROM pg_catalog.clock_timestamp() - xact_start)::float8
FROM pg_catalog.pg_stat_activity
WHERE datname = pg_catalog.current_database() AND pid <> pg_catalog.pg_backend_pid() AND backend_type = 'client backend'
  AND NOT pg_catalog.starts_with(application_name, 'stagemill')
  AND xact_start < pg_catalog.clock_timestamp() - $1 * interval '1 second'
ORDER BY xact_start";

const PREPARED: &str = "
SELECT gid, EXTRACT(epoch FROM pg_catalog.clock_timestamp() - prepared)::float8
FROM pg_catalog.pg_prepared_xacts
WHERE database = pg_catalog.current_database() AND prepared < pg_catalog.clock_timestamp() - $1 * interval '1 second'
ORDER BY prepared";

/// Warns of other sessions' transactions, and of prepared ones, that are open for longer than `long`. A role without pg_read_all_stats sees its own only.
///
/// # Errors
/// What the server or the connection says.
pub async fn open_transactions(
    connection: &Connection,
    long: Duration,
    findings: &mut Vec<Finding>,
) -> Result<(), Failure> {
    for row in connection.query(OPEN, &[(&long.as_secs_f64(), Type::FLOAT8)]).await? {
        let age = span(row.get::<_, f64>(5));
        findings.push(Finding::warning(
            "server",
            format!(
                "{} has had a transaction open for {age}: VACUUM can't remove what a run leaves behind",
                session(&row, 1)
            ),
            ended_by(&row, 1),
        ));
    }
    for row in connection.query(PREPARED, &[(&long.as_secs_f64(), Type::FLOAT8)]).await? {
        let (gid, age): (String, String) = (row.get(0), span(row.get(1)));
        findings.push(Finding::warning(
            "server",
            format!("has had the prepared transaction {gid} for {age}: its locks stay, and VACUUM can't remove what a run leaves behind"),
            format!("COMMIT PREPARED {0}, or ROLLBACK PREPARED {0}", crate::ident::literal(&gid)),
        ));
    }
    Ok(())
}

/// Who it is: the id, the state and the program, in three columns from `at` on, and what kind of process in the one after.
fn session(row: &Row, at: usize) -> String {
    let mut about: Vec<String> = Vec::new();
    about.extend(row.get::<_, Option<String>>(at + 1));
    about.extend(row.get::<_, Option<String>>(at + 2).filter(|name| !name.is_empty()));
    about.extend(row.get::<_, Option<String>>(at + 3).filter(|kind| kind != "client backend"));
    match row.get::<_, Option<i32>>(at) {
        Some(pid) if about.is_empty() => format!("session {pid}"),
        Some(pid) => format!("session {pid} ({})", about.join(", ")),
        None => "a prepared transaction".to_owned(),
    }
}

fn ended_by(row: &Row, at: usize) -> String {
    match row.get::<_, Option<i32>>(at) {
        Some(pid) => format!("wait for it, or end it: SELECT pg_terminate_backend({pid})"),
        None => "end it: SELECT gid FROM pg_prepared_xacts, then COMMIT PREPARED or ROLLBACK PREPARED".to_owned(),
    }
}

fn span(seconds: f64) -> String {
    match seconds.max(0.0) {
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.0} h", s / 3600.0),
    }
}
