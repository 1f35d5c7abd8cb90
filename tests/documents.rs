//! What the documents show is true.

mod jobs;
mod sql;

use stagemill_engine::job::Job;

use crate::aws::cloud::repository;

/// The fenced blocks of a language in a Markdown text.
fn blocks<'a>(markdown: &'a str, language: &str) -> Vec<&'a str> {
    let fence = format!("```{language}\n");
    markdown.split(fence.as_str()).skip(1).filter_map(|rest| rest.split("```").next()).collect()
}

#[test]
fn every_job_in_the_readme_is_a_job() {
    let readme = std::fs::read_to_string(repository().join("README.md")).unwrap();
    let jobs: Vec<&str> = blocks(&readme, "json").into_iter().filter(|block| block.contains("\"name\"")).collect();
    assert!(jobs.len() >= 3, "{} jobs in the README", jobs.len());
    for text in jobs {
        assert!(Job::parse(text).is_ok(), "{:?}\n{text}", Job::parse(text).err());
    }
}

/// The words of a text that stand in backticks.
fn quoted(markdown: &str) -> impl Iterator<Item = &str> {
    markdown.split('`').skip(1).step_by(2)
}

fn source(file: &str) -> String {
    std::fs::read_to_string(repository().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

#[test]
fn every_file_and_test_that_the_architecture_names_is_there() {
    let architecture = source("ARCHITECTURE.md");
    let tested = ["tests", "tests/engine", "tests/aws", "tests/fuzz", "tests/documents", "crates/cli/tests"]
        .iter()
        .flat_map(|folder| std::fs::read_dir(repository().join(folder)).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .chain(["account.rs", "failure.rs", "outcome.rs"].map(|file| repository().join("crates/engine/src").join(file)))
        .map(|path| std::fs::read_to_string(path).unwrap())
        .collect::<String>();
    let (mut files, mut tests) = (0, 0);
    for word in quoted(&architecture) {
        if word.contains("tests/") && word.ends_with(".rs") {
            assert!(repository().join(word).exists(), "{word}");
            files += 1;
        } else if word.matches('_').count() >= 4 && !word.contains(['.', '(']) {
            // A long name may be cut with an ellipsis.
            assert!(tested.contains(&format!("fn {}", word.trim_end_matches('…'))), "{word}");
            tests += 1;
        }
    }
    assert!(files >= 5 && tests >= 4, "{files} files, {tests} tests");
}

#[test]
fn every_variable_that_a_function_reads_stands_in_the_template() {
    let template = source("template.yaml");
    let read = [
        "crates/lambda/src/secret.rs",
        "crates/lambda/src/deadline.rs",
        "crates/lambda/src/metric.rs",
        "functions/planner/src/jobs.rs",
        "functions/recorder/src/alarm.rs",
    ]
    .map(source)
    .concat();
    let names: Vec<&str> = ["variable(\"", "env::var(\""]
        .iter()
        .flat_map(|call| read.split(call).skip(1).filter_map(|rest| rest.split('"').next()))
        .collect();
    assert!(names.len() >= 10, "{names:?}");
    for name in names {
        assert!(template.contains(&format!("{name}:")), "{name}");
    }
}

#[test]
fn every_error_has_a_remedy_in_the_readme() {
    let readme = source("README.md");
    let table = readme.split_once("\n## Troubleshooting").unwrap().1.split("\n## ").next().unwrap();
    for class in stagemill_engine::failure::Class::ALL {
        assert!(table.contains(&format!("\n| `{class:?}` |")), "{} is not in the table", class.error_name());
    }
}

#[test]
fn the_engine_knows_neither_aws_nor_clap() {
    let manifest = source("crates/engine/Cargo.toml");
    assert!(!["aws", "lambda", "clap"].iter().any(|name| manifest.contains(name)), "{manifest}");
}

#[test]
fn names_and_literals_are_quoted_in_one_place() {
    let mut folders = vec![repository().join("crates"), repository().join("functions")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs")
                && !path.ends_with("engine/src/ident.rs")
            {
                let text = std::fs::read_to_string(&path).unwrap();
                assert!(!text.contains("escape_identifier") && !text.contains("escape_literal"), "{}", path.display());
            }
        }
    }
}
