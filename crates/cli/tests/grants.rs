//! The grants that `init --grants` prints are enough, and no more than that.

use crate::support::{Db, sql};

const TABLES: &str = r#"
    CREATE SCHEMA "Odd Schema"; CREATE SCHEMA shop_stg; CREATE SCHEMA shop; CREATE SCHEMA calc;
    CREATE TABLE shop_stg.orders (id int, n int) PARTITION BY RANGE (id);
    CREATE TABLE "Odd Schema"."part 1" PARTITION OF shop_stg.orders FOR VALUES FROM (0) TO (50);
    CREATE TABLE shop_stg.part_2 PARTITION OF shop_stg.orders DEFAULT;
    CREATE TABLE shop.orders (id int PRIMARY KEY, n int, number serial, note text);
    CREATE TABLE calc.rates AS SELECT 3 AS rate;
    CREATE FUNCTION calc.note(int) RETURNS text IMMUTABLE LANGUAGE sql AS $$ SELECT 'n' || $1 $$;
    INSERT INTO shop_stg.orders SELECT g, g FROM generate_series(1, 100) g; INSERT INTO shop.orders SELECT g, 0 FROM generate_series(51, 150) g;
    REVOKE ALL ON SCHEMA public FROM PUBLIC;"#;

const JOB: &str = r#"{
    "name": "orders", "stage": { "table": "shop_stg.orders" }, "target": { "table": "shop.orders", "key": ["id"] }, "operation": "OPERATION",
    "columns": { "id": "stage.id", "n": "stage.n * (SELECT rate FROM calc.rates)", "note": "calc.note(stage.n)" },
    "chunks": { "rows": 10, "by": "ctid" }
}"#;

#[test]
fn a_role_with_what_is_printed_and_nothing_else_runs_the_job() {
    for operation in ["upsert", "insert", "update"] {
        let db = Db::empty();
        let role = format!("Etl \"{operation}\"");
        let quoted = role.replace('"', "\"\"");
        db.sql(TABLES);
        db.sql(&format!("CREATE ROLE \"{quoted}\" LOGIN NOINHERIT"));
        db.ok(&["init"]);
        db.file("orders.json", &JOB.replace("OPERATION", operation));
        db.ok(&["job", "put", "orders.json"]);
        let printed = db.ok(&["init", "--grants", "--role", &role, "orders.json"]);
        assert_eq!(db.ok(&["init", "--grants", "--role", &role, "orders"]), printed);
        db.sql(&printed);

        let address = db.url.rsplit('@').next().unwrap();
        let url = format!("postgres://{}@{address}", role.replace(' ', "%20").replace('"', "%22"));
        assert_eq!(sql(&url, "SELECT CURRENT_USER"), role);
        let as_role = |args: &[&str]| {
            let ended = db.command(args).env("DATABASE_URL", &url).output().unwrap();
            assert!(ended.status.success(), "{args:?} {printed} {ended:?}");
            String::from_utf8(ended.stdout).unwrap()
        };
        assert!(as_role(&["check", "orders.json"]).contains("it can run"));
        assert!(as_role(&["plan", "orders"]).contains("Nothing was written"));
        assert!(as_role(&["run", "orders"]).contains("COMPLETE"));
        assert!(as_role(&["status", "1"]).contains("100 staged"));
        assert!(as_role(&["chunks", "1"]).contains("PROCESSED"));

        let may = |table: &str| {
            db.sql(&format!(
                "SELECT string_agg(p, ' ' ORDER BY p) FROM unnest('{{SELECT,INSERT,UPDATE,DELETE,TRUNCATE,REFERENCES,TRIGGER}}'::text[]) p
                 WHERE has_table_privilege('{role}', '{table}', p)"
            ))
        };
        assert_eq!(may("shop_stg.orders"), "SELECT");
        assert_eq!(may("stagemill.job"), "SELECT");
        let expected = match operation {
            "insert" => "INSERT SELECT",
            "update" => "SELECT UPDATE",
            _ => "INSERT SELECT UPDATE",
        };
        assert_eq!(may("shop.orders"), expected);
    }
}

#[test]
fn without_a_job_no_server_is_asked_and_without_grants_nothing_else_is_taken() {
    let db = Db::empty();
    let printed = db.command(&["init", "--grants", "--reader", "looker"]).env_remove("DATABASE_URL").output().unwrap();
    let printed = String::from_utf8(printed.stdout).unwrap();
    assert!(
        printed.contains("ON stagemill.chunk TO \"etl\";") && printed.contains("stagemill.run_status TO \"looker\";"),
        "{printed}"
    );
    assert_eq!(db.sql("SELECT count(*) FROM pg_namespace WHERE nspname = 'stagemill'"), "0");
    db.fails(&["init", "orders.json"], 2, &["--grants"]);
    for option in ["--role", "--reader"] {
        db.fails(&["init", "--grants", option, &"漢".repeat(22)], 2, &["66 bytes; PostgreSQL keeps 63"]);
    }
    db.file("orders.json", &JOB.replace("OPERATION", "upsert"));
    db.fails(&["init", "--grants", "orders.json"], 2, &["shop_stg", "does not exist"]);
}
