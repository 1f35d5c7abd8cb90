//! The job's limits: what is measured, and what is too much.

use std::time::Duration;

use tokio_postgres::types::Type;

use crate::{
    failure::{Class, Failure},
    finding::Finding,
    job::Limits,
    pg::Connection,
    probe,
    settings::Settings,
};

/// The job's own question is worth no more than this.
const LONGEST_QUESTION: Duration = Duration::from_secs(5);

/// What goes on at the server, the run's own sessions aside (between two chunks they are called just `stagemill`).
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Facts {
    active_sessions: i64,
    waiting_locks: i64,
    transaction_age_seconds: f64,
    free_connections: i64,
    replica_lag_seconds: f64,
}

/// Which limit is exceeded, in words without values of rows; `None` for none.
///
/// # Errors
/// When the server can't be asked.
pub(super) async fn exceeded(
    connection: &Connection,
    run: i64,
    limits: &Limits,
    settings: &Settings,
) -> Result<Option<String>, Failure> {
    let facts = measure(connection, run, limits).await?;
    if let Some(reason) = judge(limits, &facts) {
        return Ok(Some(reason));
    }
    let Some(sql) = &limits.sql else { return Ok(None) };
    match ask(connection, settings, sql).await {
        Ok(false) => Ok(None),
        Ok(true) => Ok(Some("limits.sql says so".to_owned())),
        Err(failure) if failure.class == Class::ConnectionLost => Err(failure),
        // A question without an answer must not let the run go on as if it had been "no".
        Err(failure) => {
            let code = failure.sqlstate.as_deref().unwrap_or("no answer");
            Ok(Some(format!("limits.sql can't be answered ({code})")))
        }
    }
}

/// Decides.
fn judge(limits: &Limits, facts: &Facts) -> Option<String> {
    let over = |limit: Option<u32>, is: f64| limit.filter(|limit| is > f64::from(*limit));
    if let Some(limit) = over(limits.active_sessions, facts.active_sessions as f64) {
        return Some(format!("{} sessions of others are active (limit {limit})", facts.active_sessions));
    }
    if let Some(limit) = over(limits.waiting_locks, facts.waiting_locks as f64) {
        return Some(format!("{} sessions of others wait for a lock (limit {limit})", facts.waiting_locks));
    }
    if let Some(limit) = over(limits.transaction_age_seconds, facts.transaction_age_seconds) {
        let age = facts.transaction_age_seconds;
        return Some(format!("a transaction of others has been open for {age:.0} s (limit {limit} s)"));
    }
    if let Some(limit) = over(limits.replica_lag_seconds, facts.replica_lag_seconds) {
        return Some(format!("a replica is {:.1} s behind (limit {limit} s)", facts.replica_lag_seconds));
    }
    let limit = limits.free_connections.filter(|limit| facts.free_connections < i64::from(*limit))?;
    Some(format!("{} connections are free (limit {limit})", facts.free_connections))
}

const SESSIONS: &str = "
SELECT pg_catalog.count(*) FILTER (WHERE state = 'active' AND of_others),
       pg_catalog.count(*) FILTER (WHERE wait_event_type = 'Lock' AND of_others),
       COALESCE(pg_catalog.max(EXTRACT(epoch FROM pg_catalog.clock_timestamp() - xact_start)) FILTER (WHERE of_others), 0)::float8,
       pg_catalog.current_setting('max_connections')::int8 - pg_catalog.current_setting('superuser_reserved_connections')::int8
           - COALESCE(pg_catalog.current_setting('reserved_connections', true)::int8, 0) - pg_catalog.count(*)
FROM (SELECT a.*, NOT pg_catalog.starts_with(a.application_name, $1) AND a.application_name <> 'stagemill' AS of_others
      FROM pg_catalog.pg_stat_activity a WHERE a.backend_type = 'client backend') a";

async fn measure(connection: &Connection, run: i64, limits: &Limits) -> Result<Facts, Failure> {
    let mut facts = Facts { free_connections: i64::MAX, ..Facts::default() };
    if limits.looks_at_sessions() {
        let ours = format!("stagemill:{run}:");
        let row = connection.query_one(SESSIONS, &[(&ours, Type::TEXT)]).await?;
        facts.active_sessions = row.get(0);
        facts.waiting_locks = row.get(1);
        facts.transaction_age_seconds = row.get(2);
        facts.free_connections = row.get(3);
    }
    if limits.replica_lag_seconds.is_some() {
        facts.replica_lag_seconds = replica_lag(connection).await?;
    }
    Ok(facts)
}

/// Of Aurora's replicas, which share its storage, or of those that stream from this server.
async fn replica_lag(connection: &Connection) -> Result<f64, Failure> {
    let there = "SELECT pg_catalog.to_regproc('aurora_replica_status') IS NOT NULL";
    let aurora: bool = connection.query_one(there, &[]).await?.get(0);
    let sql = if aurora {
        "SELECT COALESCE(pg_catalog.max(replica_lag_in_msec), 0)::float8 / 1000 FROM aurora_replica_status()"
    } else {
        "SELECT COALESCE(pg_catalog.max(EXTRACT(epoch FROM replay_lag)), 0)::float8 FROM pg_catalog.pg_stat_replication"
    };
    Ok(connection.query_one(sql, &[]).await?.get(0))
}

/// Asks the job's own question. No row and NULL are "no".
async fn ask(connection: &Connection, settings: &Settings, sql: &str) -> Result<bool, Failure> {
    match probe::ask_within(connection, settings, LONGEST_QUESTION, sql).await? {
        None => {
            let text = format!("limits.sql had no answer within {} s", LONGEST_QUESTION.as_secs());
            Err(Failure::new(Class::TimedOut, text))
        }
        Some(rows) => match rows.first() {
            None => Ok(false),
            Some(row) => row.try_get::<_, Option<bool>>(0).map(|answer| answer.unwrap_or(false)).map_err(|_| {
                Failure::new(Class::BadJob, "limits.sql has to answer with one boolean: SELECT ... > 10, for example")
            }),
        },
    }
}

/// Finds what would keep the limits from working: they would never hold, or always.
///
/// # Errors
/// When the server can't be asked.
pub async fn check(
    connection: &Connection,
    settings: &Settings,
    limits: &Limits,
    findings: &mut Vec<Finding>,
) -> Result<(), Failure> {
    if limits.looks_at_sessions() || limits.replica_lag_seconds.is_some() {
        let sql = "SELECT pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE'), CURRENT_USER::text";
        let row = connection.query_one(sql, &[]).await?;
        if !row.get::<_, bool>(0) {
            let role = crate::ident::Ident::exact(row.get::<_, String>(1));
            findings.push(Finding::error(
                "limits",
                format!("can't be seen: {role} is no member of pg_read_all_stats, so what other roles' sessions do is hidden from it"),
                format!("GRANT pg_read_all_stats TO {role}, as a superuser (rds_superuser), or leave the limit out"),
            ));
        }
    }
    if let Err(failure) = measure(connection, 0, limits).await {
        if failure.class == Class::ConnectionLost {
            return Err(failure);
        }
        findings.push(Finding::error(
            "limits",
            format!("can't be measured: {failure}"),
            "grant what is missing, or leave the limit out",
        ));
    }
    if let Some(sql) = &limits.sql {
        match ask(connection, settings, sql).await {
            Ok(_) => {}
            Err(failure) if failure.class == Class::ConnectionLost => return Err(failure),
            Err(failure) => findings.push(Finding::error(
                "limits.sql",
                failure.to_string(),
                "write one SELECT of one boolean that is answered within 5 s; true holds the run back",
            )),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_is_exceeded_is_named_with_what_was_found() {
        let facts = Facts {
            active_sessions: 12,
            waiting_locks: 3,
            transaction_age_seconds: 61.0,
            free_connections: 4,
            replica_lag_seconds: 2.5,
        };
        for (limits, said) in [
            (Limits::default(), None),
            (Limits { active_sessions: Some(12), ..Limits::default() }, None),
            (
                Limits { active_sessions: Some(11), ..Limits::default() },
                Some("12 sessions of others are active (limit 11)"),
            ),
            (
                Limits { waiting_locks: Some(0), ..Limits::default() },
                Some("3 sessions of others wait for a lock (limit 0)"),
            ),
            (
                Limits { transaction_age_seconds: Some(60), ..Limits::default() },
                Some("a transaction of others has been open for 61 s (limit 60 s)"),
            ),
            (
                Limits { replica_lag_seconds: Some(2), ..Limits::default() },
                Some("a replica is 2.5 s behind (limit 2 s)"),
            ),
            (Limits { free_connections: Some(4), ..Limits::default() }, None),
            (Limits { free_connections: Some(5), ..Limits::default() }, Some("4 connections are free (limit 5)")),
        ] {
            assert_eq!(judge(&limits, &facts).as_deref(), said);
        }
    }
}
