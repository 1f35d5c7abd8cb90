//! Statements of the user's own, and chunks by the user's own query.

use stagemill_engine::{check, finding::Finding, job::Job, outcome::Status, plan::Started};

use crate::database::{Database, job};

const TABLES: &str = "
    CREATE TABLE target (id int PRIMARY KEY, n int); INSERT INTO target SELECT g, 0 FROM generate_series(1, 500) g;
    CREATE TABLE stage (id int PRIMARY KEY, n int); INSERT INTO stage SELECT g, g FROM generate_series(251, 1000) g ORDER BY md5(g::text);
    ANALYZE;";

const UPDATE: &str = "UPDATE target AS t SET n = t.n + stage.n FROM stage AS stage WHERE t.id = stage.id AND {chunk}";
const INSERT: &str = "INSERT INTO target SELECT id, n FROM stage AS stage WHERE {chunk} AND NOT EXISTS (SELECT FROM target t WHERE t.id = stage.id)";

fn sql(statements: &[&str], rest: &str) -> Job {
    let statements = serde_json::json!(statements);
    job(&format!(
        r#"{{"name": "own", "stage": {{"table": "stage"}}, "target": {{"table": "target"}}, "operation": "sql", "sql": {statements}, "parallelism": 4{rest}}}"#
    ))
}

async fn findings(database: &Database, spec: &Job) -> Vec<Finding> {
    check::job(&database.connection, spec).await.unwrap().findings
}

#[tokio::test]
async fn statements_run_in_order_in_the_chunks_transaction_and_their_counts_are_recorded() {
    for chunks in [
        r#", "chunks": {"by": "ctid", "rows": 50}"#,
        r#", "chunks": {"by": "key", "column": "id", "rows": 50}"#,
        r#", "chunks": {"column": "id", "rows": 50}"#,
        r#", "chunks": {"by": "sql", "column": "id", "query": "SELECT g, g + 99 FROM generate_series(201, 1000, 100) g"}"#,
    ] {
        let database = Database::with(TABLES).await;
        let summary = database.run(&sql(&[UPDATE, INSERT], chunks)).await;
        assert_eq!(summary.status, Status::Complete, "{chunks} {:?}", summary.error);
        assert_eq!((summary.tally.counts.staged, summary.tally.counts.handed), (750, 750), "{chunks}");
        assert_eq!(summary.statement_rows, Some(vec![250, 500]), "{chunks}");
        assert!(summary.tally.chunks > 1);
        assert_eq!(
            database.value("SELECT count(*) || ' ' || sum(n) FROM target WHERE id > 250 AND n = id").await,
            "750 469125"
        );
    }
}

#[tokio::test]
async fn a_partitioned_stage_is_given_to_statements_block_by_block_once() {
    let database = Database::with(
        "CREATE TABLE target (id int PRIMARY KEY, n int); INSERT INTO target SELECT g, 0 FROM generate_series(1, 1000) g;
         CREATE TABLE stage (id int, n int) PARTITION BY RANGE (id);
         CREATE TABLE low PARTITION OF stage FOR VALUES FROM (0) TO (400); CREATE TABLE high PARTITION OF stage FOR VALUES FROM (400) TO (2000);
         INSERT INTO stage SELECT g, 1 FROM generate_series(1, 1000) g;",
    )
    .await;
    let summary = database.run(&sql(&[UPDATE], r#", "chunks": {"by": "ctid", "rows": 30}"#)).await;
    assert_eq!((summary.status, summary.tally.counts.handed), (Status::Complete, 1_000));
    assert_eq!(database.value("SELECT count(*) FROM target WHERE n = 1").await, "1000");
}

#[tokio::test]
async fn what_a_statement_did_is_undone_when_a_later_one_fails() {
    let database = Database::with(TABLES).await;
    let fails = "INSERT INTO target SELECT id, n FROM stage AS stage WHERE {chunk} AND id < 300";
    let summary = database
        .run(&sql(&[UPDATE, fails], r#", "chunks": {"column": "id", "rows": 50}, "retry": {"rounds": 1}"#))
        .await;
    assert_eq!(
        (summary.status, summary.sqlstate.as_deref(), summary.tally.failed),
        (Status::Incomplete, Some("23505"), 1)
    );
    assert_eq!(
        database.value("SELECT min(id) FROM target WHERE n <> 0").await,
        "301",
        "the first chunk of 50 rows is undone"
    );
}

#[tokio::test]
async fn start_id_and_end_id_are_the_ranges_own() {
    let database = Database::with(TABLES).await;
    let statement = "UPDATE target SET n = 1 WHERE id BETWEEN {start_id} AND {end_id}";
    let chunks = r#", "chunks": {"by": "sql", "column": "id", "query": "SELECT 251, 300 UNION ALL SELECT 301, 301"}"#;
    let summary = database.run(&sql(&[statement], chunks)).await;
    assert_eq!((summary.status, summary.statement_rows, summary.outside), (Status::Complete, Some(vec![51]), 699));
    assert_eq!(
        database.value("SELECT min(id) || ' ' || max(id) || ' ' || count(*) FROM target WHERE n = 1").await,
        "251 301 51"
    );
}

#[tokio::test]
async fn a_statement_is_one_that_can_be_explained_and_names_its_chunk() {
    let database = Database::with(TABLES).await;
    for statement in
        ["COMMIT AND {chunk}", "SELECT 1 WHERE {chunk}; DROP TABLE target", "UPDATE nowhere SET n = 1 WHERE {chunk}"]
    {
        let found = findings(&database, &sql(&[UPDATE, statement], "")).await;
        assert_eq!(found.iter().map(|f| f.at.as_str()).collect::<Vec<_>>(), ["sql.1"], "{statement}: {found:?}");
    }
    for statement in ["DELETE FROM target", "COMMIT -- {chunk}"] {
        let text = format!(
            r#"{{"name": "own", "stage": {{"table": "stage"}}, "target": {{"table": "target"}}, "operation": "sql", "sql": ["{statement}"]}}"#
        );
        let refused = Job::parse(&text).unwrap_err();
        assert!(refused[0].fault.contains("no placeholder"), "{refused:?}");
    }
    assert_eq!(database.value("SELECT count(*) FROM target").await, "500");
}

#[tokio::test]
async fn a_table_that_its_own_statements_write_is_not_cut_by_blocks() {
    let database = Database::with(TABLES).await;
    let text = |chunks: &str| {
        job(&format!(
            r#"{{"name": "own", "stage": {{"table": "target"}}, "target": {{"table": "target"}}, "operation": "sql",
                "sql": ["UPDATE target AS stage SET n = n + 1 WHERE {{chunk}}"], "chunks": {chunks}}}"#
        ))
    };
    for chunks in [r#"{"by": "ctid"}"#, "{}"] {
        let found = findings(&database, &text(chunks)).await;
        assert!(
            found.len() == 1 && found[0].at == "stage.table" && found[0].remedy.contains("chunks.column"),
            "{found:?}"
        );
    }
    let summary = database.run(&text(r#"{"column": "id", "rows": 50}"#)).await;
    assert_eq!((summary.status, summary.statement_rows), (Status::Complete, Some(vec![500])));
    assert_eq!(database.value("SELECT count(*) FROM target WHERE n = 1").await, "500");
}

#[tokio::test]
async fn a_slow_chunk_whose_statement_goes_by_the_ranges_ends_is_not_split() {
    let database = Database::with(TABLES).await;
    database
        .execute(
            "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.01); RETURN NEW; END $$;
             CREATE TRIGGER slow BEFORE UPDATE ON target FOR EACH ROW EXECUTE FUNCTION slow();
             DELETE FROM stage WHERE id NOT IN (251, 450)",
        )
        .await;
    // Halves would be 251 to 251 and 450 to 450.
    let statement = "UPDATE target SET n = 1 WHERE id BETWEEN {start_id} AND {end_id}";
    let rest = r#", "chunks": {"by": "sql", "column": "id", "query": "SELECT 251, 450"}, "session": {"statement_timeout": "1100ms"}, "retry": {"rounds": 1}"#;
    let summary = database.run(&sql(&[statement], rest)).await;
    assert_eq!((summary.status, summary.tally.chunks, summary.tally.failed), (Status::Incomplete, 1, 1));
    assert_eq!(database.value("SELECT error_class FROM stagemill.chunk").await, "TimedOut");
    assert_eq!(database.value("SELECT count(*) FROM target WHERE n = 1").await, "0");
}

#[tokio::test]
async fn check_bears_statements_that_name_a_ranges_ends() {
    let database = Database::with(TABLES).await;
    let statement = "UPDATE target SET n = 1 WHERE id BETWEEN {start_id} AND {end_id}";
    let chunks = r#", "chunks": {"by": "sql", "column": "id", "query": "SELECT 251, 300"}"#;
    let checked = check::thoroughly(&database.connection, &sql(&[statement], chunks)).await.unwrap();
    assert_eq!(checked.findings, []);
}

#[tokio::test]
async fn own_ranges_serve_other_operations_and_rows_outside_them_are_counted() {
    let database = Database::with(TABLES).await;
    let text = r#"{"name": "upsert", "stage": {"table": "stage"}, "target": {"table": "target", "key": ["id"]}, "operation": "upsert",
        "chunks": {"by": "sql", "query": "SELECT g, g + 99 FROM generate_series(300, 899, 100) g"}}"#;
    let summary = database.run(&job(text)).await;
    assert_eq!((summary.status, summary.tally.chunks, summary.tally.counts.staged), (Status::Complete, 6, 600));
    assert_eq!(summary.outside, 150);
    assert_eq!(database.value("SELECT count(*) FROM target WHERE n = id").await, "600");
    assert_eq!(database.value("SELECT start_id || ' ' || end_id || ' ' || status FROM stagemill.dba_parallel_execute_chunks ORDER BY chunk_id LIMIT 1").await, "300 399 PROCESSED");
}

#[tokio::test]
async fn a_share_is_of_the_rows_that_the_own_ranges_hold() {
    let database = Database::with(TABLES).await;
    let text = r#"{"name": "deletes", "stage": {"table": "stage"}, "target": {"table": "target", "key": ["id"]}, "operation": "delete",
        "max_deletes": "20%", "chunks": {"by": "sql", "query": "SELECT 401, 500"}}"#;
    let refused = database.plan(&job(text), "me").await.unwrap_err().to_string();
    assert!(refused.contains("could delete 100 rows, max_deletes allows 20 (20% of 100 staged rows)"), "{refused}");
}

#[tokio::test]
async fn own_ranges_that_overlap_or_make_no_sense_are_refused() {
    let database = Database::with(TABLES).await;
    for (query, fault) in [
        ("SELECT 1, 10 UNION ALL SELECT 10, 20", "overlaps the one before it"),
        ("SELECT 10, 1", "ends before it starts"),
        ("SELECT 1, NULL::int", "has a NULL"),
        ("SELECT 1", "2 columns specified"),
        ("SELECT 'a', 'b'", "not valid for its type"),
        ("SELECT no_such_column, 1", "does not exist"),
    ] {
        let spec = sql(&[UPDATE], &format!(r#", "chunks": {{"by": "sql", "column": "id", "query": "{query}"}}"#));
        let found = findings(&database, &spec).await;
        assert!(
            found.len() == 1 && found[0].at == "chunks.query" && found[0].fault.contains(fault),
            "{query}: {found:?}"
        );
        assert!(database.plan(&spec, "me").await.is_err());
    }
    let none = sql(&[UPDATE], r#", "chunks": {"by": "sql", "column": "id", "query": "SELECT 1, 1 WHERE false"}"#);
    let Started::Run(answer) = database.plan(&none, "me").await.unwrap() else { panic!() };
    assert_eq!(database.drive(answer).await.outside, 750);
}
