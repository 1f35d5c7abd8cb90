//! What may be typed about executions on AWS.

use clap::{Args as ClapArgs, builder::NonEmptyStringValueParser};

use super::Changes;

#[derive(Debug, ClapArgs)]
pub(crate) struct MachineArgs {
    /// The state machine: the stack's output StateMachineArn
    #[arg(long, env = "STAGEMILL_STATE_MACHINE", value_name = "ARN", help_heading = "AWS")]
    pub(crate) state_machine: Option<String>,
}

const START_HELP: &str = "\
Examples:
  stagemill start sm_account --wait                  follows it to its end
  stagemill start sm_account sm_billinfo             one after the other; the second only if the first succeeds
  stagemill start sm_account --parallelism 8         with fewer chunks at a time than its job says

Credentials come from where the AWS command line takes them; the region is the ARN's. A start while a run of the job is open makes
one more follow it.";

#[derive(Debug, ClapArgs)]
#[command(after_help = START_HELP)]
pub(crate) struct StartArgs {
    /// Jobs of the job table, in the order in which they run
    #[arg(required = true, value_name = "JOB", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) jobs: Vec<String>,
    #[command(flatten)]
    pub(crate) changes: Changes,
    /// Follow the execution to its end, and end with its code
    #[arg(long)]
    pub(crate) wait: bool,
    #[command(flatten)]
    pub(crate) machine: MachineArgs,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

const WATCH_HELP: &str = "\
Examples:
  stagemill watch arn:aws:states:eu-central-1:123456789012:execution:apply:orders-1764123456789

Ctrl-C ends the watching, not the execution. Without a way to the ledger the execution's state is shown alone. Exit code 0 when it
SUCCEEDED, 5 when it left its work to the execution of an open run (Coalesced), else 1.";

#[derive(Debug, ClapArgs)]
#[command(after_help = WATCH_HELP)]
pub(crate) struct WatchArgs {
    /// The execution's ARN
    #[arg(value_name = "EXECUTION")]
    pub(crate) execution: String,
    /// Print JSON at its end
    #[arg(long)]
    pub(crate) json: bool,
}
