//! Executions on AWS: starting, looking at and stopping them, and what its errors mean.

use std::time::{SystemTime, UNIX_EPOCH};

use aws_config::{BehaviorVersion, Region};
use aws_sdk_sfn::{
    Client,
    config::ProvideCredentials,
    error::{DisplayErrorContext, ProvideErrorMetadata, SdkError},
    types::ExecutionStatus,
};
use serde_json::Value as Json;

use crate::exit::CliError;

/// AWS Step Functions in one region.
pub(crate) struct States {
    client: Client,
}

/// How an execution stands.
#[derive(Debug)]
pub(crate) struct Execution {
    pub(crate) status: ExecutionStatus,
    /// Of one that failed: the error's name.
    pub(crate) error: Option<String>,
    /// Of one that failed: what happened and what to do.
    pub(crate) cause: Option<String>,
    /// Of one that succeeded: the last answer of planner or recorder.
    pub(crate) output: Option<Json>,
}

impl Execution {
    pub(crate) fn is_running(&self) -> bool {
        matches!(self.status, ExecutionStatus::Running | ExecutionStatus::PendingRedrive)
    }
}

impl States {
    /// Step Functions where an ARN is, with the credentials that are found here.
    pub(crate) async fn of(arn: &str) -> Result<Self, CliError> {
        let mut parts = arn.split(':');
        let (Some("arn"), Some(_), Some("states"), Some(region)) =
            (parts.next(), parts.next(), parts.next(), parts.next().filter(|region| !region.is_empty()))
        else {
            return Err(CliError::Usage(format!(
                "{arn:?} is not an ARN of Step Functions, which begins with arn:aws:states: and a region"
            )));
        };
        let config =
            aws_config::defaults(BehaviorVersion::latest()).region(Region::new(region.to_owned())).load().await;
        let found = match config.credentials_provider() {
            Some(provider) => provider
                .provide_credentials()
                .await
                .map(|_| ())
                .map_err(|error| DisplayErrorContext(&error).to_string()),
            None => Err("no provider is set up".to_owned()),
        };
        found.map_err(|error| {
            CliError::Connect(format!(
                "there are no AWS credentials here: set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run where a role is attached ({error})"
            ))
        })?;
        Ok(Self { client: Client::new(&config) })
    }

    /// Starts an execution and answers with its ARN.
    pub(crate) async fn start(&self, machine: &str, about: &str, input: &Json) -> Result<String, CliError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        // Of what a job's name may hold, only a point makes trouble: in names of executions that are logged.
        let name = format!("{}-{now}", about.replace('.', "-"));
        let call = self.client.start_execution().state_machine_arn(machine).name(name);
        let started = call.input(input.to_string()).send().await;
        Ok(started.map_err(|error| in_words(&error, "states:StartExecution", machine))?.execution_arn)
    }

    /// How an execution stands.
    pub(crate) async fn look(&self, execution: &str) -> Result<Execution, CliError> {
        let described = self.client.describe_execution().execution_arn(execution).send().await;
        let described = described.map_err(|error| in_words(&error, "states:DescribeExecution", execution))?;
        Ok(Execution {
            status: described.status,
            error: described.error,
            cause: described.cause,
            output: described.output.and_then(|output| serde_json::from_str(&output).ok()),
        })
    }

    /// Ends an execution from outside.
    pub(crate) async fn stop(&self, execution: &str, cause: &str) -> Result<(), CliError> {
        let call = self.client.stop_execution().execution_arn(execution).error("Stagemill.Stopped").cause(cause);
        call.send().await.map_err(|error| in_words(&error, "states:StopExecution", execution))?;
        Ok(())
    }
}

/// An error of AWS, with what is missing.
fn in_words<E, R>(error: &SdkError<E, R>, permission: &str, arn: &str) -> CliError
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
    R: std::fmt::Debug,
{
    let said = error.message().unwrap_or_default();
    match error.code() {
        Some("AccessDeniedException" | "AccessDenied") => CliError::Connect(format!(
            "these AWS credentials may not do this: they need the permission {permission} on {arn} ({said})"
        )),
        Some(
            "UnrecognizedClientException" | "ExpiredTokenException" | "ExpiredToken" | "InvalidSignatureException",
        ) => CliError::Connect(format!("AWS refuses the credentials: have they expired? log in again ({said})")),
        Some("StateMachineDoesNotExist") => {
            CliError::Usage(format!("there is no state machine {arn}: the stack's output StateMachineArn names it"))
        }
        Some("ExecutionDoesNotExist") => CliError::Usage(format!(
            "there is no execution {arn}: it never was, or ended more than 90 days ago; `stagemill status` has its runs"
        )),
        Some("InvalidArn") => {
            CliError::Usage(format!("{arn:?} is not an ARN of the kind that is wanted here ({said})"))
        }
        Some(code) => CliError::Connect(format!("{permission} on {arn} failed: {code}: {said}")),
        None => {
            CliError::Connect(format!("AWS can't be reached for {permission} on {arn}: {}", DisplayErrorContext(error)))
        }
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_sfn::{error::ErrorMetadata, operation::start_execution::StartExecutionError};

    use super::*;
    use crate::exit::Exit;

    #[test]
    fn what_aws_refuses_is_said_with_the_permission_that_is_missing() {
        for (code, exit, fragment) in [
            ("AccessDeniedException", Exit::CannotConnect, "need the permission states:StartExecution on arn:one"),
            ("ExpiredTokenException", Exit::CannotConnect, "have they expired"),
            ("StateMachineDoesNotExist", Exit::BadJob, "no state machine arn:one"),
            ("ThrottlingException", Exit::CannotConnect, "ThrottlingException: its own words"),
        ] {
            let said = ErrorMetadata::builder().code(code).message("its own words").build();
            let error = SdkError::service_error(StartExecutionError::generic(said), ());
            let error = in_words(&error, "states:StartExecution", "arn:one");
            assert_eq!(error.exit(), exit, "{error}");
            assert!(error.to_string().contains(fragment), "{error}");
        }
    }
}
