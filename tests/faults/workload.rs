//! What is run while harm is done: jobs that show every row that is lost or applied twice, beside the single statement on a copy.

use std::time::Duration;

use fastrand::Rng;

/// A row's value, and a part of passwords: nothing may print it.
pub const PLANTED: &str = "planted-4711";

/// A kind of job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workload {
    /// `n = target.n + stage.n`: a row that is applied twice, or not, has another sum.
    Increment,
    /// Half of the rows are new.
    Upsert,
    /// Deletes, which also take their rows out of the stage.
    Delete,
    /// Changes of which the newest wins, with a guard, bad rows that are set aside, and a stage that is emptied.
    Changes,
    /// Two statements of the user's own, the second of which notes each row.
    Statements,
}

impl Workload {
    pub const ALL: [Self; 5] = [Self::Increment, Self::Upsert, Self::Delete, Self::Changes, Self::Statements];

    /// Stage, target, and `oracle`: the target as the single statement leaves it. Each target row takes its time.
    pub fn tables(self, row_takes: Duration) -> String {
        let rows = match self {
            Self::Changes => {
                "CREATE TABLE stage (id int, n text, op text, seq text); CREATE INDEX ON stage (id);
                 INSERT INTO stage SELECT g, g, CASE WHEN g % 9 = 0 THEN 'D' ELSE 'U' END, lpad('2', 35, '0') FROM generate_series(201, 600) g ORDER BY md5(g::text);
                 INSERT INTO stage SELECT g, 7, 'U', lpad('1', 35, '0') FROM generate_series(201, 600) g;
                 UPDATE stage SET n = 'planted-4711' WHERE id IN (250, 580) AND seq LIKE '%2';"
            }
            _ => {
                "CREATE TABLE stage (id int PRIMARY KEY, n text);
                 INSERT INTO stage SELECT g, g FROM generate_series(201, 600) g ORDER BY md5(g::text);"
            }
        };
        format!(
            "CREATE TABLE target (id int PRIMARY KEY, n int NOT NULL, last_seq numeric(38));
             INSERT INTO target SELECT g, 100 FROM generate_series(1, 400) g;
             CREATE TABLE noted (id int);
             {rows}
             CREATE TABLE oracle (LIKE target INCLUDING ALL); INSERT INTO oracle TABLE target; {}
             CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep({}); RETURN COALESCE(NEW, OLD); END $$;
             CREATE TRIGGER slow BEFORE INSERT OR UPDATE OR DELETE ON target FOR EACH ROW EXECUTE FUNCTION slow(); ANALYZE;",
            self.statement(),
            row_takes.as_secs_f64()
        )
    }

    const fn statement(self) -> &'static str {
        match self {
            Self::Increment | Self::Statements => {
                "UPDATE oracle o SET n = o.n + s.n::int FROM stage s WHERE o.id = s.id;"
            }
            Self::Upsert => {
                "INSERT INTO oracle (id, n) SELECT id, n::int FROM stage ON CONFLICT (id) DO UPDATE SET n = excluded.n;"
            }
            Self::Delete => "DELETE FROM oracle USING stage WHERE oracle.id = stage.id;",
            Self::Changes => {
                "DELETE FROM oracle USING stage s WHERE oracle.id = s.id AND s.op = 'D' AND s.seq LIKE '%2';
                 INSERT INTO oracle SELECT id, n::int, 2 FROM stage WHERE op = 'U' AND seq LIKE '%2' AND n <> 'planted-4711'
                 ON CONFLICT (id) DO UPDATE SET n = excluded.n, last_seq = excluded.last_seq;"
            }
        }
    }

    /// The job, with chunks of about ten rows.
    pub fn job(self, dice: &mut Rng) -> String {
        let by = if self != Self::Changes && dice.bool() { "ctid" } else { "key" };
        let rows = dice.u32(8..30);
        let what = match self {
            Self::Increment => {
                r#""operation": "update", "columns": {"id": "stage.id", "n": "target.n + stage.n::int"}"#
            }
            Self::Upsert => r#""operation": "upsert", "columns": {"id": "stage.id", "n": "stage.n::int"}"#,
            Self::Delete => r#""operation": "delete", "stage_rows": "delete""#,
            Self::Changes => {
                r#""operation": "changes", "columns": {"id": "stage.id", "n": "stage.n::int"}, "changes": {"operation": "op", "order": "seq", "guard": "last_seq"},
                   "on_bad_row": "quarantine", "max_rejects": 10, "stage_rows": "delete""#
            }
            Self::Statements => {
                r#""operation": "sql", "sql": ["UPDATE target SET n = target.n + stage.n::int FROM stage AS stage WHERE target.id = stage.id AND {chunk}",
                                              "INSERT INTO noted SELECT id FROM stage AS stage WHERE {chunk}"]"#
            }
        };
        let (key, column) = if self == Self::Statements { ("[]", r#", "column": "id""#) } else { (r#"["id"]"#, "") };
        format!(
            r#"{{"name": "faults", "stage": {{"table": "public.stage"}}, "target": {{"table": "public.target", "key": {key}}}, {what},
                "chunks": {{"by": "{by}", "rows": {rows}{column}}}, "parallelism": {}, "retry": {{"attempts": 20, "rounds": 5}},
                "session": {{"lock_timeout": "2s", "statement_timeout": "5s"}}}}"#,
            dice.u32(2..17)
        )
    }

    /// How a run ends that loses nothing.
    pub const fn status(self) -> &'static str {
        match self {
            Self::Changes => "COMPLETE_WITH_REJECTS",
            _ => "COMPLETE",
        }
    }

    /// Rows of the target that are not as the single statement left them, and rows that are neither in the target nor in the stage, nor set aside.
    pub const fn wrong(self) -> &'static str {
        match self {
            Self::Statements => {
                "SELECT (SELECT count(*) FROM ((TABLE target EXCEPT ALL TABLE oracle) UNION ALL (TABLE oracle EXCEPT ALL TABLE target)) d)
                      + (SELECT count(*) FROM (SELECT g FROM generate_series(201, 600) g EXCEPT ALL SELECT id FROM noted) d)
                      + (SELECT count(*) FROM (SELECT id FROM noted EXCEPT ALL SELECT g FROM generate_series(201, 600) g) d)"
            }
            Self::Delete | Self::Changes => {
                "SELECT (SELECT count(*) FROM ((TABLE target EXCEPT ALL TABLE oracle) UNION ALL (TABLE oracle EXCEPT ALL TABLE target)) d)
                      + (SELECT count(*) FROM ((SELECT id::text, n FROM stage) EXCEPT ALL (SELECT staged_row ->> 'id', staged_row ->> 'n' FROM stagemill.reject)) d)
                      + (SELECT count(*) FROM ((SELECT staged_row ->> 'id', staged_row ->> 'n' FROM stagemill.reject) EXCEPT ALL (SELECT id::text, n FROM stage)) d)"
            }
            _ => {
                "SELECT count(*) FROM ((TABLE target EXCEPT ALL TABLE oracle) UNION ALL (TABLE oracle EXCEPT ALL TABLE target)) d"
            }
        }
    }
}
