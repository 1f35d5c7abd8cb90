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

/// The quick start's tables and those of the other examples.
fn shop() -> Db {
    let db = Db::empty();
    let readme = std::fs::read_to_string(format!("{JOBS}/../README.md")).unwrap();
    let quick_start = readme.split("\n## Quick start\n").nth(1).unwrap();
    db.sql(quick_start.split("```sql\n").nth(1).unwrap().split("```").next().unwrap());
    db.sql(&std::fs::read_to_string(format!("{JOBS}/examples.sql")).unwrap());
    db.ok(&["init"]);
    db
}

#[test]
fn changes_are_applied_once_and_what_is_no_change_is_set_aside_until_it_is_mended() {
    let db = shop();
    let job = format!("{JOBS}/order_changes.json");
    assert!(db.ok(&["check", &job]).contains("nothing found"));
    db.sql("UPDATE shop_stg.order_changes SET op = '?' WHERE order_id = 7 AND change_seq = '10'; UPDATE shop_stg.order_changes SET amount = 'NaN' WHERE order_id = 8;
            ALTER TABLE shop.orders ADD CHECK (amount < 1000000)");
    let run = db.run(&["run", &job]);
    assert_eq!(run.code, Some(0), "rows that are set aside are no failure: {run:?}");
    assert!(run.out.contains("COMPLETE_WITH_REJECTS"), "{run:?}");
    assert!(
        run.out.contains("750 staged = 50 inserted + 199 updated + 100 deleted + 399 skipped + 2 set aside"),
        "{run:?}"
    );
    assert!(run.err.contains("stagemill rejects 1 --retry"), "{run:?}");
    // Values only where they are asked for.
    let listed = db.ok(&["rejects", "1"]);
    assert!(listed.contains("23514") && listed.contains("can't be used") && !listed.contains("NaN"), "{listed}");
    assert!(db.ok(&["rejects", "1", "--rows"]).contains("NaN"));
    db.fails(&["resume", "1"], 2, &["stagemill rejects 1 --retry"]);

    // The one whose key tells where it belongs is found again; the other one is for the next run.
    db.sql("UPDATE shop_stg.order_changes SET amount = 8 WHERE order_id = 8; UPDATE shop_stg.order_changes SET op = 'U' WHERE op = '?'");
    let retried = db.run(&["rejects", "1", "--retry"]);
    assert!(retried.err.contains("applied 1 of 2 rows that were set aside"), "{retried:?}");
    let again = db.ok(&["run", &job]);
    assert!(
        again.contains("COMPLETE") && again.contains("750 staged = 1 updated + 249 unchanged + 500 skipped"),
        "{again}"
    );
    db.fails(&["rejects", "1", "--retry"], 2, &["run 2", "came after it"]);
    assert!(db.ok(&["rejects", "2"]).contains("no rows set aside"));
}

fn sum(db: &Db, column: &str, table: &str) -> i64 {
    db.sql(&format!("SELECT COALESCE(sum({column}), 0) FROM {table}")).parse().unwrap()
}
