//! Every type that a column or a key is likely to have, through each operation: the target's text is that of the single statement.

use stagemill_engine::{outcome::Status, plan::Started};

use crate::database::{Database, job};

/// Types of people's own, of which columns and keys are made.
const OWN_TYPES: &str = "
    CREATE EXTENSION citext;
    CREATE COLLATION either_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
    CREATE DOMAIN small AS integer CHECK (VALUE < 5000);
    CREATE DOMAIN smaller AS small CHECK (VALUE > -5000);
    CREATE DOMAIN short AS varchar(12) NOT NULL CHECK (VALUE <> 'no');
    CREATE DOMAIN amount AS numeric(12, 2);
    CREATE DOMAIN number AS numeric;
    CREATE DOMAIN code AS text COLLATE \"C\" CHECK (VALUE ~ '^[a-z]');
    CREATE DOMAIN email AS citext;
    CREATE DOMAIN list AS integer[] CHECK (cardinality(VALUE) > 0);
    CREATE TYPE place AS (x integer, name text);
    CREATE TYPE priced AS (id integer, price numeric);
    DO $$ BEGIN EXECUTE 'CREATE TYPE mood AS ENUM (' || (SELECT string_agg(quote_literal('m' || g * 7919 % 2000), ', ' ORDER BY g * 31 % 2000) FROM generate_series(0, 1999) g) || ')'; END $$;";

/// A column's type, and its value for a number `{g}`.
struct Of {
    name: &'static str,
    value: &'static str,
    /// Two values that its `=` takes for one, or that are close to it. Of a key: how it is written in the target, and how in the stage.
    alike: Option<[&'static str; 2]>,
}

const fn of(name: &'static str, value: &'static str) -> Of {
    Of { name, value, alike: None }
}

const fn alike(name: &'static str, value: &'static str, a: &'static str, b: &'static str) -> Of {
    Of { name, value, alike: Some([a, b]) }
}

impl Of {
    fn at(&self, g: &str) -> String {
        format!("({})::{}", self.value.replace("{g}", g), self.cast())
    }

    /// A key's value for `g`, in the target (0) or in the stage (1).
    fn on(&self, side: usize) -> String {
        let value = self.alike.map_or(self.value, |pair| pair[side]);
        format!("({})::{}", value.replace("{g}", "g"), self.cast())
    }

    /// The type without its collation.
    fn cast(&self) -> &str {
        self.name.split(" COLLATE").next().unwrap_or(self.name)
    }
}

const DATA: &[Of] = &[
    of("smallint", "{g}"),
    of("integer", "{g}"),
    of("bigint", "{g} * 10000000000"),
    alike("numeric", "{g} / 7.0", "1.0", "1.00"),
    of("numeric(12, 3)", "{g} / 7.0"),
    of("real", "{g} / 7.0"),
    of("double precision", "{g} / 7.0"),
    of("boolean", "{g} > 500"),
    alike("text", "'ä ' || {g}", "'a'", "'a '"),
    of("varchar(12)", "'v' || {g}"),
    of("char(8)", "'c' || {g}"),
    of("bpchar", "'c' || {g}"),
    of("name", "'n' || {g}"),
    alike("text COLLATE either_case", "'e' || {g}", "'a'", "'A'"),
    alike("citext", "'e' || {g}", "'a'", "'A'"),
    of("uuid", "md5({g}::text)"),
    of("date", "date '2026-01-01' + {g}"),
    of("time", "time '00:00' + {g} * interval '1.5 s'"),
    alike("timetz", "timetz '00:00+02' + {g} * interval '1.5 s'", "'12:00+00'", "'13:00+01'"),
    of("timestamp", "timestamp '2026-01-01' + {g} * interval '1.000001 s'"),
    of("timestamp(0)", "timestamp '2026-01-01' + {g} * interval '1 s'"),
    of("timestamptz", "timestamptz '2026-10-25 00:00Z' + {g} * interval '61 s'"),
    alike("interval", "{g} * interval '1 minute'", "'1 day'", "'24 hours'"),
    of("bytea", "decode(md5({g}::text), 'hex')"),
    of("bit(16)", "{g}::bit(16)"),
    alike("varbit", "{g}::bit(16)", "'1'", "'10'"),
    of("inet", "inet '10.0.0.0' + {g}"),
    alike("inet", "inet '10.0.0.0' + {g}", "'10.0.0.1/8'", "'10.0.0.1/9'"),
    of("cidr", "set_masklen((inet '10.0.0.0' + {g}), 32)::cidr"),
    of("macaddr", "('08002b01' || lpad(to_hex({g}), 4, '0'))"),
    of("money", "{g}"),
    alike("json", "json_build_object('g', {g})", "'{\"a\":1}'", "'{\"a\": 1}'"),
    alike("jsonb", "jsonb_build_object('g', {g})", "'{\"a\":1.0}'", "'{\"a\":1.00}'"),
    of("xml", "xmlelement(name g, {g})"),
    of("tsvector", "'word' || {g}"),
    of("tsquery", "'word' || {g}"),
    of("jsonpath", "'$.a' || {g}"),
    of("pg_lsn", "'0/' || {g}"),
    of("point", "'(1,' || {g} || ')'"),
    alike("box", "'(1,1),(2,' || {g} || ')'", "'(0,0),(2,3)'", "'(0,0),(3,2)'"),
    alike("circle", "'<(1,1),' || {g} || '>'", "'<(1,1),5>'", "'<(2,2),5>'"),
    of("int4range", "int4range({g}, {g} + 5)"),
    alike("numrange", "numrange({g}, {g} + 5)", "'[1.0,2)'", "'[1.00,2)'"),
    of("int4multirange", "int4multirange(int4range({g}, {g} + 5))"),
    of("integer[]", "ARRAY[{g}, NULL, 3]"),
    alike("numeric[]", "ARRAY[{g}]", "'{1.0}'", "'{1.00}'"),
    alike("text[]", "ARRAY['a, b', {g}::text]", "'[0:1]={a,b}'", "'{a,b}'"),
    of("mood", "'m' || {g}"),
    of("mood[]", "ARRAY['m' || {g}]"),
    of("small", "{g}"),
    of("smaller", "{g}"),
    of("short", "'s' || {g}"),
    of("amount", "{g} / 7.0"),
    alike("number", "{g} / 7.0", "1.0", "1.00"),
    of("code", "'c' || {g}"),
    alike("email", "'e' || {g}", "'a@b'", "'A@b'"),
    of("list", "ARRAY[{g}]"),
    of("place", "ROW({g}, 'a, \"b\"')"),
    alike("priced", "ROW({g}, {g})", "ROW(1, 1.0)", "ROW(1, 1.00)"),
];

const KEYS: &[&[Of]] = &[
    &[of("smallint", "{g}")],
    &[of("integer", "{g}")],
    &[of("bigint", "{g} * 10000000000")],
    &[alike("numeric", "", "{g}::numeric(9, 1)", "{g}::numeric(9, 3)")],
    &[of("numeric(20, 4)", "{g} / 7.0")],
    &[of("text", "'ä ' || {g}")],
    &[of("text COLLATE \"C\"", "E'it''s\\\\' || {g}")],
    &[of("varchar(20)", "'v' || {g}")],
    &[of("char(8)", "'c' || {g}")],
    &[of("uuid", "md5({g}::text)")],
    &[of("date", "date '2026-01-01' + {g}")],
    &[of("timestamp", "timestamp '2026-01-01' + {g} * interval '1.000001 s'")],
    &[of("timestamptz", "timestamptz '2026-10-25 00:00Z' + {g} * interval '61 s'")],
    &[of("integer", "{g} % 7"), of("text", "'t' || {g}")],
    &[of("date", "date '2026-01-01' + {g} % 5"), of("uuid", "md5({g}::text)")],
    &[
        of("numeric", "{g} % 3"),
        of("timestamptz", "timestamptz '2026-10-25Z' + {g} * interval '1 s'"),
        of("char(3)", "'x'"),
    ],
    &[of("varchar(9)", "'v' || {g} % 3"), of("smallint", "{g}"), of("bigint", "1")],
];

/// Keys of a kind that is seldom seen.
const SELDOM_KEYS: &[&[Of]] = &[
    &[of("small", "{g}")],
    &[of("smaller", "{g}"), of("mood", "'m' || {g} % 9")],
    &[of("short", "'s' || {g}")],
    &[of("code", "'c' || {g}")],
    &[of("amount", "{g} / 7.0")],
    &[of("mood", "'m' || {g}")],
    &[alike("text COLLATE either_case", "", "'e' || {g}", "'E' || {g}")],
    &[alike("citext", "", "'e' || {g}", "'E' || {g}")],
    &[alike("email", "", "'E' || {g}", "'e' || {g}")],
    &[of("integer[]", "ARRAY[{g}, NULL, 3]")],
    &[of("text[]", "ARRAY['a, \"b', {g}::text]")],
    &[of("list", "ARRAY[{g}]")],
    &[alike("jsonb", "", "jsonb_build_object('g', {g}::numeric(9, 1))", "jsonb_build_object('g', {g}::numeric(9, 2))")],
    &[of("bytea", "decode(md5({g}::text), 'hex')")],
    &[alike("interval", "", "{g} * interval '1 day'", "{g} * interval '24 hours'")],
    &[of("time", "time '00:00' + {g} * interval '1.5 s'")],
    &[of("double precision", "{g} / 7.0")],
    &[of("real", "{g} / 7.0")],
    &[of("bit(16)", "{g}::bit(16)"), of("boolean", "{g} % 2 = 0")],
    &[of("varbit", "{g}::bit(16)")],
    &[of("inet", "inet '10.0.0.0' + {g}")],
    &[of("cidr", "set_masklen((inet '10.0.0.0' + {g}), 32)::cidr")],
    &[of("macaddr", "'08002b01' || lpad(to_hex({g}), 4, '0')")],
    &[of("money", "{g}")],
    &[of("name", "'n' || {g}")],
    &[of("oid", "{g}")],
    &[of("pg_lsn", "'0/' || {g}")],
    &[of("int4range", "int4range({g}, {g} + 5)")],
    &[of("tsvector", "'word' || {g}")],
    &[of("place", "ROW({g}, 'a, \"b\"')")],
];

/// One key and some columns, in a schema of its own: targets 1 to 40, staged 21 to 60, every other row as it is in the target.
struct Tables<'a> {
    key: &'a [Of],
    data: &'a [Of],
}

impl Tables<'_> {
    fn keys(&self) -> Vec<String> {
        (1..=self.key.len()).map(|n| format!("k{n}")).collect()
    }

    fn columns(&self) -> Vec<String> {
        (1..=self.data.len()).map(|n| format!("d{n}")).collect()
    }

    fn create(&self, schema: &str) -> String {
        let all: Vec<&Of> = self.key.iter().chain(self.data).collect();
        let names = [self.keys(), self.columns()].concat();
        let define =
            names.iter().zip(&all).map(|(name, of)| format!("{name} {}", of.name)).collect::<Vec<_>>().join(", ");
        let keys = self.keys().join(", ");
        let key_values = |side: usize| self.key.iter().map(|of| of.on(side)).collect::<Vec<_>>();
        // Of five rows one is alike, two are the same, two differ.
        let values = |side: usize, changed: &str| {
            let data = self.data.iter().map(|of| {
                let plain = of.at(changed);
                of.alike.map_or(plain.clone(), |pair| {
                    format!("CASE WHEN g % 5 = 0 THEN ({})::{} ELSE {plain} END", pair[side], of.cast())
                })
            });
            [key_values(side), data.collect()].concat().join(", ")
        };
        format!(
            "CREATE SCHEMA {schema}; SET search_path = {schema}, public;
             CREATE TABLE target ({define}, UNIQUE ({keys})); INSERT INTO target SELECT {} FROM generate_series(1, 40) g;
             CREATE TABLE oracle (LIKE target INCLUDING ALL); INSERT INTO oracle TABLE target;
             CREATE TABLE stage ({define}, op text, seq text, pad text); CREATE INDEX ON stage ({keys});
             INSERT INTO stage SELECT {}, substr('IUD', g % 3 + 1, 1), g::text, repeat('x', 1000) FROM generate_series(21, 60) g ORDER BY md5(g::text);",
            values(0, "g"),
            values(1, "(g + g % 2 * 1000)"),
        )
    }

    /// Runs the job, and tells how the target differs from the oracle's; what the run says, where it does not go through.
    async fn differences(
        &self,
        database: &Database,
        number: usize,
        operation: &str,
        by: &str,
    ) -> Result<String, String> {
        let schema = format!("types_{number}");
        database.execute(&self.create(&schema)).await;
        let (keys, columns) = (self.keys(), self.columns());
        let mut rest = String::new();
        let (mut word, mut skips) = (operation, false);
        match operation {
            "upsert, unchanged rows skipped" => {
                (word, skips) = ("upsert", true);
                rest += r#", "skip_unchanged": true"#;
            }
            "changes" => {
                rest += r#", "changes": {"operation": "op", "order": "seq"}"#;
                // Older ones, which are superseded.
                let older: Vec<String> = self.key.iter().map(|of| of.on(0)).collect();
                database.execute(&format!("INSERT INTO stage ({0}, {1}, op, seq) SELECT {2}, {1}, 'D', '-1' FROM (SELECT {1}, seq::integer AS g FROM stage) s WHERE g % 2 = 0", keys.join(", "), columns.join(", "), older.join(", "))).await;
            }
            _ => {}
        }
        let ranges = if by == "sql" {
            // By the key's first column; the last range is left out.
            database
                .execute(
                    "CREATE VIEW numbered AS SELECT k1, dense_rank() OVER (ORDER BY k1) AS rank FROM stage;
                     CREATE VIEW ranges AS SELECT DISTINCT first_value(k1) OVER w AS lo, last_value(k1) OVER w AS hi FROM numbered WHERE rank < 30
                     WINDOW w AS (PARTITION BY rank / 3 ORDER BY k1 ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING)",
                )
                .await;
            format!(r#", "column": "k1", "query": "SELECT lo, hi FROM {schema}.ranges""#)
        } else {
            String::new()
        };
        let text = format!(
            r#"{{"name": "{schema}", "stage": {{"table": "{schema}.stage"}}, "target": {{"table": "{schema}.target", "key": {keys:?}}},
                "operation": "{word}", "chunks": {{"by": "{by}", "rows": 10{ranges}}}, "parallelism": 2{rest}}}"#
        );
        let same = "SELECT count(*) FROM target t JOIN stage s ON ";
        let on = keys.iter().map(|key| format!("t.{key} = s.{key}")).collect::<Vec<_>>().join(" AND ");
        let list = |of: &str| {
            columns.iter().map(|column| format!("{of}.{column}::text COLLATE \"C\"")).collect::<Vec<_>>().join(", ")
        };
        let same = database
            .value(&format!("{same}{on} WHERE ROW({}) IS NOT DISTINCT FROM ROW({})", list("t"), list("s")))
            .await;
        let answer = match database.plan(&job(&text), &schema).await {
            Ok(Started::Run(answer)) => answer,
            refused => return Err(format!("{refused:?}")),
        };
        let summary = database.drive(answer).await;
        if summary.status != Status::Complete {
            return Err(format!("{summary:?}"));
        }
        if summary.tally.chunks < 2 {
            return Err("one chunk shows nothing".into());
        }
        if skips && summary.tally.counts.unchanged.to_string() != same {
            return Err(format!("{} rows unchanged, not {same}", summary.tally.counts.unchanged));
        }
        let (k, all) = (keys.join(", "), [keys.clone(), columns.clone()].concat().join(", "));
        let set = columns.iter().map(|column| format!("{column} = excluded.{column}")).collect::<Vec<_>>().join(", ");
        let upsert = |filter: &str| {
            format!(
                "INSERT INTO oracle ({all}) SELECT {all} FROM stage WHERE {filter} ON CONFLICT ({k}) DO UPDATE SET {set};"
            )
        };
        let delete = |filter: &str| format!("DELETE FROM oracle t USING stage s WHERE {on} AND {filter};");
        database
            .execute(&match word {
                "upsert" if by == "sql" => upsert("EXISTS (SELECT FROM ranges r WHERE k1 BETWEEN r.lo AND r.hi)"),
                "upsert" => upsert("true"),
                "delete" => delete("true"),
                _ => upsert("op <> 'D'") + &delete("op = 'D' AND seq <> '-1'"),
            })
            .await;
        let differences = "SELECT count(*) FROM ((SELECT t::text FROM target t EXCEPT ALL SELECT t::text FROM oracle t) UNION ALL (SELECT t::text FROM oracle t EXCEPT ALL SELECT t::text FROM target t)) d";
        let found = database.value(differences).await;
        database
            .execute(&format!("SET client_min_messages = warning; DROP SCHEMA {schema} CASCADE; RESET search_path"))
            .await;
        Ok(found)
    }
}

/// Everything in which a list of keys differs from the single statement.
async fn all_keys(keys: &[&[Of]]) -> Vec<String> {
    let database = Database::with(OWN_TYPES).await;
    let mut faults = Vec::new();
    let ways = [("upsert", "sql"), ("upsert, unchanged rows skipped", "key"), ("changes", "key"), ("delete", "ctid")];
    for (n, key) in keys.iter().enumerate() {
        for (m, (operation, by)) in ways.iter().enumerate() {
            let tables = Tables { key, data: &[of("integer", "{g}"), of("text", "'t' || {g}")] };
            let found = tables.differences(&database, n * ways.len() + m, operation, by).await;
            if found.as_deref() != Ok("0") {
                let names: Vec<&str> = key.iter().map(|of| of.name).collect();
                faults.push(format!("{names:?} {operation} by {by}: {found:?}"));
            }
        }
    }
    faults
}

#[tokio::test]
async fn keys_of_common_types() {
    assert_eq!(all_keys(KEYS).await, [""; 0]);
}

#[tokio::test]
async fn keys_of_types_that_are_seldom_seen() {
    assert_eq!(all_keys(SELDOM_KEYS).await, [""; 0]);
}

#[tokio::test]
async fn columns_of_all_types_at_once() {
    let database = Database::with(OWN_TYPES).await;
    let tables = Tables { key: &[of("integer", "{g}")], data: DATA };
    for (n, (operation, by)) in
        [("upsert", "key"), ("upsert", "ctid"), ("changes", "key"), ("upsert, unchanged rows skipped", "ctid")]
            .iter()
            .enumerate()
    {
        assert_eq!(tables.differences(&database, n, operation, by).await.as_deref(), Ok("0"), "{operation} by {by}");
    }
}

#[tokio::test]
async fn a_column_of_each_type_is_written_where_its_text_changes_and_nowhere_else() {
    let database = Database::with(OWN_TYPES).await;
    let mut faults = Vec::new();
    for (n, data) in DATA.iter().enumerate() {
        let tables = Tables { key: &[of("integer", "{g}")], data: std::slice::from_ref(data) };
        let found = tables.differences(&database, n, "upsert, unchanged rows skipped", "key").await;
        if found.as_deref() != Ok("0") {
            faults.push(format!("{}: {found:?}", data.name));
        }
    }
    assert_eq!(faults, [""; 0]);
}
