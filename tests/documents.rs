//! What the documents show is true.

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

#[test]
fn every_test_that_the_architecture_names_is_there() {
    let architecture = std::fs::read_to_string(repository().join("ARCHITECTURE.md")).unwrap();
    for file in [
        "tests/engine/fence.rs",
        "tests/engine/oracle.rs",
        "tests/aws/contract.rs",
        "tests/aws/repeats.rs",
        "crates/cli/tests/killed.rs",
    ] {
        assert!(architecture.contains(file) && repository().join(file).exists(), "{file}");
    }
    let sources = ["tests/engine/runs.rs", "tests/engine/fence.rs", "crates/engine/src/failure.rs"]
        .map(|file| std::fs::read_to_string(repository().join(file)).unwrap());
    for test in [
        "an_owner_that_asks_again_gets_the_same_answer",
        "the_zombie_of_a_resumed_run_is_refused_too",
        "only_the_ledger_sees_the_servers_words",
    ] {
        assert!(architecture.contains(test) && sources.iter().any(|source| source.contains(test)), "{test}");
    }
}
