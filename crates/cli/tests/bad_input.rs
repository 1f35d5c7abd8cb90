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
    assert!(db.ok(&["init"]).contains("was created, at version 1"));
    assert!(db.ok(&["init"]).contains("nothing to do"));
    db.sql("INSERT INTO stagemill.migration (version) VALUES (99)");
    for args in [&["run", "job.json"][..], &["status"], &["init"]] {
        db.fails(args, 4, &["version 99", "install the newer stagemill"]);
    }
    assert_eq!(db.log(), "");
}

#[test]
fn duplicate_keys_in_the_stage() {
    let db = Db::with_rows(10);
    db.sql("ALTER TABLE stage DROP CONSTRAINT stage_pkey; INSERT INTO stage VALUES (4, 1, 'again')");
    db.fails(&["run", "job.json"], 1, &["1 target key", "HAVING count(*) > 1", "nothing was applied"]);
    assert!(db.untouched());
    assert_eq!(sql(&db.url, "SELECT count(*) FROM stagemill.run WHERE ended_at IS NULL"), "0");
}
