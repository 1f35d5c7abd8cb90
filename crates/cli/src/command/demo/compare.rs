//! Compares what the run made of the target with what the single statement made of its copy: every column of every row.

use stagemill_engine::{
    failure::Failure,
    ident::{self, Ident},
    pg::Connection,
};
use tokio_postgres::types::Type;

/// The columns that the job and the statement set to the time at which they ran.
const CLOCKS: [&str; 2] = ["update_ts", "create_ts"];

/// What the comparison found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Comparison {
    /// Rows of the run's target.
    pub(super) rows: i64,
    /// Rows of the statement's.
    pub(super) single_rows: i64,
    /// Keys that both have.
    pub(super) shared: i64,
    /// Of these, rows that differ in any column.
    pub(super) different: i64,
}

impl Comparison {
    /// Whether the two tables are the same.
    pub(super) const fn equal(&self) -> bool {
        self.rows == self.single_rows && self.rows == self.shared && self.different == 0
    }
}

/// Compares the tables. `single_at` is the statement's CURRENT_TIMESTAMP(0).
pub(super) async fn compare(connection: &Connection, run: i64, single_at: &str) -> Result<Comparison, Failure> {
    // CURRENT_TIMESTAMP(0) rounds to the second.
    let sql = "SELECT (started_at - interval '0.5 s')::timestamp::text, (ended_at + interval '0.5 s')::timestamp::text FROM stagemill.run WHERE run_id = $1";
    let window = connection.query_one(sql, &[(&run, Type::INT8)]).await?;
    let (from, to) = (ident::literal(window.get(0)), ident::literal(window.get(1)));
    let at = ident::literal(single_at);
    let sql = "SELECT attname::text FROM pg_catalog.pg_attribute
               WHERE attrelid = 'edw_ods.account'::pg_catalog.regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum";
    let columns = connection.query(sql, &[]).await?;
    let different: Vec<String> = columns
        .iter()
        .map(|row| row.get::<_, String>(0))
        .map(|name| {
            let column = Ident::exact(name.clone());
            let differs = format!("a.{column} IS DISTINCT FROM b.{column}");
            if CLOCKS.contains(&name.as_str()) {
                // Equal too where each holds the time of its own run.
                format!("({differs} AND (a.{column} BETWEEN {from} AND {to} AND b.{column} = {at}) IS NOT TRUE)")
            } else {
                differs
            }
        })
        .collect();
    let sql = format!(
        "SELECT (SELECT pg_catalog.count(*) FROM edw_ods.account), (SELECT pg_catalog.count(*) FROM edw_ods.account_single),
                pg_catalog.count(*), pg_catalog.count(*) FILTER (WHERE {})
         FROM edw_ods.account AS a JOIN edw_ods.account_single AS b USING (acct_id)",
        different.join(" OR ")
    );
    let row = connection.query_one(&sql, &[]).await?;
    Ok(Comparison { rows: row.get(0), single_rows: row.get(1), shared: row.get(2), different: row.get(3) })
}
