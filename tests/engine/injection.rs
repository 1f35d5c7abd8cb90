//! Nothing that a name or a value can hold changes what a statement does: each operation, from plan to prune, with names and values that try.

use serde_json::{Value, json};
use stagemill_engine::{
    answer::Answer,
    check,
    failure::Class,
    finding, grants,
    ident::Ident,
    job::Job,
    ledger::{prune::Old, summary::Summary},
    outcome::Status,
    resume, skip,
};

use crate::database::Database;

const WORDS: [&str; 20] = [
    "a'; DROP TABLE public.canary; --",
    "a\"; DROP TABLE public.canary; --",
    "a\\'; DROP TABLE public.canary; --",
    "a')); DROP TABLE public.canary; --",
    "a\"); DROP TABLE public.canary; --",
    "a\nDROP TABLE public.canary; --",
    "$$; DROP TABLE public.canary; $$",
    "a */ b /* c -- d",
    "%s %I %L %% %",
    "{start_id}{end_id}{chunk}",
    "{end_id}",
    "stage",
    "select",
    "a.b",
    "'",
    "\"",
    "\\",
    " ",
    "\u{202e}é👩‍👩‍👧\t\u{7f}",
    // 63 bytes, and no byte of it is ASCII.
    "漢漢漢漢漢漢漢漢漢漢漢漢漢漢漢漢漢漢漢漢漢",
];

/// A name in double quotes, not by the code under test.
fn q(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text as a literal, not by the code under test.
fn l(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// What tables, columns and constraints are called.
struct Words {
    word: &'static str,
}

impl Words {
    /// A name of its own, as long as a name can be.
    fn name(&self, letter: char) -> String {
        let mut name = format!("{letter}{}", self.word);
        while name.len() > 63 {
            name.pop();
        }
        name
    }

    fn column(&self, letter: char) -> String {
        q(&self.name(letter))
    }

    fn table(&self, letter: char) -> String {
        format!("{}.{}", q(self.word), self.column(letter))
    }

    /// 40 staged rows, 20 of which the target has. Each text of them holds the word.
    async fn database(&self) -> Database {
        let (stage, target, word) = (self.table('s'), self.table('t'), l(self.word));
        let [k, v, w, o, n, g] = ['k', 'v', 'w', 'o', 'n', 'g'].map(|letter| self.column(letter));
        Database::with(&format!(
            "CREATE TABLE public.canary (n int); INSERT INTO public.canary VALUES (1);
             CREATE SCHEMA {schema};
             CREATE TABLE {stage} ({k} text PRIMARY KEY, {v} text, {w} bigint, {o} text, {n} text);
             INSERT INTO {stage} SELECT {word} || x, {word} || ' value ' || x, x, {word} || CASE WHEN x % 4 = 0 THEN 'D' ELSE 'U' END, x
                 FROM pg_catalog.generate_series(11, 50) x;
             CREATE TABLE {target} ({k} text, {v} text, {g} text, CONSTRAINT {key} PRIMARY KEY ({k}), CONSTRAINT {check} CHECK ({v} <> {word}));
             INSERT INTO {target} SELECT {word} || x, 'old', '0' FROM pg_catalog.generate_series(1, 30) x;
             CREATE UNIQUE INDEX {index} ON {target} ({v}) WHERE {v} <> 'old'; ANALYZE;",
            schema = q(self.word),
            key = self.column('p'),
            check = self.column('c'),
            index = self.column('i'),
        ))
        .await
    }

    /// A job on the two tables: `more` is laid over it.
    fn job(&self, operation: &str, more: Value) -> Job {
        let [k, v] = ['k', 'v'].map(|letter| self.column(letter));
        let mut job = json!({
            "name": "injected", "stage": {"table": self.table('s')}, "target": {"table": self.table('t'), "key": [k]}, "operation": operation,
            "columns": [k, v], "chunks": {"by": "key", "rows": 10}, "parallelism": 2,
        });
        for (field, value) in more.as_object().into_iter().flatten() {
            match (job.get_mut(field), value) {
                (_, Value::Null) => drop(job.as_object_mut().and_then(|job| job.remove(field))),
                (Some(Value::Object(there)), Value::Object(fields)) => there.extend(fields.clone()),
                _ => job[field] = value.clone(),
            }
        }
        Job::parse(&job.to_string()).unwrap_or_else(|findings| panic!("{:?}: {findings:?}", self.word))
    }

    /// Checks and runs it, and looks that the canary lives.
    async fn run(&self, database: &Database, job: &Job) -> Summary {
        let checked = check::thoroughly(&database.connection, job).await.unwrap();
        assert!(checked.mapping.is_some(), "{:?}: {}", self.word, finding::join(&checked.findings));
        let summary = database.run(job).await;
        self.canary(database).await;
        summary
    }

    async fn canary(&self, database: &Database) {
        assert_eq!(database.value("SELECT count(*) FROM public.canary").await, "1", "{:?}", self.word);
    }

    async fn count(&self, database: &Database, condition: &str) -> String {
        database.value(&format!("SELECT count(*) FROM {} WHERE {condition}", self.table('t'))).await
    }

    /// The rows that were applied by an upsert of all.
    async fn all_applied(&self, database: &Database) -> Result<(), String> {
        let differ = format!(
            "SELECT count(*) FROM {} s LEFT JOIN {} t USING ({}) WHERE s.{v} IS DISTINCT FROM t.{v}",
            self.table('s'),
            self.table('t'),
            self.column('k'),
            v = self.column('v'),
        );
        let differ = database.value(&differ).await;
        if differ == "0" { Ok(()) } else { Err(differ) }
    }
}

/// A name in a statement of the job's own, where `{chunk}` and its like are filled in wherever they stand.
fn in_a_statement(quoted: &str) -> String {
    if !quoted.contains('{') {
        return quoted.to_owned();
    }
    let escaped = |part: &str| format!("U&{}", part.replace('{', "\\007B"));
    // A schema and a name, neither with a dot in it.
    quoted.split('.').map(escaped).collect::<Vec<_>>().join(".")
}

fn words() -> impl Iterator<Item = Words> {
    WORDS.iter().map(|word| Words { word })
}

async fn drive(database: &Database, answer: Answer) -> Summary {
    if answer.items.is_empty() { panic!("{answer:?}") } else { database.drive(answer).await }
}

#[tokio::test]
async fn inserts_updates_and_upserts_take_names_and_boundaries_for_what_they_are() {
    for words in words() {
        let database = words.database().await;
        let [k, v] = ['k', 'v'].map(|letter| words.column(letter));
        for (operation, by, counts) in [
            ("update", "key", (0, 20)),
            ("insert", "key", (20, 0)),
            ("upsert", "key", (1, 39)),
            ("upsert", "ctid", (1, 39)),
        ] {
            let job = words.job(operation, json!({"chunks": {"by": by}, "skip_unchanged": operation != "insert"}));
            let summary = words.run(&database, &job).await;
            let found = (summary.tally.counts.inserted, summary.tally.counts.updated);
            assert_eq!((summary.status, found), (Status::Complete, counts), "{:?}: {summary:?}", words.word);
            words
                .all_applied(&database)
                .await
                .unwrap_or_else(|differ| assert_eq!((operation, differ.as_str()), ("update", "20")));
            if operation != "update" {
                let target = words.table('t');
                let undo = format!(
                    "DELETE FROM {target} WHERE {k} = {} || 50; UPDATE {target} SET {v} = 'old'",
                    l(words.word)
                );
                database.execute(&undo).await;
            }
        }
    }
}

#[tokio::test]
async fn deletes_and_emptied_stages_hit_the_rows_that_are_meant() {
    for (n, words) in words().enumerate() {
        let (stage_rows, left) = [("delete", "0"), ("truncate", "0"), ("keep", "40")][n % 3];
        let database = words.database().await;
        let more = json!({"columns": [words.column('k')], "stage_rows": stage_rows, "max_deletes": "100%"});
        let summary = words.run(&database, &words.job("delete", more)).await;
        assert_eq!(
            (summary.status, summary.tally.counts.deleted),
            (Status::Complete, 20),
            "{:?}: {summary:?}",
            words.word
        );
        assert_eq!(database.value(&format!("SELECT count(*) FROM {}", words.table('s'))).await, left);
        assert_eq!(words.count(&database, "true").await, "10");
    }
}

#[tokio::test]
async fn bad_rows_and_constraints_with_odd_names_are_set_aside_and_tried_again() {
    for words in words() {
        let database = words.database().await;
        let (stage, k, v) = (words.table('s'), words.column('k'), words.column('v'));
        // One value breaks the check, another one is that of a target row which is not staged.
        let bad = format!(
            "UPDATE {stage} SET {v} = {word} WHERE {k} = {word} || 20; UPDATE {stage} SET {v} = {word} || ' taken' WHERE {k} = {word} || 40;
             UPDATE {target} SET {v} = {word} || ' taken' WHERE {k} = {word} || 1",
            target = words.table('t'),
            word = l(words.word),
        );
        database.execute(&bad).await;
        let more = json!({"on_bad_row": "quarantine", "max_rejects": 5, "retry": {"rounds": 2}});
        let summary = words.run(&database, &words.job("upsert", more)).await;
        assert_eq!(
            (summary.status, summary.tally.counts.rejected),
            (Status::CompleteWithRejects, 2),
            "{:?}: {summary:?}",
            words.word
        );
        let named = "SELECT string_agg(constraint_name, ' + ' ORDER BY constraint_name COLLATE \"C\") FROM stagemill.reject WHERE retried_in IS NULL";
        assert_eq!(database.value(named).await, format!("{} + {}", words.name('c'), words.name('i')));
        assert_eq!(words.count(&database, &format!("{v} <> 'old'")).await, "39");
        database
            .execute(&format!("UPDATE {stage} SET {v} = {} || ' value ' || {}", l(words.word), words.column('w')))
            .await;
        let answer = resume::rejects(&database.connection, summary.run, "again").await.unwrap();
        let summary = drive(&database, answer).await;
        assert_eq!(
            (summary.status, summary.tally.counts.rejected),
            (Status::Complete, 0),
            "{:?}: {summary:?}",
            words.word
        );
        words.canary(&database).await;
        words.all_applied(&database).await.unwrap();
    }
}

#[tokio::test]
async fn change_indicators_orders_and_guards_are_values_and_columns() {
    for words in words() {
        let database = words.database().await;
        let [o, n, g, k, v] = ['o', 'n', 'g', 'k', 'v'].map(|letter| words.column(letter));
        let word = words.word;
        let more = json!({
            "changes": {"operation": o, "order": n, "guard": g, "insert": word, "update": format!("{word}U"), "delete": format!("{word}D")},
            "max_deletes": 100, "columns": {k.as_str(): format!("stage.{k}"), v.as_str(): format!("stage.{v}")},
        });
        let job = words.job("changes", more);
        let summary = words.run(&database, &job).await;
        let counts = summary.tally.counts;
        assert_eq!(
            (summary.status, counts.inserted, counts.updated, counts.deleted, counts.skipped),
            (Status::Complete, 15, 15, 5, 5),
            "{word:?}: {summary:?}"
        );
        // The guard keeps the order, and refuses all of them now.
        let summary = words.run(&database, &job).await;
        assert_eq!((summary.tally.counts.updated, summary.tally.counts.unchanged), (0, 30), "{word:?}: {summary:?}");
    }
}

#[tokio::test]
async fn own_ranges_and_statements_get_their_ends_as_values() {
    for words in words() {
        let database = words.database().await;
        let [stage, target] = ['s', 't'].map(|letter| words.table(letter));
        let [k, v] = ['k', 'v'].map(|letter| words.column(letter));
        // The ends are values of rows: what they hold was not written by the job's author.
        let query = format!(
            "SELECT min(x), max(x) FROM (SELECT {k} AS x, ntile(3) OVER (ORDER BY {k}) AS n FROM {stage}) s GROUP BY n"
        );
        let chunks = json!({"by": "sql", "column": k, "query": query});
        let [stage, target, k, v] = [&stage, &target, &k, &v].map(|name| in_a_statement(name));
        let statement = format!(
            "UPDATE {target} AS t SET {v} = stage.{v} FROM {stage} AS stage WHERE t.{k} = stage.{k} AND {{chunk}} AND stage.{k} BETWEEN {{start_id}} AND {{end_id}}"
        );
        let more = json!({"columns": null, "sql": [statement], "chunks": chunks, "target": {"key": []}});
        let summary = words.run(&database, &words.job("sql", more)).await;
        assert_eq!(
            (summary.status, summary.tally.counts.handed),
            (Status::Complete, 40),
            "{:?}: {summary:?}",
            words.word
        );
        assert_eq!(words.count(&database, &format!("{v} <> 'old'")).await, "20", "{:?}", words.word);
        let summary = words.run(&database, &words.job("upsert", json!({"chunks": chunks}))).await;
        assert_eq!((summary.status, summary.tally.chunks), (Status::Complete, 3), "{:?}: {summary:?}", words.word);
        words.all_applied(&database).await.unwrap();
    }
}

#[tokio::test]
async fn one_end_of_a_range_is_not_filled_into_the_other() {
    let database = Database::with(
        "CREATE TABLE public.canary (n int); INSERT INTO public.canary VALUES (1);
         CREATE FUNCTION public.harm() RETURNS text LANGUAGE plpgsql AS $$ BEGIN DELETE FROM public.canary; RETURN ''; END $$;
         CREATE TABLE stage (k text COLLATE pg_catalog.\"C\"); INSERT INTO stage VALUES ('{end_id}'), ('{end_id} || public.harm() || '), (' || public.harm() || '), ('{start_id}');
         CREATE TABLE target (k text);",
    )
    .await;
    for (query, rows) in [
        // Filled in once more, the second end would be code between the quotes of the first.
        ("SELECT '{end_id}', '|| public.harm() || '", "3"),
        ("SELECT k, k FROM stage", "4"),
        ("SELECT min(k), max(k) FROM stage", "4"),
    ] {
        database.execute("TRUNCATE target").await;
        let job = json!({
            "name": "ends", "stage": {"table": "stage"}, "target": {"table": "target"}, "operation": "sql",
            "sql": ["INSERT INTO target SELECT k FROM stage AS stage WHERE {chunk} AND k BETWEEN {start_id} AND {end_id}"],
            "chunks": {"by": "sql", "column": "k", "query": query},
        });
        let summary = database.run(&Job::parse(&job.to_string()).unwrap()).await;
        assert_eq!(database.value("SELECT count(*) FROM public.canary").await, "1", "{query}");
        assert_eq!(summary.status, Status::Complete, "{query}: {summary:?}");
        assert_eq!(database.value("SELECT count(*) FROM target").await, rows, "{query}");
    }
}

#[tokio::test]
async fn a_watermark_goes_by_its_column_and_an_overlap_is_a_value() {
    for words in words() {
        let database = words.database().await;
        let (stage, w) = (words.table('s'), words.column('w'));
        let watermark = |overlap: &str| words.job("upsert", json!({"watermark": {"column": w, "overlap": overlap}}));
        assert_eq!(words.run(&database, &watermark("3")).await.tally.counts.staged, 40);
        database
            .execute(&format!("INSERT INTO {stage} ({}, {w}) VALUES ({}, 60)", words.column('k'), l(words.word)))
            .await;
        let refused = database.plan(&watermark(&format!("3{}", words.word)), "refused").await;
        if words.word == " " {
            // A number with a blank behind it.
            continue;
        }
        let refused = refused.unwrap_err();
        assert_eq!(refused.class, Class::BadJob, "{refused:?}");
        assert!(refused.message().contains("watermark.overlap"), "{refused}");
        assert_eq!(words.run(&database, &watermark("3")).await.tally.counts.staged, 4, "{:?}", words.word);
    }
}

#[tokio::test]
async fn settings_are_values() {
    for words in words() {
        let database = words.database().await;
        for name in ["work_mem", "search_path", "TimeZone"] {
            let job = words.job("upsert", json!({"session": {name: words.word}}));
            // Some are good search paths.
            if let Err(refused) = check::job(&database.connection, &job).await.and_then(check::Checked::into_runnable) {
                assert!(refused.message().contains("session"), "{name} {:?}: {refused}", words.word);
            } else {
                assert_eq!(words.run(&database, &job).await.status, Status::Complete, "{name} {:?}", words.word);
            }
            words.canary(&database).await;
        }
    }
}

#[tokio::test]
async fn skipped_resumed_and_pruned_runs_keep_to_their_rows() {
    for words in words() {
        let database = words.database().await;
        let job = words.job("upsert", json!({}));
        let planned = database.planned(&job, "gone").await;
        let skipped = skip::chunks(&database.connection, planned.run, &[2]).await.unwrap();
        assert_eq!(skipped, [skip::Skipped { chunk: 2, rows: 10 }], "{:?}", words.word);
        let answer = resume::run(&database.connection, planned.run, "me", false).await.unwrap();
        let summary = drive(&database, answer).await;
        assert_eq!(
            (summary.status, summary.tally.counts.skipped),
            (Status::Complete, 10),
            "{:?}: {summary:?}",
            words.word
        );
        words.run(&database, &job).await;
        words.all_applied(&database).await.unwrap();
        let old = Old::than(&database.connection, std::time::Duration::ZERO, Some("injected".into())).await.unwrap();
        old.delete(&database.connection).await.unwrap();
        words.canary(&database).await;
        assert_eq!(database.value("SELECT count(*) FROM stagemill.run").await, "1", "{:?}", words.word);
    }
}

#[tokio::test]
async fn grants_name_the_role_and_the_objects_and_do_nothing_else() {
    for words in words() {
        let database = words.database().await;
        // Roles belong to the whole server.
        let role = words.name('r');
        database.execute(&format!("DROP ROLE IF EXISTS {0}; CREATE ROLE {0}", q(&role))).await;
        database.execute(&format!("REVOKE ALL ON SCHEMA {} FROM PUBLIC", q(words.word))).await;
        let statement = format!("DELETE FROM {} AS stage WHERE {{chunk}}", in_a_statement(&words.table('s')));
        let quarantine = json!({"on_bad_row": "quarantine", "max_rejects": 1, "stage_rows": "truncate"});
        for job in [words.job("upsert", quarantine), words.job("sql", json!({"columns": null, "sql": [statement], "target": {"key": []}, "chunks": {"column": words.column('k')}}))]
        {
            let (mapping, stage) = check::job(&database.connection, &job).await.unwrap().into_runnable().unwrap();
            let role = Ident::exact(role.as_str());
            let mut sql = grants::ledger(&role);
            sql.extend(grants::reader(&role));
            sql.extend(grants::job(&database.connection, &role, &mapping, &stage).await.unwrap());
            // As psql reads it: one after the other, all of it.
            database.execute(&sql.join("\n")).await;
            words.canary(&database).await;
        }
        let may = format!("SELECT has_table_privilege({}, {}, 'SELECT, UPDATE')", l(&role), l(&words.table('t')));
        assert_eq!(database.value(&may).await, "true", "{:?}", words.word);
        database.execute(&format!("DROP OWNED BY {0}; DROP ROLE {0}", q(&role))).await;
    }
}

#[tokio::test]
async fn a_slow_chunk_is_split_between_values_that_try() {
    for word in [WORDS[1], WORDS[5], WORDS[9]] {
        let words = Words { word };
        let database = words.database().await;
        database
            .execute(&format!(
                "CREATE FUNCTION public.slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.045); RETURN NEW; END $$;
                 CREATE TRIGGER {} BEFORE INSERT OR UPDATE ON {} FOR EACH ROW EXECUTE FUNCTION public.slow()",
                words.column('x'),
                words.table('t')
            ))
            .await;
        let query = format!("SELECT min({0}), max({0}) FROM {1}", words.column('k'), words.table('s'));
        for chunks in [json!({"rows": 100}), json!({"by": "sql", "query": query})] {
            let more = json!({"chunks": chunks, "session": {"statement_timeout": "1100ms"}});
            let summary = words.run(&database, &words.job("upsert", more)).await;
            assert_eq!(summary.status, Status::Complete, "{word:?}: {summary:?}");
            words.all_applied(&database).await.unwrap();
        }
        assert!(database.value("SELECT count(*) FROM stagemill.chunk WHERE state = 'SPLIT'").await != "0");
    }
}

#[tokio::test]
async fn names_that_postgresql_cannot_hold_are_refused_and_so_are_odd_job_names() {
    let long = format!("\"{}x\"", "漢".repeat(21));
    let job = |name: &str, table: &str| {
        let job = json!({"name": name, "stage": {"table": table}, "target": {"table": "t", "key": [table]}, "operation": "delete"});
        Job::parse(&job.to_string()).unwrap_err()
    };
    for (table, said) in [("\"a\0b\"", "NUL"), (long.as_str(), "64 bytes; PostgreSQL keeps 63")] {
        let findings = job("fine", table);
        let at: Vec<&str> = findings.iter().map(|finding| finding.at.as_str()).collect();
        assert_eq!(at, ["stage.table", "target.key"]);
        assert!(findings.iter().all(|finding| finding.fault.contains(said)), "{findings:?}");
    }
    for word in WORDS.into_iter().filter(|word| !["stage", "select", "a.b"].contains(word)) {
        assert!(job(word, "s")[0].fault.contains("not a job's name"), "{word:?}");
    }
}
