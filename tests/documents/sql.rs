//! The SQL that the README shows is run.

use stagemill_engine::{
    answer::Step,
    apply::{self, Stop, Worker},
    check,
    failure::{Class, Failure},
    grants,
    ident::Ident,
    job::{Job, Limit, OnBadRow},
    ledger,
    plan::{self, DeadRun, Start, Started},
    record, resume,
};

use super::{blocks, source};
use crate::database::{Database, job};

/// The SQL blocks of a section of the README.
pub(super) fn section(readme: &str, title: &str) -> String {
    let section = readme.split(&format!("\n{title}\n")).nth(1).and_then(|rest| rest.split("\n## ").next());
    let sql = blocks(section.unwrap_or_else(|| panic!("{title} is no section of the README")), "sql").join("\n");
    assert!(!sql.is_empty(), "{title} has no SQL");
    sql
}

fn upsert(name: &str) -> Job {
    job(&format!(
        r#"{{"name": "{name}", "stage": {{"table": "stage"}}, "target": {{"table": "target", "key": ["id"]}}, "operation": "upsert",
            "columns": {{"id": "stage.id", "n": "stage.n::int"}}, "chunks": {{"rows": 50}}, "share_tables": true}}"#
    ))
}

#[tokio::test]
async fn what_a_dba_asks_first_is_answered() {
    let database = Database::with(
        "CREATE TABLE target (id int PRIMARY KEY, n int); CREATE TABLE stage (id int PRIMARY KEY, n text);
         INSERT INTO stage SELECT g, g FROM generate_series(1, 1000) g;
         ALTER TABLE stagemill.run ALTER COLUMN run_id RESTART WITH 11",
    )
    .await;
    // Run 11 is complete, run 12 is not, run 13 set a row aside, run 14 is being applied.
    database.run(&upsert("complete")).await;
    database.execute("UPDATE stage SET n = 'x' WHERE id = 7").await;
    database.run(&upsert("incomplete")).await;
    let mut quarantine = upsert("rejects");
    quarantine.on_bad_row = OnBadRow::Quarantine;
    quarantine.max_rejects = Some(Limit::Rows(1));
    database.run(&quarantine).await;
    database.planned(&upsert("open"), "me").await;
    ledger::chunk::claim(&database.connection, 14, (1, 1), "me", None).await.unwrap();
    let statuses = "SELECT string_agg(run_id || ' ' || status, ', ' ORDER BY run_id) FROM stagemill.run";
    assert_eq!(database.value(statuses).await, "11 COMPLETE, 12 INCOMPLETE, 13 COMPLETE_WITH_REJECTS, 14 RUNNING");

    let sql = section(&source("README.md"), "## The ledger");
    let statements: Vec<&str> = sql.split(';').map(str::trim).filter(|statement| !statement.is_empty()).collect();
    assert!(statements.len() >= 6, "{statements:?}");
    for statement in statements {
        let answer = database.connection.query(statement, &[]).await;
        assert!(answer.as_ref().is_ok_and(|rows| !rows.is_empty()), "{statement}: {answer:?}");
    }
}

/// The quick start's tables and job, with the grants of the chapter on AWS.
#[tokio::test]
async fn the_grants_suffice_for_a_run_and_for_resuming_it() {
    let readme = source("README.md");
    let database = Database::with(&section(&readme, "## Quick start")).await;
    let orders = blocks(&readme, "json").into_iter().find(|block| block.contains(r#""name": "orders""#)).unwrap();
    let orders = job(orders);
    assert!(
        readme.contains("stagemill init --grants --role etl orders.json | psql"),
        "the grants are not what is shown"
    );
    database.execute("DO $$ BEGIN CREATE ROLE etl LOGIN; EXCEPTION WHEN duplicate_object THEN END $$").await;
    let (etl, owner) = (Ident::exact("etl"), &database.connection);
    let (mapping, stage) = check::job(owner, &orders).await.unwrap().into_runnable().unwrap();
    let mut granted = grants::ledger(&etl);
    granted.extend(grants::job(owner, &etl, &mapping, &stage).await.unwrap());
    database.execute(&granted.join("\n")).await;
    let connection = database.another_connection().await;
    connection.batch("SET SESSION AUTHORIZATION etl").await.unwrap();

    let start = Start { owner: "arn:first", trigger_id: None, followed_by: &[], job: &orders, dead: DeadRun::Abandon };
    let Started::Run(_) = plan::start(&connection, &start).await.unwrap() else { panic!("another run is open") };
    record::ended_from_outside(&connection, "arn:first", &Failure::new(Class::Stopped, "test")).await.unwrap();
    let answer = resume::run(&connection, 1, "arn:second", false).await.unwrap();
    let run = ledger::run::load(&connection, 1).await.unwrap();
    let worker = Worker { connection: &connection, run: &run, name: "etl", rank: None };
    for item in &answer.items {
        apply::item(worker, item, &Stop::default(), &|_| {}).await.unwrap();
    }
    let recorded = record::round_of(&connection, "arn:second", 1, answer.round).await.unwrap();
    assert_eq!(recorded.answer.status, Step::Complete);
    let rows = "SELECT count(*) || ' ' || count(*) FILTER (WHERE status = 'paid') FROM shop.orders";
    assert_eq!(database.value(rows).await, "110000 20000");
}
