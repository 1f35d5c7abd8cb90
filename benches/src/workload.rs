//! The tables, and what is asked of each operation.

use anyhow::Result;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{program::Program, server::Server};

/// What is done with the staged rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Operation {
    Update,
    Insert,
    Upsert,
    Delete,
    Changes,
}

/// How many rows there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Size {
    pub(crate) staged: u64,
    pub(crate) target: u64,
}

impl Operation {
    pub(crate) const ALL: [Self; 5] = [Self::Update, Self::Insert, Self::Upsert, Self::Delete, Self::Changes];

    /// The word in a job file.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Update => "update",
            Self::Insert => "insert",
            Self::Upsert => "upsert",
            Self::Delete => "delete",
            Self::Changes => "changes",
        }
    }

    /// The statement that a person would write; `:staged` stands for the stage, or a part of it.
    const fn peer(self) -> &'static str {
        match self {
            Self::Update => include_str!("../peers/update.sql"),
            Self::Insert => include_str!("../peers/insert.sql"),
            Self::Upsert => include_str!("../peers/upsert.sql"),
            Self::Delete => include_str!("../peers/delete.sql"),
            Self::Changes => include_str!("../peers/changes.sql"),
        }
    }

    /// That statement over a part of the stage.
    pub(crate) fn statement(self, staged: &str) -> String {
        self.peer().replace(":staged", staged)
    }

    /// The job for stagemill, with nothing tuned.
    pub(crate) fn job(self) -> Value {
        let changed = json!({ "id": "stage.id", "status": "stage.status", "amount": "stage.amount", "note": "stage.note",
                              "changed_at": "stage.changed_at" });
        let mut columns = match self {
            Self::Delete => json!({ "id": "stage.id" }),
            _ => changed,
        };
        if matches!(self, Self::Insert | Self::Upsert | Self::Changes) {
            columns["customer_id"] = json!({ "insert": "stage.customer_id" });
        }
        let mut job = json!({ "name": self.as_str(), "stage": { "table": "public.stage" },
                              "target": { "table": "public.target", "key": ["id"] },
                              "operation": self.as_str(), "columns": columns });
        if self == Self::Changes {
            job["changes"] = json!({ "operation": "op", "order": "seq" });
        }
        job
    }

    /// Whether a key can be staged more than once.
    const fn repeats_keys(self) -> bool {
        matches!(self, Self::Changes)
    }
}

/// How the target's secondary index lies to its key. No update changes its column; but pages are full, so each new version of a row gets an entry of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Secondary {
    /// Neighbours by key are neighbours here too, as with customers who open their accounts one after the other.
    Near,
    /// In no order: each new version dirties a page somewhere else.
    Far,
}

impl Secondary {
    /// A customer's number, from a row's.
    const fn customer(self) -> &'static str {
        match self {
            Self::Near => "g / 4",
            Self::Far => "g * 7919 % 1000003",
        }
    }
}

/// Target rows have even ids, so that new ones lie between them. About 170 bytes a row.
const TARGET: &str = "
BEGIN;
CREATE TABLE target (id bigint NOT NULL, customer_id bigint NOT NULL, status text NOT NULL, amount numeric(12, 2) NOT NULL, note text NOT NULL,
                     changed_at timestamptz NOT NULL);
INSERT INTO target
SELECT 2 * g, {customer}, 'OPEN', g % 100000 / 100.0, repeat(md5(g::text), 3), timestamptz '2026-01-01' + g * interval '1 second'
FROM generate_series(1::bigint, {target}) g;
ALTER TABLE target ADD PRIMARY KEY (id);
CREATE INDEX ON target (customer_id);
COMMIT;
VACUUM (FREEZE, ANALYZE) target;";

/// Staged rows spread over the whole target, and lie in random order. {parity} makes a key old (0) or new (1).
const STAGE: &str = "
BEGIN;
CREATE TABLE stage AS
SELECT row_number() OVER () AS seq_row_id, s.*
FROM (SELECT CASE WHEN g % 10 = 0 THEN 'D' WHEN g % 2 = 0 THEN 'U' ELSE 'I' END AS op, g::numeric(35) AS seq,
             2 * ((key - 1) * {step} + 1 + key * 7919 % {step}) + {parity} AS id,
             ((key - 1) * {step} + 1) / 4 AS customer_id, 'DONE'::text AS status, (g % 100000 / 50.0)::numeric(12, 2) AS amount,
             repeat(md5((-g)::text), 3) AS note, timestamptz '2026-06-01' + g * interval '1 second' AS changed_at
      FROM (SELECT g, (g - 1) % {keys} + 1 AS key FROM generate_series(1::bigint, {staged}) g) g
      ORDER BY md5(g::text)) s;
ALTER TABLE stage ADD UNIQUE (seq_row_id);
{index};
COMMIT;
VACUUM (FREEZE, ANALYZE) stage;";

/// Fills a database with a target.
pub(crate) fn make_target(server: &Server, database: &str, size: Size, secondary: Secondary) -> Result<()> {
    server.sql("postgres", &format!("CREATE DATABASE {database}"))?;
    server.sql(database, "CREATE EXTENSION IF NOT EXISTS pg_prewarm")?;
    let sql = TARGET.replace("{target}", &size.target.to_string()).replace("{customer}", secondary.customer());
    server.sql(database, &sql)?;
    Ok(())
}

/// Makes a template for an operation out of a database with a target: with the stage, and with the ledger.
pub(crate) fn make_template(server: &Server, base: &str, operation: Operation, size: Size) -> Result<String> {
    let template = format!("{base}_{}", operation.as_str());
    server.derive(&template, base)?;
    fill_stage(server, &template, operation, size)?;
    Program::stagemill()?.run(&["init"], &server.url(&template))?;
    Ok(template)
}

/// Makes the stage of an operation.
fn fill_stage(server: &Server, database: &str, operation: Operation, size: Size) -> Result<()> {
    // Of four changes one is a second one of its key.
    let keys = if operation.repeats_keys() { size.staged * 3 / 4 } else { size.staged };
    let parity = match operation {
        Operation::Update | Operation::Delete => "0",
        Operation::Insert => "1",
        Operation::Upsert | Operation::Changes => "key % 2",
    };
    let index =
        if operation.repeats_keys() { "CREATE INDEX ON stage (id)" } else { "ALTER TABLE stage ADD PRIMARY KEY (id)" };
    let sql = STAGE
        .replace("{staged}", &size.staged.to_string())
        .replace("{keys}", &keys.to_string())
        .replace("{step}", &(size.target / keys).to_string())
        .replace("{parity}", parity)
        .replace("{index}", index);
    server.sql(database, &sql)?;
    Ok(())
}

/// Of every row of the target, so that whoever did other work is found out.
pub(crate) const CHECKSUM: &str = "SELECT count(*) || ':' || sum(hashtextextended(t::text, 0)) FROM target t";

/// Reads all that contestants touch into the server's cache.
pub(crate) const PREWARM: &str = "
SELECT pg_prewarm(c.oid) FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'i')";
