//! Executions of the state machine.

use super::Cloud;
use aws_sdk_sfn::types::ExecutionStatus;
use serde_json::Value;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// No execution of a test takes longer.
const PATIENCE: Duration = Duration::from_mins(3);

/// How an execution ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Status {
    /// SUCCEEDED.
    Succeeded,
    /// FAILED.
    Failed,
    /// `TIMED_OUT`.
    TimedOut,
    /// ABORTED.
    Aborted,
}

/// What an execution left.
#[derive(Clone, Debug)]
#[allow(dead_code, reason = "all of it is in the message of a test that fails")]
pub struct Outcome {
    /// How it ended.
    pub status: Status,
    /// The error's name, when it failed.
    pub error: Option<String>,
    /// The error's cause, when it failed.
    pub cause: Option<String>,
    /// The output, when it succeeded.
    pub output: Option<Value>,
}

impl Cloud {
    /// Starts an execution and answers with its ARN.
    pub async fn start_execution(&self, input: &Value) -> String {
        // moto gives all that have no name the same one.
        static STARTED: AtomicU64 = AtomicU64::new(1);
        let name = format!("test-{}-{}", std::process::id(), STARTED.fetch_add(1, Ordering::Relaxed));
        let start = self.states.start_execution().state_machine_arn(&self.machine).name(name);
        let started = start.input(input.to_string()).send().await;
        started.unwrap_or_else(|error| panic!("the execution was refused: {error:?}")).execution_arn
    }

    /// Starts an execution and waits for its end.
    pub async fn run(&self, input: &Value) -> Outcome {
        let execution = self.start_execution(input).await;
        self.wait(&execution).await
    }

    /// Waits for an execution's end, but not for ever.
    pub async fn wait(&self, execution: &str) -> Outcome {
        let limit = Instant::now() + PATIENCE;
        loop {
            if let Some(outcome) = self.outcome(execution).await {
                return outcome;
            }
            let late = Instant::now() > limit;
            assert!(!late, "{execution} did not end in {PATIENCE:?}:\n{}", self.history(execution).await);
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }

    /// How the execution ended, if it has.
    pub async fn outcome(&self, execution: &str) -> Option<Outcome> {
        let described = self.states.describe_execution().execution_arn(execution).send().await;
        let described = described.unwrap_or_else(|error| panic!("{execution} can't be described: {error:?}"));
        let status = match described.status {
            ExecutionStatus::Succeeded => Status::Succeeded,
            ExecutionStatus::Failed => Status::Failed,
            ExecutionStatus::TimedOut => Status::TimedOut,
            ExecutionStatus::Aborted => Status::Aborted,
            _ => return None,
        };
        let output = described.output.and_then(|output| serde_json::from_str(&output).ok());
        Some(Outcome { status, error: described.error, cause: described.cause, output })
    }

    /// Stops an execution as a person would. It may take a moment until it has ended: wait for it.
    pub async fn stop_execution(&self, execution: &str) {
        let stopped = self.states.stop_execution().execution_arn(execution).send().await;
        stopped.unwrap_or_else(|error| panic!("{execution} can't be stopped: {error:?}"));
    }

    /// The names of the states that the execution entered. Those of a Map's children are not among them.
    pub async fn states(&self, execution: &str) -> Vec<String> {
        let events = self.events(execution).await;
        events.into_iter().filter_map(|event| event.state_entered_event_details).map(|state| state.name).collect()
    }

    /// The execution's history as text, a line an event: for the message of a test that fails.
    pub async fn history(&self, execution: &str) -> String {
        self.events(execution).await.iter().fold(String::new(), |mut text, event| {
            let name = event.state_entered_event_details().map_or("", |state| state.name());
            let failure = event.task_failed_event_details();
            let error = failure.and_then(|failure| failure.error()).unwrap_or_default();
            let cause = failure.and_then(|failure| failure.cause()).unwrap_or_default();
            let _ = writeln!(text, "{:>4} {} {name}{error} {cause}", event.id, event.r#type.as_str());
            text
        })
    }

    async fn events(&self, execution: &str) -> Vec<aws_sdk_sfn::types::HistoryEvent> {
        let pages = self.states.get_execution_history().execution_arn(execution).into_paginator().items().send();
        pages.collect::<Result<_, _>>().await.unwrap_or_else(|error| panic!("{execution} has no history: {error:?}"))
    }
}
