//! The state machine names the engine's classes; the engine alone decides which of them are retryable.

use std::collections::BTreeSet;

use stagemill_engine::failure::Class;

use super::cloud::repository;

/// The errors with this beginning that a state's Retry entries name, each once.
fn retried_as(definition: &str, state: &str, beginning: &str) -> BTreeSet<String> {
    // The time limit is a number only after substitution.
    let definition = definition.replace("${ExecutionTimeoutSeconds}", "1");
    let definition: serde_json::Value = serde_json::from_str(&definition).unwrap();
    let states = &definition["States"];
    let state = if state == "Execute" { &states["Apply"]["ItemProcessor"]["States"][state] } else { &states[state] };
    let entries = state["Retry"].as_array().unwrap().iter();
    let names = entries
        .flat_map(|entry| entry["ErrorEquals"].as_array().unwrap())
        .map(|name| name.as_str().unwrap().to_owned());
    let names: Vec<String> = names.filter(|name| name.starts_with(beginning)).collect();
    let once: BTreeSet<String> = names.iter().cloned().collect();
    assert_eq!(names.len(), once.len(), "{state}: {names:?}");
    once
}

#[test]
fn every_task_retries_exactly_what_the_engine_calls_retryable() {
    let definition = std::fs::read_to_string(repository().join("statemachine/apply.asl.json")).unwrap();
    let retryable: BTreeSet<String> =
        Class::ALL.into_iter().filter(|class| class.is_retryable()).map(Class::error_name).collect();
    for state in ["Plan", "Execute", "Record", "RecordPlanFailure"] {
        assert_eq!(retried_as(&definition, state, "Stagemill."), retryable, "{state}");
    }
}

/// AWS's own errors that pass by themselves, beside those that its guides name for each call of a function.
#[test]
fn every_task_waits_for_a_function_that_was_idle_and_for_a_free_slot() {
    let definition = std::fs::read_to_string(repository().join("statemachine/apply.asl.json")).unwrap();
    for state in ["Plan", "Execute", "Record", "RecordPlanFailure"] {
        let names = retried_as(&definition, state, "Lambda.");
        for name in [
            "CodeArtifactUserPending",
            "ResourceNotReady",
            "ResourceConflict",
            "ENINotReady",
            "EC2Throttled",
            "EC2Unexpected",
            "KMSThrottling",
            "TooManyRequests",
        ] {
            assert!(names.contains(&format!("Lambda.{name}Exception")), "{state} {name}");
        }
    }
}

/// A number of a parameter in the template.
fn parameter(template: &str, name: &str, property: &str) -> u64 {
    let of_it = template.split_once(&format!("\n  {name}:\n")).unwrap().1;
    let number = of_it.split_once(&format!("    {property}: ")).unwrap().1.lines().next().unwrap();
    number.parse().unwrap()
}

#[test]
fn a_recorder_has_the_time_that_recording_takes_and_its_task_has_more() {
    let template = std::fs::read_to_string(repository().join("template.yaml")).unwrap();
    let definition = std::fs::read_to_string(repository().join("statemachine/apply.asl.json")).unwrap();
    let definition: serde_json::Value =
        serde_json::from_str(&definition.replace("${ExecutionTimeoutSeconds}", "1")).unwrap();
    let longest = stagemill_engine::record::LONGEST.as_secs();
    assert!(parameter(&template, "RecorderTimeout", "MinValue") > longest);
    for state in ["Record", "RecordPlanFailure"] {
        let task = definition["States"][state]["TimeoutSeconds"].as_u64().unwrap();
        assert!(task > parameter(&template, "RecorderTimeout", "MaxValue"), "{state}");
    }
}
