//! What a person would have written: one statement, and for the fate of each row a loop over all of them.

use super::case::{By, Case, Operation};

impl Case {
    fn same_key(&self, a: &str, b: &str) -> String {
        self.keys().iter().map(|key| format!("{a}.{key} = {b}.{key}")).collect::<Vec<_>>().join(" AND ")
    }

    /// The condition that a staged row is the job's.
    fn is_taken(&self, row: &str) -> String {
        let filter = if self.filter { format!("{row}.nr % 4 <> 1") } else { "true".into() };
        let ranges = if self.by == By::Sql {
            format!("EXISTS (SELECT FROM ranges r WHERE {row}.k1 BETWEEN r.lo AND r.hi)")
        } else {
            "true".into()
        };
        format!("{filter} AND {ranges}")
    }

    /// Rows of the job that no range holds.
    pub fn outside(&self) -> String {
        let filtered = Self { by: By::Key, ..self.clone() };
        format!("SELECT count(*) FROM staged s WHERE ({}) AND NOT ({})", filtered.is_taken("s"), self.is_taken("s"))
    }

    /// `taken` are the job's rows, `newest` those of them that are applied.
    pub fn views(&self) -> String {
        let keys = self.keys();
        let newest = if self.operation == Operation::Changes {
            let no_null = keys.iter().map(|key| format!("{key} IS NOT NULL")).collect::<Vec<_>>().join(" AND ");
            format!(
                "SELECT DISTINCT ON ({0}) * FROM taken WHERE op IN ('I', 'U', 'D') AND COALESCE(seq::text !~ '[^0-9]', true) AND {no_null}
                 ORDER BY {0}, CASE WHEN seq::text !~ '[^0-9]' THEN seq::numeric END DESC NULLS LAST",
                keys.join(", ")
            )
        } else {
            "TABLE taken".to_owned()
        };
        format!(
            "CREATE VIEW taken AS SELECT * FROM staged s WHERE {}; CREATE VIEW newest AS {newest};",
            self.is_taken("s")
        )
    }

    fn new_n(&self, there: &str, staged: &str) -> String {
        if self.adds { format!("{there}.n + {staged}.n") } else { format!("{staged}.n") }
    }

    /// The columns that an update sets, with their values.
    fn set(&self, there: &str, staged: &str) -> Vec<(&'static str, String)> {
        let mut set = vec![("n", self.new_n(there, staged)), ("v", format!("{staged}.v::integer"))];
        if self.guard {
            set.push(("last", format!("{staged}.seq::{}", self.order[1])));
        }
        set
    }

    fn assigned(&self, there: &str, staged: &str) -> String {
        self.set(there, staged)
            .iter()
            .map(|(column, value)| format!("{column} = {value}"))
            .collect::<Vec<_>>()
            .join(", ")
    }

    fn inserted(&self, staged: &str) -> (String, String) {
        let keys = self.keys().into_iter().map(|key| (key.clone(), format!("{staged}.{key}")));
        let plain = Self { adds: false, ..self.clone() };
        let others = plain.set(staged, staged).into_iter().map(|(column, value)| (column.to_owned(), value));
        let (columns, values): (Vec<String>, Vec<String>) = keys.chain(others).unzip();
        (columns.join(", "), values.join(", "))
    }

    /// The condition that an update would change something.
    fn differs(&self, there: &str, staged: &str) -> String {
        if !self.skip_unchanged {
            return "true".into();
        }
        let different = self.set(there, staged);
        let different = different.iter().map(|(column, value)| format!("{there}.{column} IS DISTINCT FROM {value}"));
        format!("({})", different.collect::<Vec<_>>().join(" OR "))
    }

    /// The condition that a change is newer than what the target has.
    fn newer(&self, there: &str, staged: &str) -> String {
        if self.guard {
            format!("COALESCE({there}.last IS NULL OR {there}.last::numeric < {staged}.seq::numeric, false)")
        } else {
            "true".into()
        }
    }

    /// The single statement, on `oracle`.
    pub fn statement(&self) -> String {
        let same = self.same_key("t", "s");
        let (columns, values) = self.inserted("s");
        let keys = self.keys().join(", ");
        let insert = format!("INSERT INTO oracle ({columns}) SELECT {values} FROM newest s WHERE true");
        let is_delete = if self.operation == Operation::Changes { "s.op = 'D'" } else { "true" };
        let update = format!(
            "UPDATE oracle t SET {} FROM newest s WHERE {same} AND {} AND {}",
            self.assigned("t", "s"),
            self.newer("t", "s"),
            self.differs("t", "s")
        );
        let delete =
            format!("DELETE FROM oracle t USING newest s WHERE {same} AND {is_delete} AND {}", self.newer("t", "s"));
        match self.operation {
            Operation::Insert => format!("{insert} ON CONFLICT ({keys}) DO NOTHING"),
            Operation::Update => update,
            Operation::Upsert => format!(
                "{insert} ON CONFLICT ({keys}) DO UPDATE SET n = {}, v = excluded.v WHERE {}",
                self.new_n("oracle", "excluded"),
                self.differs("oracle", "excluded")
            ),
            Operation::Delete => delete,
            Operation::Changes => format!(
                "WITH d AS ({delete}), u AS ({update} AND s.op <> 'D')
                 {insert} AND s.op <> 'D' AND NOT EXISTS (SELECT FROM oracle t WHERE {same})"
            ),
            Operation::Sql => {
                self.statements("staged AS stage", "oracle", &format!("({})", self.is_taken("stage"))).join(";")
            }
        }
    }

    /// A loop over the rows, on `looped`, each in a subtransaction: it says what became of each, as a chunk's counts name it.
    pub fn row_by_row(&self) -> String {
        let fates = format!("CREATE TABLE fates (nr integer, fate text); {}", self.loop_over("newest"));
        if self.operation != Operation::Changes {
            return fates;
        }
        // Superseded changes, and those that can't be used.
        format!(
            "{fates} INSERT INTO fates
             SELECT o.nr, CASE WHEN op NOT IN ('I', 'U', 'D') OR seq::text ~ '[^0-9]' OR NOT ROW({}) IS NOT NULL THEN 'rejected' ELSE 'skipped' END
             FROM (TABLE taken EXCEPT ALL TABLE newest) o;",
            self.keys().join(", ")
        )
    }

    /// The same once more, over the rows that were rejected and have a key to be found by.
    pub fn rejected_row_by_row(&self) -> String {
        let no_null = self.keys().iter().map(|key| format!("{key} IS NOT NULL")).collect::<Vec<_>>().join(" AND ");
        format!(
            "CREATE TABLE again AS SELECT * FROM newest WHERE {no_null} AND nr IN (SELECT nr FROM fates WHERE fate = 'rejected');
             DELETE FROM fates WHERE fate = 'rejected' AND nr IN (SELECT nr FROM again); {}",
            self.loop_over("again")
        )
    }

    fn loop_over(&self, rows: &str) -> String {
        let (there, write) = (self.same_key("t", "s"), self.write_one());
        let refused = format!("NOT {}", self.newer("had", "s"));
        let same = if self.guard { "had.last::numeric IS NOT DISTINCT FROM s.seq::numeric" } else { "false" };
        let delete = if self.operation == Operation::Delete { "true" } else { "s.op = 'D'" };
        let deletes = if self.operation.deletes() { delete } else { "false" };
        format!(
            "DO $$ DECLARE s record; had looped%ROWTYPE; fate text; is_there boolean; BEGIN
                 SET CONSTRAINTS ALL IMMEDIATE;
                 FOR s IN SELECT * FROM {rows} ORDER BY {keys} LOOP
                     BEGIN
                         SELECT * INTO had FROM looped t WHERE {there};
                         is_there := FOUND;
                         IF is_there AND {refused} THEN fate := CASE WHEN {same} THEN 'unchanged' ELSE 'skipped' END;
                         ELSIF {deletes} AND NOT is_there THEN fate := 'skipped';
                         ELSIF {deletes} THEN DELETE FROM looped t WHERE {there}; fate := 'deleted';
                         {write}
                         END IF;
                     EXCEPTION WHEN OTHERS THEN fate := 'rejected';
                     END;
                     INSERT INTO fates VALUES (s.nr, fate);
                 END LOOP;
             END $$;",
            keys = self.keys().join(", ")
        )
    }

    fn write_one(&self) -> String {
        let there = self.same_key("t", "s");
        let (columns, values) = self.inserted("s");
        let update = if self.operation.updates() {
            format!(
                "IF {} THEN UPDATE looped t SET {} WHERE {there}; fate := 'updated'; ELSE fate := 'unchanged'; END IF;",
                self.differs("had", "s"),
                self.assigned("t", "s")
            )
        } else {
            "fate := 'skipped';".to_owned()
        };
        let insert = if self.operation.inserts() {
            format!("INSERT INTO looped ({columns}) VALUES ({values}); fate := 'inserted';")
        } else {
            "fate := 'skipped';".to_owned()
        };
        format!("ELSIF is_there THEN {update} ELSE {insert}")
    }
}
