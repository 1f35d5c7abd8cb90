//! The tables of a case, with their rows.

use super::case::{Bad, Case, Operation, There};

/// A key column's type, and how the n-th of its values is written.
#[derive(Debug, Clone, Copy)]
pub struct KeyType {
    staged: &'static str,
    target: &'static str,
    value: &'static str,
}

pub const KEY_TYPES: [KeyType; 10] = [
    KeyType { staged: "bigint", target: "bigint", value: "{n}" },
    KeyType { staged: "integer", target: "bigint", value: "{n} - 10" },
    KeyType { staged: "smallint", target: "integer", value: "{n}" },
    KeyType { staged: "numeric(38,5)", target: "numeric(38,5)", value: "{n} / 7.0" },
    KeyType { staged: "text", target: "text", value: "E'it''s \\\\ \\n \"' || {n}" },
    KeyType { staged: "varchar(20)", target: "text", value: "'ä' || {n} % 13 || ' ' || {n}" },
    KeyType { staged: "char(8)", target: "char(8)", value: "'c' || {n}" },
    KeyType { staged: "uuid", target: "uuid", value: "md5({n}::text)::uuid" },
    KeyType { staged: "date", target: "date", value: "date '2026-01-01' + {n}" },
    KeyType {
        staged: "timestamptz",
        target: "timestamptz",
        value: "timestamptz '2026-10-25 00:00Z' + {n} * interval '7 minutes 0.123 s'",
    },
];

/// Types of a change's order and of the guard: as DMS stages it, and as people store it.
pub const ORDER_TYPES: [&str; 3] = ["numeric(38)", "text", "varchar(40)"];

/// 35 digits at most, of different lengths: as text '9…' is greater than '10…'.
fn sequence(n: Option<u8>) -> String {
    n.map_or_else(|| "NULL".to_owned(), |n| format!("'{n}{:032}'", 7))
}

/// How a table is partitioned, by the first column of the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    Plain,
    Hash,
    Range,
    /// Ranges, one of which has partitions of its own.
    Nested,
}

/// No staged row has this key.
const ANCHOR: u8 = 63;

impl Case {
    /// A value for each key column. Wider keys share values of single columns.
    fn key_values(&self, id: u8, null: Option<u8>) -> Vec<String> {
        let digits = match self.key.len() {
            1 => vec![id],
            2 => vec![id % 5, id / 5],
            _ => vec![id % 4, id / 4 % 4, id / 16],
        };
        let null = null.map(|null| usize::from(null) % self.key.len());
        let values = digits.iter().zip(&self.key).enumerate().map(|(at, (digit, key))| {
            if null == Some(at) { "NULL".to_owned() } else { key.value.replace("{n}", &digit.to_string()) }
        });
        values.collect()
    }

    /// Everything in a schema of its own. `staged` keeps the rows that the stage had, `oracle` and `looped` begin as the target does.
    pub fn tables(&self, schema: &str) -> String {
        let mut sql = format!(
            "CREATE SCHEMA {schema}; SET search_path = {schema};
             CREATE TABLE parent (id integer PRIMARY KEY); INSERT INTO parent SELECT generate_series(1, 60);"
        );
        sql += &self.stage_table();
        sql += &self.target_table();
        sql += "CREATE TABLE staged AS TABLE stage;
                CREATE TABLE before AS SELECT t.tableoid AS heap, t.ctid AS place, t.xmin AS version, t.* FROM target t;";
        for copy in ["oracle", "looped"] {
            sql += &format!("CREATE TABLE {copy} (LIKE target INCLUDING ALL); INSERT INTO {copy} TABLE target;");
        }
        if self.quarantine {
            for table in ["target", "oracle", "looped"] {
                sql += &self.constraints(table);
            }
        }
        sql + &format!(
            "CREATE TABLE ranges AS SELECT (array_agg(k1 ORDER BY k1))[1] AS lo, (array_agg(k1 ORDER BY k1 DESC))[1] AS hi
             FROM (SELECT k1, dense_rank() OVER (ORDER BY k1) / {} AS g FROM stage WHERE k1 IS NOT NULL) s WHERE g % 4 <> 2 GROUP BY g;",
            self.chunk_rows.div_ceil(2).min(9)
        )
    }

    fn stage_table(&self) -> String {
        let mut columns = vec!["nr integer".to_owned()];
        columns.extend(self.key_columns(|key| key.staged));
        columns.extend(["n bigint".into(), "v text".into(), "op text".into(), format!("seq {}", self.order[0])]);
        let mut sql = self.create("stage", &columns, "", self.stage);
        let unique = self.wants_unique_keys();
        if self.indexed || unique {
            let kind = if unique { "UNIQUE INDEX" } else { "INDEX" };
            sql += &format!("CREATE {kind} ON stage ({});", self.keys().join(", "));
        }
        let mut rows = Vec::new();
        for (nr, row) in self.staged.iter().enumerate() {
            let v = match row.bad {
                Some(Bad::Check) => "'13'".into(),
                Some(Bad::Null) => "NULL".into(),
                Some(Bad::NoNumber) => "'x'".into(),
                Some(Bad::NoParent) => "'99'".into(),
                Some(Bad::Trigger) => "'7'".into(),
                Some(Bad::Twin) => "'50'".into(),
                _ => format!("'{}'", 1 + row.n.rem_euclid(2)),
            };
            let op = if row.bad == Some(Bad::Indicator) { 'X' } else { row.op };
            let seq = if row.bad == Some(Bad::Order) { "'1e5 or so'".into() } else { sequence(row.seq) };
            let key = self.key_values(row.id, row.null).join(", ");
            let values = format!("({nr}, {key}, {}, {v}, '{op}', {seq})", row.n);
            rows.extend(std::iter::repeat_n(values, if row.twice { 2 } else { 1 }));
        }
        sql + &insert("stage", &rows)
    }

    fn target_table(&self) -> String {
        let mut columns = self.key_columns(|key| key.target);
        columns.extend([
            "n bigint".into(),
            "v integer NOT NULL".into(),
            "note text DEFAULT 'by default'".into(),
            format!("last {}", self.order[1]),
        ]);
        let unique = if self.nullable { "UNIQUE" } else { "PRIMARY KEY" };
        let unique = format!(", {unique} ({})", self.keys().join(", "));
        let mut sql = self.create("target", &columns, &unique, self.target);
        if self.quarantine && self.target == Layout::Plain {
            sql += "CREATE UNIQUE INDEX ON target (v) WHERE v = 50;";
        }
        let mut rows: Vec<String> = Vec::new();
        for (id, There { n, last, .. }) in &self.there {
            let (key, v) = (self.key_values(*id, None).join(", "), 1 + n.rem_euclid(2));
            rows.push(format!("({key}, {n}, {v}, 'old', {})", sequence(*last)));
        }
        rows.push(format!("({}, 0, 50, 'anchor', NULL)", self.key_values(ANCHOR, None).join(", ")));
        sql + &insert("target", &rows)
    }

    fn key_columns(&self, pick: fn(&KeyType) -> &'static str) -> Vec<String> {
        let null = if self.nullable { "" } else { " NOT NULL" };
        self.key.iter().zip(self.keys()).map(|(key, name)| format!("{name} {}{null}", pick(key))).collect()
    }

    /// A table. One of its partitions was attached: its columns have another order, and one was dropped.
    fn create(&self, name: &str, columns: &[String], unique: &str, layout: Layout) -> String {
        let check = if name == "target" { ", CONSTRAINT not_13 CHECK (v <> 13)" } else { "" };
        let columns_text = columns.join(", ");
        let split = &self.key_values(20, None)[0];
        let (method, attached, others) = match layout {
            Layout::Plain => return format!("CREATE TABLE {name} ({columns_text}{unique}{check});"),
            Layout::Hash => (
                "HASH",
                "WITH (MODULUS 2, REMAINDER 1)".to_owned(),
                format!("CREATE TABLE {name}_1 PARTITION OF {name} FOR VALUES WITH (MODULUS 2, REMAINDER 0);"),
            ),
            Layout::Range | Layout::Nested => {
                let nested = if layout == Layout::Nested {
                    format!(
                        " PARTITION BY HASH (k1); CREATE TABLE {name}_2_0 PARTITION OF {name}_2 FOR VALUES WITH (MODULUS 2, REMAINDER 0);
                         CREATE TABLE {name}_2_1 PARTITION OF {name}_2 FOR VALUES WITH (MODULUS 2, REMAINDER 1)"
                    )
                } else {
                    String::new()
                };
                let others = format!(
                    "CREATE TABLE {name}_1 PARTITION OF {name} DEFAULT;
                     CREATE TABLE {name}_2 PARTITION OF {name} FOR VALUES FROM ({split}) TO (MAXVALUE){nested};"
                );
                ("RANGE", format!("FROM (MINVALUE) TO ({split})"), others)
            }
        };
        let turned = columns.iter().rev().map(String::as_str).collect::<Vec<_>>().join(", ");
        format!(
            "CREATE TABLE {name} ({columns_text}{unique}{check}) PARTITION BY {method} (k1);
             CREATE TABLE {name}_0 (gone integer, {turned}{check}); ALTER TABLE {name}_0 DROP COLUMN gone;
             ALTER TABLE {name} ATTACH PARTITION {name}_0 FOR VALUES {attached};
             {others}"
        )
    }

    /// What makes rows bad, beside the CHECK and NOT NULL of the table.
    fn constraints(&self, table: &str) -> String {
        let deferred = if self.deferred { "DEFERRABLE INITIALLY DEFERRED" } else { "" };
        let mut sql = format!("ALTER TABLE {table} ADD FOREIGN KEY (v) REFERENCES parent {deferred};");
        if self.target == Layout::Plain {
            sql += &format!(
                "CREATE FUNCTION refuse_{table}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no sevens'; END $$;
                 CREATE CONSTRAINT TRIGGER refuse AFTER INSERT OR UPDATE ON {table} {deferred} FOR EACH ROW WHEN (NEW.v = 7) EXECUTE FUNCTION refuse_{table}();"
            );
        }
        let pinned: Vec<String> = self
            .there
            .iter()
            .filter(|(_, there)| there.pinned)
            .map(|(id, _)| format!("({})", self.key_values(*id, None).join(", ")))
            .collect();
        if self.operation.deletes() {
            let columns: Vec<String> =
                self.key.iter().zip(self.keys()).map(|(key, name)| format!("{name} {}", key.target)).collect();
            sql += &format!(
                "CREATE TABLE child_of_{table} ({}, FOREIGN KEY ({}) REFERENCES {table} ({1}) {deferred});{}",
                columns.join(", "),
                self.keys().join(", "),
                insert(&format!("child_of_{table}"), &pinned)
            );
        }
        sql
    }

    /// Mends most of what makes rows bad: what is no number or NULL stays so.
    pub fn mend(&self) -> String {
        let mut sql = "INSERT INTO parent VALUES (99);".to_owned();
        for table in ["target", "looped"] {
            sql += &format!(
                "ALTER TABLE {table} DROP CONSTRAINT not_13; DROP TRIGGER IF EXISTS refuse ON {table}; DROP INDEX IF EXISTS {table}_v_idx;"
            );
            if self.operation.deletes() {
                sql += &format!("DELETE FROM child_of_{table};");
            }
        }
        format!("SET client_min_messages = warning; {sql}")
    }

    /// Statements of the user's own: rows that are there are updated, then all others inserted.
    pub fn statements(&self, stage: &str, target: &str, condition: &str) -> Vec<String> {
        debug_assert_eq!(self.operation, Operation::Sql);
        let keys = self.keys();
        let same: Vec<String> = keys.iter().map(|key| format!("t.{key} = stage.{key}")).collect();
        let n = if self.adds { "t.n + stage.n" } else { "stage.n" };
        vec![
            format!("UPDATE {target} AS t SET n = {n} FROM {stage} WHERE {} AND {condition}", same.join(" AND ")),
            format!(
                "INSERT INTO {target} ({0}, n, v) SELECT {1}, stage.n, stage.v::integer FROM {stage} WHERE {condition} ON CONFLICT ({0}) DO NOTHING",
                keys.join(", "),
                keys.iter().map(|key| format!("stage.{key}")).collect::<Vec<_>>().join(", ")
            ),
        ]
    }
}

fn insert(table: &str, rows: &[String]) -> String {
    if rows.is_empty() { String::new() } else { format!("INSERT INTO {table} VALUES {};", rows.join(", ")) }
}
