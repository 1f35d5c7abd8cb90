//! The example jobs.

use std::process::Command;

use crate::support::{Db, JOBS, shared};

#[test]
fn pgbench_balances_grow_by_what_was_staged() {
    let db = Db::empty();
    let pgbench = shared().bin_dir().join("pgbench");
    let pgbench = if pgbench.exists() { pgbench } else { "pgbench".into() };
    let output =
        Command::new(pgbench).args(["-i", "-q", "-s", "1", &db.url]).output().expect("pgbench, of postgresql-contrib");
    assert!(output.status.success(), "{output:?}");
    db.sql(&std::fs::read_to_string(format!("{JOBS}/pgbench_accounts.sql")).unwrap());
    db.ok(&["init"]);
    let job = format!("{JOBS}/pgbench_accounts.json");
    let (before, staged) = (sum(&db, "abalance", "pgbench_accounts"), sum(&db, "delta", "pgbench_accounts_stage"));
    assert!(staged > 0);
    for times in 1..=2 {
        assert!(db.ok(&["run", &job]).contains("50,000 staged = 50,000 updated"));
        assert_eq!(sum(&db, "abalance", "pgbench_accounts"), before + times * staged);
    }
    let wrong = "SELECT count(*) FROM pgbench_accounts a LEFT JOIN pgbench_accounts_stage s USING (aid) WHERE abalance <> 2 * COALESCE(delta, 0)";
    assert_eq!(db.sql(wrong), "0");
}

fn sum(db: &Db, column: &str, table: &str) -> i64 {
    db.sql(&format!("SELECT COALESCE(sum({column}), 0) FROM {table}")).parse().unwrap()
}
