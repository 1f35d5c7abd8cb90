//! What bad input gets: a message that names the field or the object, says what is wrong and what to do; and nothing is written.

use scratch_postgres::ScratchPostgres;

use crate::support::{Db, JOB, sql};

/// Checks, plans and runs a job that each must refuse alike.
fn refused(db: &Db, job: &str, fragments: &[&str]) {
    db.file("bad.json", job);
    for command in ["check", "plan", "run"] {
        db.fails(&[command, "bad.json"], 2, fragments);
    }
    let error = db.fails(&["run", "bad.json", "--json"], 2, &[]);
    let json: serde_json::Value = serde_json::from_str(&error.out).unwrap();
    assert_eq!(json["error"]["exit"], 2);
    assert!(json["error"]["findings"][0]["remedy"].is_string(), "{json}");
    assert_eq!(db.sql("SELECT count(*) FROM stagemill.run"), "0");
    assert!(db.untouched());
    assert_eq!(db.log(), "");
}

#[test]
fn a_file_that_is_not_json() {
    refused(&Db::with_rows(10), "{\"name\": ", &["is not JSON", "line 1", "mend the file"]);
}

#[test]
fn an_unknown_field() {
    let job = JOB.replace("\"parallelism\"", "\"paralelism\"");
    refused(&Db::with_rows(10), &job, &["paralelism is not a field of a job", "the fields are name, stage"]);
}

#[test]
fn a_wrong_type() {
    let job = JOB.replace("\"rows\": 10", "\"rows\": \"many\"");
    refused(&Db::with_rows(10), &job, &["chunks.rows", "\"many\"", "stagemill schema"]);
}

/// A job with fields added to it, and others changed.
fn with(fields: &str, changes: &[(&str, &str)]) -> String {
    let job = JOB.replace("\"parallelism\": 2", &format!("\"parallelism\": 2, {fields}"));
    changes.iter().fold(job, |job, (from, to)| {
        assert!(job.contains(from), "{from}: {job}");
        job.replace(from, to)
    })
}

const CHANGES: (&str, &str) = ("\"upsert\"", "\"changes\"");
const DELETE: (&str, &str) = ("\"upsert\"", "\"delete\"");
const SQL: (&str, &str) = ("\"upsert\"", "\"sql\"");
const NO_KEY: (&str, &str) = (", \"key\": [\"id\"]", "");
const NO_COLUMNS: (&str, &str) = (
    "\"columns\": { \"id\": \"stage.id\", \"n\": { \"insert\": \"stage.n\", \"update\": \"target.n + stage.n\" }, \"note\": \"stage.note\" },",
    "",
);
const BY_SQL: (&str, &str) = ("\"rows\": 10", "\"rows\": 10, \"by\": \"sql\"");

#[test]
fn every_field_of_a_wrong_type_or_with_a_wrong_word_is_named_with_what_it_takes() {
    let db = Db::with_rows(10);
    for (fields, fragments) in [
        (r#""operation": "merge""#, &["operation", "unknown variant `merge`", "`changes`, `sql`"][..]),
        (r#""changes": {"operation": "op"}"#, &["changes", "missing field `order`"]),
        (
            r#""changes": {"operation": "op", "order": "seq", "gaurd": "s"}"#,
            &["changes.gaurd", "unknown field `gaurd`", "`guard`"],
        ),
        (
            r#""changes": {"operation": 1, "order": "seq"}"#,
            &["changes.operation", "invalid type: integer `1`, expected a string"],
        ),
        (r#""sql": "UPDATE target""#, &["sql", "expected a list"]),
        (r#""max_deletes": -1"#, &["max_deletes", "expected a number of rows, or a percentage as text"]),
        (r#""max_deletes": "many""#, &["max_deletes is not a percentage", "\"0%\" to \"100%\""]),
        (r#""max_rejects": "101%""#, &["max_rejects is not a percentage", "\"0%\" to \"100%\""]),
        (r#""max_rejects": true"#, &["max_rejects", "expected a number of rows, or a percentage as text"]),
        (r#""skip_unchanged": "yes""#, &["skip_unchanged", "invalid type: string \"yes\", expected a boolean"]),
        (r#""watermark": "seq""#, &["watermark", "invalid type: string \"seq\", expected an object"]),
        (r#""watermark": {"overlap": "1 min"}"#, &["watermark", "missing field `column`"]),
        (
            r#""watermark": {"column": "id", "overlap": 5}"#,
            &["watermark.overlap", "invalid type: integer `5`, expected a string"],
        ),
        (r#""watermark": {"column": ""}"#, &["watermark.column", "write a column's name as in SQL"]),
        (r#""stage_rows": "drop""#, &["stage_rows", "unknown variant `drop`", "`keep`, `delete`, `truncate`"]),
        (r#""on_bad_row": "skip""#, &["on_bad_row", "unknown variant `skip`", "`fail` or `quarantine`"]),
        (r#""verify": false"#, &["verify", "invalid type: boolean `false`, expected a word as text"]),
        (r#""verify": "all""#, &["verify", "unknown variant `all`", "`new_rows`, `count`, `off`"]),
    ] {
        let job =
            with(fields, if fields.starts_with("\"operation\"") { &[("\"operation\": \"upsert\",", "")] } else { &[] });
        db.file("bad.json", &job);
        db.fails(&["check", "bad.json"], 2, fragments);
    }
    for (chunks, fragments) in [
        (r#""by": "rownum""#, &["chunks.by", "unknown variant `rownum`", "`auto`, `ctid`, `key`, `sql`"][..]),
        (r#""by": "sql", "query": 5"#, &["chunks.query", "invalid type: integer `5`"]),
        (r#""by": "sql", "query": " ""#, &["chunks.query is an empty expression"]),
        (
            r#""by": "sql", "column": "no such", "query": "SELECT 1, 2""#,
            &["chunks.column", "write a column's name as in SQL"],
        ),
    ] {
        db.file("bad.json", &JOB.replace("\"rows\": 10", chunks));
        db.fails(&["check", "bad.json"], 2, fragments);
    }
}

#[test]
fn fields_that_do_not_go_together_are_named_with_what_to_do() {
    let db = Db::with_rows(10);
    let rules = r#""changes": {"operation": "op", "order": "seq"}"#;
    let statement = r#""sql": ["DELETE FROM target USING stage AS stage WHERE target.id = stage.id AND {chunk}"]"#;
    for (job, fragments) in [
        (with(rules, &[]), &["changes is for \"operation\": \"changes\"", "take it out"][..]),
        (with("\"verify\": \"off\"", &[CHANGES]), &["changes is missing", "\"order\": \"its sequence's column\""]),
        (
            with(r#""changes": {"operation": "op", "order": "seq", "delete": "U"}"#, &[CHANGES]),
            &["changes.delete is the indicator of another change too"],
        ),
        (
            with(r#""changes": {"operation": "op", "order": "a b"}"#, &[CHANGES]),
            &["changes.order", "write a column's name"],
        ),
        (with(statement, &[]), &["sql is for \"operation\": \"sql\"", "take it out"]),
        (with("\"verify\": \"off\"", &[SQL, NO_KEY, NO_COLUMNS]), &["sql is missing", "as a list of texts"]),
        (
            with(statement, &[SQL]),
            &[
                "columns is not for \"operation\": \"sql\"",
                "target.key is not for",
                "chunks.column says what is cut along",
            ],
        ),
        (
            with(r#""sql": ["DELETE FROM target"]"#, &[SQL, NO_KEY, NO_COLUMNS]),
            &["sql.0 has no placeholder for the chunk", "put {chunk} into its WHERE"],
        ),
        (
            with(&format!(r#"{statement}, "stage_rows": "delete""#), &[SQL, NO_KEY, NO_COLUMNS]),
            &["stage_rows is not for \"operation\": \"sql\"", "let the last statement delete them"],
        ),
        (
            with(&format!(r#"{statement}, "on_bad_row": "quarantine", "max_rejects": 1"#), &[SQL, NO_KEY, NO_COLUMNS]),
            &["on_bad_row can't be \"quarantine\""],
        ),
        (with(statement, &[SQL, NO_KEY, NO_COLUMNS, BY_SQL]), &["chunks.query is missing", "chunks.column is missing"]),
        (
            with("\"max_deletes\": 5", &[]),
            &["max_deletes is for \"operation\": \"delete\" or \"changes\"", "take it out"],
        ),
        (
            with("\"skip_unchanged\": true", &[DELETE, NO_COLUMNS]),
            &["skip_unchanged is for \"operation\": \"update\", \"upsert\" or \"changes\""],
        ),
        (with("\"existing\": \"error\"", &[]), &["existing is for \"operation\": \"insert\""]),
        (
            with("\"on_bad_row\": \"quarantine\"", &[]),
            &["max_rejects is missing beside \"on_bad_row\": \"quarantine\"", "100, or \"1%\""],
        ),
        (with("\"max_rejects\": 5", &[]), &["max_rejects is for \"on_bad_row\": \"quarantine\""]),
        (
            JOB.replace("\"rows\": 10", r#""query": "SELECT 1, 2""#),
            &["chunks.query is for \"by\": \"sql\"", "set chunks.by"],
        ),
        (
            JOB.replace("\"rows\": 10", r#""column": "id""#),
            &["chunks.column is for \"by\": \"sql\"", "the target's key is cut along"],
        ),
    ] {
        db.file("bad.json", &job);
        db.fails(&["check", "bad.json"], 2, fragments);
    }
}

#[test]
fn what_a_field_names_and_is_not_there_or_can_not_be_used() {
    let db = Db::with_rows(10);
    let rules = r#""changes": {"operation": "op", "order": "seq"}"#;
    let own =
        |query: &str| with("\"verify\": \"off\"", &[("\"rows\": 10", &format!(r#""by": "sql", "query": "{query}""#))]);
    refused(&db, &with(rules, &[CHANGES]), &["changes.operation", "op", "is not a column of", "changes.order"]);
    refused(
        &db,
        &with(r#""watermark": {"column": "loaded"}"#, &[]),
        &["watermark.column", "loaded", "is not a column of"],
    );
    refused(&db, &own("SELECT 10, 1"), &["chunks.query", "ends before it starts"]);
    refused(&db, &own("SELECT nothing, 1"), &["chunks.query", "does not exist"]);
    let statement = r#""sql": ["UPDATE nowhere SET n = 1 FROM stage AS stage WHERE {chunk}"]"#;
    refused(&db, &with(statement, &[SQL, NO_KEY, NO_COLUMNS]), &["sql.0", "nowhere", "does not exist"]);
}

#[test]
fn a_table_that_is_not_there() {
    let db = Db::with_rows(10);
    refused(
        &db,
        &JOB.replace("public.stage", "public.nowhere"),
        &["stage.table", "nowhere", "does not exist", "create it"],
    );
    refused(&db, &JOB.replace("public.target", "nowhere.target"), &["target.table", "nowhere", "create it"]);
}

#[test]
fn a_column_that_is_not_there() {
    let db = Db::with_rows(10);
    refused(&db, &JOB.replace("\"note\":", "\"remark\":"), &["columns.remark", "is not a column of"]);
    refused(&db, &JOB.replace("stage.note", "stage.remark"), &["columns.note", "42703", "stage.remark does not exist"]);
}

#[test]
fn a_privilege_that_is_missing() {
    let db = Db::with_rows(10);
    db.sql(
        "CREATE ROLE cli_reader LOGIN; GRANT SELECT ON stage, target TO cli_reader;
            GRANT USAGE ON SCHEMA stagemill TO cli_reader; GRANT ALL ON ALL TABLES IN SCHEMA stagemill TO cli_reader",
    );
    let user = db.url.split(['/', '@']).nth(2).unwrap();
    let url = db.url.replace(&format!("//{user}@"), "//cli_reader@");
    for command in ["check", "run"] {
        let output = db.command(&[command, "job.json"]).env("DATABASE_URL", &url).output().unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains("role cli_reader lacks UPDATE on") && said.contains("GRANT UPDATE ON"), "{said}");
    }
    assert!(db.untouched());
}

#[test]
fn an_upsert_without_a_unique_index_on_its_key() {
    let db = Db::with_rows(10);
    db.sql("ALTER TABLE target DROP CONSTRAINT target_pkey; CREATE INDEX ON target (id)");
    refused(&db, JOB, &["target.key", "(id) has no unique index", "CREATE UNIQUE INDEX CONCURRENTLY ON"]);
}

#[test]
fn a_key_of_the_wrong_type_for_the_index() {
    let db = Db::with_rows(10);
    db.sql("ALTER TABLE stage ALTER COLUMN id TYPE numeric(18)");
    refused(&db, JOB, &["columns.id", "is numeric, the target's key is bigint", "CAST(stage.id AS bigint)"]);
}

#[test]
fn rows_or_parallelism_out_of_range() {
    let db = Db::with_rows(10);
    refused(&db, &JOB.replace("\"rows\": 10", "\"rows\": 0"), &["chunks.rows is 0", "from 1 to 10000000"]);
    refused(
        &db,
        &JOB.replace("\"parallelism\": 2", "\"parallelism\": 1001"),
        &["parallelism is 1001", "from 1 to 1000"],
    );
    db.fails(&["run", "job.json", "--parallelism", "0"], 2, &["parallelism is 0", "from 1 to 1000"]);
    db.fails(&["plan", "job.json", "--rows", "20000000"], 2, &["chunks.rows is 20000000"]);
    db.fails(&["run", "job.json", "--rows", "-1"], 2, &[]);
    assert!(db.untouched());
}

#[test]
fn a_job_that_is_nowhere() {
    let db = Db::with_rows(10);
    for command in ["check", "plan", "run"] {
        db.fails(&[command, "nowhere.json"], 2, &["cannot read the job file nowhere.json: there is no such file"]);
        db.fails(&[command, "nowhere"], 2, &["there is no job \"nowhere\" in the job table", "stagemill job put FILE"]);
    }
}

#[test]
fn a_wrong_password() {
    let server = ScratchPostgres::builder().password("s3cret").start().unwrap();
    let db = Db { url: server.url("postgres").replace("s3cret", "wr0ng"), folder: tempfile::tempdir().unwrap() };
    let error = db.fails(&["status"], 3, &["password authentication failed", "28P01", "PGPASSWORD"]);
    assert!(!error.err.contains("wr0ng"), "{error:?}");
    let without = db.url.replace(":wr0ng", "");
    let output = db.command(&["status"]).env("DATABASE_URL", &without).output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("password"), "{output:?}");
    // The same URL, the password from where it is not seen.
    for (name, value) in [("PGPASSWORD", "s3cret".into()), ("PGPASSFILE", pgpass(&db))] {
        let output = db.command(&["init"]).env("DATABASE_URL", &without).env(name, value).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{name}: {output:?}");
    }
}

fn pgpass(db: &Db) -> String {
    use std::os::unix::fs::PermissionsExt;
    let path = db.file("pgpass", "127.0.0.1:*:*:*:s3cret\n");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    path.display().to_string()
}

#[test]
fn no_server_no_database_or_no_way_to_them() {
    let db = Db::empty();
    let other = |database: &str| db.url.replace(db.url.rsplit('/').next().unwrap(), database);
    for (url, fragments) in [
        ("postgres://etl:s3cret@127.0.0.1:1/edw", ["cannot connect to 127.0.0.1:1/edw", "refused"]),
        (&other("nowhere"), ["database \"nowhere\" does not exist", "PGDATABASE"]),
        (&format!("{}?sslmode=verify-full", db.url), ["server does not support TLS", "cannot connect to"]),
    ] {
        let output = db.command(&["status"]).env("DATABASE_URL", url).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(3), "{said}");
        assert!(fragments.iter().all(|fragment| said.contains(fragment)) && !said.contains("s3cret"), "{said}");
    }
    db.fails(
        &["status", "--database-url", "postgres://etl:s3cret@h:port/d"],
        2,
        &["the database URL can't be used", "`port`"],
    );
    db.fails(&["status", "--ca-file", "nowhere.pem"], 3, &["the trusted certificates nowhere.pem can't be used"]);
    db.file("empty.pem", "");
    db.fails(&["status", "--ca-file", "empty.pem"], 3, &["holds no certificate"]);
}

#[test]
fn the_usual_variables_say_where_the_server_is() {
    let db = Db::empty();
    let rest = db.url.split_once("//").unwrap().1;
    let (user, rest) = rest.split_once('@').unwrap();
    let (address, database) = rest.split_once('/').unwrap();
    let (host, port) = address.split_once(':').unwrap();
    let mut command = db.command(&["init"]);
    command.env_remove("DATABASE_URL").env("PGHOST", host).env("PGPORT", port);
    command.env("PGUSER", user).env("PGDATABASE", database).env("PGSSLMODE", "prefer");
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(db.sql("SELECT count(*) FROM stagemill.run"), "0");
}

#[test]
fn a_ledger_that_is_missing_or_newer() {
    let db = Db::empty();
    db.file("job.json", JOB);
    db.sql("CREATE TABLE stage (id bigint PRIMARY KEY, n integer, note text); CREATE TABLE target (LIKE stage INCLUDING ALL)");
    for args in
        [&["run", "job.json"][..], &["status"], &["chunks", "1"], &["resume", "1"], &["job", "list"], &["run", "name"]]
    {
        db.fails(args, 4, &["no ledger", "stagemill init"]);
    }
    // A dry run and a check need none.
    db.ok(&["check", "job.json"]);
    db.ok(&["plan", "job.json"]);
    assert_eq!(db.sql("SELECT count(*) FROM pg_namespace WHERE nspname = 'stagemill'"), "0");
    assert!(db.ok(&["init"]).contains("was created, at version 2"));
    assert!(db.ok(&["init"]).contains("nothing to do"));
    db.sql("INSERT INTO stagemill.migration (version) VALUES (99)");
    for args in [&["run", "job.json"][..], &["status"], &["init"]] {
        db.fails(args, 4, &["version 99", "install the newer stagemill"]);
    }
    assert_eq!(db.log(), "");
}

#[test]
fn a_ledger_of_an_older_version_is_brought_up_to_date_with_its_runs() {
    let db = Db::empty();
    let first = include_str!("../../engine/migrations/0001_ledger.sql");
    db.sql(&format!(
        "CREATE SCHEMA stagemill; CREATE TABLE stagemill.migration (version integer PRIMARY KEY, applied_at timestamptz DEFAULT now());
         INSERT INTO stagemill.migration VALUES (1); {first};
         INSERT INTO stagemill.run (job, owner, spec, mapping, stage_table, target_table, parallelism, round_limit, status, ended_at)
         VALUES ('old', 'me', '{{}}', '{{}}', 's', 't', 4, 4, 'FAILED', now())"
    ));
    db.fails(&["status"], 4, &["version 1", "needs 2", "stagemill init"]);
    assert!(db.ok(&["init"]).contains("from version 1 to 2"));
    let old = &db.json(&["status", "1", "--json"]);
    assert_eq!((&old["status"], &old["allowed"], &old["held_seconds"]), (&"FAILED".into(), &4.into(), &0.0.into()));
}

#[test]
fn duplicate_keys_in_the_stage() {
    let db = Db::with_rows(10);
    db.sql("ALTER TABLE stage DROP CONSTRAINT stage_pkey; INSERT INTO stage VALUES (4, 1, 'again')");
    db.fails(&["run", "job.json"], 1, &["1 target key", "HAVING count(*) > 1", "nothing was applied"]);
    assert!(db.untouched());
    assert_eq!(sql(&db.url, "SELECT count(*) FROM stagemill.run WHERE ended_at IS NULL"), "0");
}
