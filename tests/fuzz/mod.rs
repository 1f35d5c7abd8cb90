//! What reads input reads anything: no panic, no hang, an error that says what is wrong and what to do, and what is accepted is kept as it was.
//!
//! The requests of planner and recorder are tested in their packages. `corpus` holds inputs that once were trouble, or might be.

mod job;
mod names;
mod statements;

use std::{fs, path::Path};

use proptest::{collection::vec, prelude::*, test_runner::TestCaseError};
use serde_json::{Value, json};
use stagemill_engine::{
    finding::{Finding, Severity},
    ident::{Ident, TableName},
    job::{Job, Limit},
    settings::{self, Settings},
};
use stagemill_fuzz::{
    is_fit_to_be_read,
    json::{self as odd, mutation, with_a_field_twice},
    run,
    text::{any_text, splice},
};

/// What a job's fields are called, at every level.
const FIELDS: [&str; 44] = [
    "name",
    "stage",
    "target",
    "operation",
    "existing",
    "columns",
    "changes",
    "sql",
    "max_deletes",
    "skip_unchanged",
    "watermark",
    "stage_rows",
    "on_bad_row",
    "max_rejects",
    "verify",
    "chunks",
    "parallelism",
    "retry",
    "session",
    "share_tables",
    "table",
    "where",
    "key",
    "insert",
    "update",
    "delete",
    "guard",
    "order",
    "column",
    "overlap",
    "by",
    "rows",
    "query",
    "attempts",
    "rounds",
    "work_mem",
    "TimeZone",
    "timezone",
    "statement_timeout",
    "search_path",
    "id",
    "after",
    "tombstone",
    "deadline",
];

/// Says of a job file whether it is accepted, once all that has to hold was looked at.
fn reads_well(text: &str) -> Result<bool, TestCaseError> {
    match Job::parse(text) {
        Ok(job) => kept_as_it_was(&job).map(|()| true),
        Err(findings) => say_what_is_wrong(&findings).map(|()| false),
    }
}

fn say_what_is_wrong(findings: &[Finding]) -> Result<(), TestCaseError> {
    prop_assert!(!findings.is_empty(), "refused without a word");
    for finding in findings {
        prop_assert_eq!(finding.severity, Severity::Error);
        for part in [&finding.at, &finding.fault, &finding.remedy] {
            is_fit_to_be_read(part)?;
        }
    }
    // A Lambda's error: Step Functions cuts it off behind 32,768 characters, and a function can't answer with more than 6 MB.
    is_fit_to_be_read(&stagemill_engine::finding::join(findings))
}

fn kept_as_it_was(job: &Job) -> Result<(), TestCaseError> {
    let value = job.to_value();
    prop_assert_eq!(Job::from_value(value.clone()), Ok(job.clone()));
    prop_assert_eq!(Job::parse(&value.to_string()), Ok(job.clone()));
    // Neither text nor jsonb holds one.
    prop_assert!(!value.to_string().contains("\\u0000"), "the ledger can't store it: {value}");
    prop_assert!(TableName::parse(&job.stage.table).is_ok() && TableName::parse(&job.target.table).is_ok());
    for key in &job.target.key {
        prop_assert!(Ident::parse(key).is_ok());
    }
    let mut findings = Vec::new();
    settings::examine(&job.session, &mut findings);
    prop_assert_eq!(findings, []);
    for limit in [&job.max_deletes, &job.max_rejects].into_iter().flatten() {
        prop_assert!(limit.is_valid());
    }
    Ok(())
}

#[test]
fn a_right_job_is_accepted_and_kept_as_it_was() {
    run("right jobs", 300, job::right(), |job| {
        prop_assert!(reads_well(&job.to_string())?, "{:?}", Job::parse(&job.to_string()));
        Ok(true)
    });
}

#[test]
fn a_job_that_is_wrong_somewhere_is_read_or_refused_with_a_reason() {
    run("jobs with wrong fields", 800, (job::right(), vec(mutation(&FIELDS), 1..4)), |(mut job, mutations)| {
        mutations.iter().for_each(|mutation| mutation.apply(&mut job));
        let as_text = reads_well(&job.to_string())?;
        // An execution's input was parsed by somebody else.
        match Job::from_value(job) {
            Ok(job) => kept_as_it_was(&job)?,
            Err(findings) => {
                prop_assert!(!as_text, "{findings:?}");
                say_what_is_wrong(&findings)?;
            }
        }
        Ok(as_text)
    });
}

#[test]
fn a_damaged_job_file_is_read_or_refused_with_a_reason() {
    run("damaged job files", 400, (job::right(), vec(splice(), 1..4), any::<bool>()), |(job, splices, pretty)| {
        let mut text = if pretty { format!("{job:#}") } else { job.to_string() };
        splices.iter().for_each(|splice| splice.apply(&mut text));
        reads_well(&text)
    });
}

#[test]
fn a_field_that_is_there_twice_is_refused() {
    run("fields that are there twice", 100, (job::right(), any::<usize>()), |(job, which)| {
        let text = job.as_object().and_then(|fields| with_a_field_twice(fields, which)).unwrap_or_default();
        prop_assert!(!reads_well(&text)?, "{text}");
        Ok(false)
    });
    for (inside, path) in [
        (r#""columns": {"id": "stage.id", "id": "0"}"#, "id"),
        (r#""session": {"work_mem": "1MB", "work_mem": "9MB"}"#, "work_mem"),
        (r#""session": {"TimeZone": "UTC", "timezone": "CET"}"#, "timezone"),
    ] {
        let text = format!(
            r#"{{"name": "a", "stage": {{"table": "s"}}, "target": {{"table": "t", "key": ["id"]}}, "operation": "upsert", {inside}}}"#
        );
        let findings = Job::parse(&text).unwrap_err();
        assert!(stagemill_engine::finding::join(&findings).contains(path), "{findings:?}");
    }
}

#[test]
fn a_limit_is_a_number_of_rows_whatever_is_written() {
    let inputs = prop_oneof![odd::value(), "[ +-]?[0-9]{0,4}([.][0-9]{0,3})?(e[0-9]{1,3})? ?%?".prop_map(Value::from)];
    run("limits", 400, (inputs, any::<i64>()), |(value, staged)| {
        let Ok(limit) = serde_json::from_value::<Limit>(value.clone()) else { return Ok(false) };
        if !limit.is_valid() {
            return Ok(false);
        }
        prop_assert_eq!(&serde_json::to_value(&limit).unwrap(), &value);
        let staged = staged.saturating_abs();
        let rows = limit.rows(staged);
        prop_assert!(rows >= 0 && (!limit.is_share() || rows <= staged), "{limit} of {staged}: {rows}");
        Ok(true)
    });
}

#[test]
fn settings_are_taken_from_the_list_and_stay_values() {
    let name = prop_oneof![
        3 => prop::sample::select(&["work_mem", "TimeZone", "DateStyle", "search_path", "lock_timeout", "Statement_Timeout"][..])
            .prop_map(str::to_owned),
        1 => any_text(),
    ];
    run("settings", 400, vec((name, any_text()), 0..4), |pairs| {
        let session: Settings = pairs.into_iter().collect();
        let mut findings = Vec::new();
        settings::examine(&session, &mut findings);
        if !findings.is_empty() {
            say_what_is_wrong(&findings)?;
            return Ok(false);
        }
        let sql = settings::set_local(&session, std::time::Duration::from_secs(60));
        let code = stagemill_fuzz::sql::skeleton(&sql).map_err(TestCaseError::fail)?;
        for line in code.lines() {
            prop_assert_eq!(line, "SELECT pg_catalog.set_config(?, ?, true);");
        }
        Ok(true)
    });
}

#[test]
fn the_corpus_is_read_or_refused_with_a_reason() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/jobs");
    let mut read = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let accepted = reads_well(&String::from_utf8_lossy(&fs::read(&path).unwrap()));
        // `right-` and `wrong-` in a file's name say which it is.
        let expected = path.file_name().unwrap().to_str().unwrap().starts_with("right-");
        assert_eq!(accepted.unwrap(), expected, "{}", path.display());
        read += 1;
    }
    assert!(read >= 20, "{read}");
    assert!(!reads_well(&json!([1]).to_string()).unwrap());
}
