//! A local AWS for one test: the real state machine, the functions' real binaries, and Secrets Manager.
//!
//! [`Cloud::start`] starts the front under `tests/aws-local` (see `front.py`), which brings moto's Step Functions
//! interpreter and cargo-lambda's local API, and creates the state machine from `statemachine/apply.asl.json` through
//! the AWS SDK. Functions run as ordinary processes: started when they are called, one call at a time each, killed at
//! their time limit. Any number of clouds can run side by side; each has its own ports and folder.
//!
//! Everything ends with the [`Cloud`], or with the test process, however that ends.
//!
//! What this cloud can't show: `ToleratedFailurePercentage` (no failure ever ends a Map here), payload limits, IAM, and
//! retries that are counted anew when a state is entered again (here they are counted over a whole child execution).
#![allow(clippy::expect_used, clippy::panic, reason = "a harness fails its test by panicking")]

mod binaries;
mod execution;
mod front;
mod function;
mod invocation;

use aws_sdk_secretsmanager::config::{BehaviorVersion, Credentials, Region};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use binaries::binaries;
#[allow(unused_imports, reason = "for the signatures of helpers in tests")]
pub use execution::Outcome;
pub use execution::Status;
use front::Front;
pub use function::{FunctionName, Setup};
pub use invocation::{Fault, FunctionError, Invocation, most_in_flight};

const REGION: &str = "eu-central-1";
const ACCOUNT: &str = "123456789012";
const STATE_MACHINE: &str = "statemachine/apply.asl.json";

/// A running local AWS.
#[derive(Debug)]
pub struct Cloud {
    front: Front,
    states: aws_sdk_sfn::Client,
    secrets: aws_sdk_secretsmanager::Client,
    machine: String,
}

impl Cloud {
    /// Starts everything and creates the state machine.
    pub async fn start(setup: Setup) -> Self {
        let definition = definition(setup.execution_timeout);
        let front = tokio::task::spawn_blocking(move || Front::start(&setup))
            .await
            .expect("the front's starter does not panic");
        let states = aws_sdk_sfn::Client::from_conf(
            aws_sdk_sfn::Config::builder()
                .behavior_version(BehaviorVersion::latest())
                .region(Region::new(REGION))
                .endpoint_url(front.url())
                .credentials_provider(credentials())
                .build(),
        );
        let secrets = aws_sdk_secretsmanager::Client::from_conf(
            aws_sdk_secretsmanager::Config::builder()
                .behavior_version(BehaviorVersion::latest())
                .region(Region::new(REGION))
                .endpoint_url(front.url())
                .credentials_provider(credentials())
                .build(),
        );
        let machine = states
            .create_state_machine()
            .name("apply")
            .definition(definition)
            .role_arn(format!("arn:aws:iam::{ACCOUNT}:role/apply"))
            .send()
            .await
            .unwrap_or_else(|error| panic!("the state machine was refused: {error:?}"));
        Self { front, states, secrets, machine: machine.state_machine_arn }
    }

    /// Where AWS is, as `AWS_ENDPOINT_URL` names it.
    pub fn url(&self) -> String {
        self.front.url()
    }

    /// The state machine's ARN.
    pub fn machine(&self) -> &str {
        &self.machine
    }

    /// Creates a secret and answers with its ARN.
    pub async fn create_secret(&self, name: &str, value: &Value) -> String {
        let secret = self.secrets.create_secret().name(name).secret_string(value.to_string()).send().await;
        secret.expect("the secret can be created").arn.expect("a secret has an ARN")
    }

    /// Gives a secret a new value, as a rotation does.
    pub async fn put_secret(&self, arn: &str, value: &Value) {
        let put = self.secrets.put_secret_value().secret_id(arn).secret_string(value.to_string()).send().await;
        put.expect("the secret can be changed");
    }

    /// Changes the environment of all functions. As on Lambda, processes that are already busy keep theirs.
    pub async fn set_environment(&self, variables: &[(&str, &str)]) {
        let variables: BTreeMap<_, _> = variables.iter().copied().collect();
        self.front.hook("environment", &json!(variables)).await;
    }

    /// Calls a function directly, as `EventBridge` would.
    pub async fn invoke(&self, function: FunctionName, payload: &Value) -> Result<Value, FunctionError> {
        self.front.invoke(&function.versioned_arn(), payload).await
    }

    /// All calls of functions so far, in the order of their start.
    pub async fn invocations(&self) -> Vec<Invocation> {
        let all = self.front.hook("invocations", &Value::Null).await;
        serde_json::from_value(all).expect("the front's record has the shape of Invocation")
    }

    /// Lets the next `times` calls of a function go wrong.
    pub async fn play(&self, function: FunctionName, fault: Fault, times: u32) {
        self.front.hook("faults", &json!({ "function": function, "fault": fault, "times": times })).await;
    }

    /// How many faults still wait for a call of the function.
    pub async fn waiting(&self, function: FunctionName) -> u64 {
        self.front.hook("waiting", &json!({ "function": function })).await.as_u64().unwrap_or(0)
    }

    /// The calls of a function that are being served.
    pub async fn in_flight(&self, function: FunctionName) -> Vec<Invocation> {
        let calls = self.front.hook("in_flight", &json!({ "function": function })).await;
        serde_json::from_value(calls).expect("the front's record has the shape of Invocation")
    }

    /// Kills a process of the function that is serving a call, with SIGKILL. False if none is.
    pub async fn kill_busy(&self, function: FunctionName) -> bool {
        let pid = self.in_flight(function).await.first().and_then(|call| i32::try_from(call.pid).ok());
        pid.is_some_and(|pid| kill(Pid::from_raw(pid), Signal::SIGKILL).is_ok())
    }

    /// Everything that the processes of a function wrote to standard output and standard error.
    pub fn logs(&self, function: FunctionName) -> String {
        let prefix = format!("{}-", function.name());
        self.front.texts(|name| name.starts_with(&prefix) && has_extension(name, "log"))
    }
}

fn has_extension(name: &str, extension: &str) -> bool {
    Path::new(name).extension().is_some_and(|found| found == extension)
}

/// The root of the repository.
pub fn repository() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.ancestors().find(|folder| folder.join(STATE_MACHINE).exists()).expect("inside the repository").to_owned()
}

/// The state machine as the template would deploy it.
fn definition(timeout: Duration) -> String {
    let text = std::fs::read_to_string(repository().join(STATE_MACHINE)).expect("the state machine's file is there");
    FunctionName::ALL
        .iter()
        .fold(text, |text, function| text.replace(function.placeholder(), &function.versioned_arn()))
        .replace("${ExecutionTimeoutSeconds}", &timeout.as_secs().to_string())
        .replace("${Partition}", "aws")
        .replace(r#""Seconds": 30"#, r#""Seconds": 1"#)
}

fn credentials() -> Credentials {
    Credentials::new("test", "test", None, None, "the tests' own")
}
