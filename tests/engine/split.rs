//! A chunk that is too slow becomes two.

use std::time::{Duration, Instant};

use stagemill_engine::{
    apply::{self, Stop, Worker},
    chunk::Item,
    job::Job,
    ledger,
    outcome::Status,
    record,
};

use crate::database::{Database, job};

/// Each row takes 40 ms.
const TABLES: &str = "
    CREATE TABLE target (id int PRIMARY KEY, n int NOT NULL DEFAULT 0); INSERT INTO target SELECT g FROM generate_series(1, 64) g;
    CREATE TABLE stage (id int PRIMARY KEY, n int); INSERT INTO stage SELECT g, g FROM generate_series(1, 64) g ORDER BY md5(g::text);
    CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.04); RETURN NEW; END $$;
    CREATE TRIGGER slow BEFORE UPDATE ON target FOR EACH ROW EXECUTE FUNCTION slow();";

fn spec(rest: &str) -> Job {
    job(&format!(
        r#"{{"name": "slow", "stage": {{"table": "stage"}}, "target": {{"table": "target", "key": ["id"]}}, "operation": "update",
            "columns": {{"id": "stage.id", "n": "target.n + stage.n"}}, "parallelism": 1, "retry": {{"attempts": 2, "rounds": 2}}{rest}}}"#
    ))
}

async fn every_row_once(database: &Database) {
    assert_eq!(database.value("SELECT count(*) FROM target WHERE n <> id").await, "0");
}

#[tokio::test]
async fn a_chunk_that_times_out_is_split_until_its_parts_are_quick_enough() {
    for by in [r#""by": "key""#, r#""by": "ctid""#, r#""by": "sql", "query": "SELECT 1, 64""#] {
        let database = Database::with(TABLES).await;
        let summary = database
            .run(&spec(&format!(r#", "chunks": {{{by}, "rows": 64}}, "session": {{"statement_timeout": "1100ms"}}"#)))
            .await;
        assert_eq!(summary.status, Status::Complete, "{by} {:?}", summary.error);
        every_row_once(&database).await;
        let states = "SELECT string_agg(state || ' ' || n, ', ' ORDER BY state) FROM (SELECT state, count(*) n FROM stagemill.chunk GROUP BY state) s";
        assert_eq!(database.value(states).await, "PROCESSED 4, SPLIT 3", "{by}");
        assert_eq!((summary.tally.chunks, summary.tally.counts.staged, summary.round), (4, 64, 1));
    }
}

#[tokio::test]
async fn a_chunk_is_split_down_to_one_row_which_alone_fails() {
    let database = Database::with(TABLES).await;
    database
        .execute(
            "CREATE OR REPLACE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 IF NEW.id = 7 THEN PERFORM pg_sleep(60); END IF; RETURN NEW; END $$",
        )
        .await;
    let summary = database.run(&spec(r#", "chunks": {"rows": 8}, "session": {"statement_timeout": "1100ms"}"#)).await;
    assert_eq!((summary.status, summary.error_class.as_deref()), (Status::Incomplete, Some("Incomplete")));
    assert_eq!((summary.tally.failed, summary.tally.counts.staged), (1, 63));
    assert!(summary.error.unwrap().contains("TimedOut"));
    assert_eq!(database.value("SELECT count(*) FROM target WHERE n = id").await, "63");
    assert_eq!(
        database
            .value("SELECT low_key[1] || ' ' || high_key[1] FROM stagemill.chunk WHERE state = 'PROCESSED_WITH_ERROR'")
            .await,
        "6 7"
    );
}

#[tokio::test]
async fn a_chunk_that_no_call_can_finish_whole_is_finished_in_parts() {
    let database = Database::with(TABLES).await;
    let answer = database.planned(&spec(r#", "chunks": {"rows": 64}"#), "me").await;
    let connection = database.another_connection().await;
    let (mut item, mut calls) = (answer.items[0], 0);
    loop {
        let run = ledger::run::load(&connection, 1).await.unwrap();
        // Time for about 18 rows.
        let stop = Stop { deadline: Some(Instant::now() + Duration::from_millis(800)), ..Stop::default() };
        let worker = Worker { connection: &connection, run: &run, name: "lambda", rank: None };
        let left = apply::item(worker, &item, &stop, &|_| {}).await.unwrap();
        calls += 1;
        let Some(first) = left.chunks.first() else { break };
        item = Item { first: *first, ..item };
        assert!(calls < 20, "it never ends");
    }
    assert!(calls > 3, "{calls}");
    every_row_once(&database).await;
    assert_eq!(record::round(&connection, 1, 1).await.unwrap().closed.unwrap().status, Status::Complete);
}

#[tokio::test]
async fn the_zombie_of_a_split_chunk_is_refused() {
    let database = Database::with(TABLES).await;
    database.planned(&spec(r#", "chunks": {"rows": 64}"#), "me").await;
    let ledger::chunk::Claim::Ours(claimed) =
        ledger::chunk::claim(&database.connection, 1, (1, 1), "zombie", None).await.unwrap()
    else {
        panic!()
    };
    let key = |key: &str| Some(vec![key.to_owned()]);
    let halves = [
        stagemill_engine::chunk::Range::Keys { low: None, high: key("32") },
        stagemill_engine::chunk::Range::Keys { low: key("32"), high: None },
    ]
    .map(|range| ledger::chunk::Planned { range, delete_limit: None });
    let slow = stagemill_engine::failure::Failure::new(stagemill_engine::failure::Class::TimedOut, "slow");
    let made = ledger::chunk::split(&database.connection, &claimed, halves.clone(), &slow).await.unwrap();
    assert_eq!(made, Some([2, 3]));
    assert!(!ledger::chunk::fence(&database.connection, "", &claimed).await.unwrap());
    assert_eq!(
        ledger::chunk::split(&database.connection, &claimed, halves, &slow).await.unwrap(),
        None,
        "and not twice"
    );
}
