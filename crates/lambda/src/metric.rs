//! Metrics, as lines in CloudWatch's embedded metric format on standard output: no way out of the VPC is needed.

use std::time::Duration;

use metrics::Unit;
use metrics_cloudwatch_embedded::{Builder, Collector};
use stagemill_engine::{
    failure::{Class, Failure},
    ledger::summary::Summary,
};

use crate::secret::variable;

/// The metrics' namespace. Each is written for the stack, on which alarms look, and for the job of the stack.
const NAMESPACE: &str = "stagemill";

/// Where metrics are written.
pub struct Metrics {
    collector: &'static Collector,
}

impl Metrics {
    /// The process's metrics.
    ///
    /// # Errors
    /// When the process has others already.
    pub fn new() -> Result<Self, Failure> {
        let collector = Builder::new()
            .cloudwatch_namespace(NAMESPACE)
            .with_dimension("stack", variable("STACK_NAME").unwrap_or_else(|| NAMESPACE.to_owned()))
            .init()
            .map_err(|error| Failure::new(Class::Internal, format!("metrics can't be set up: {error}")))?;
        // With LogFormat JSON a line without a level may be filtered out.
        collector.set_property("level", "INFO").set_property("message", "run metrics");
        metrics::describe_histogram!("RunSeconds", Unit::Seconds, "from start to end");
        metrics::describe_histogram!("HeldSeconds", Unit::Seconds, "held back, of them");
        metrics::describe_histogram!("DeadlineUsed", Unit::Percent, "of the time until the deadline");
        metrics::describe_histogram!("RowsPerSecond", Unit::CountPerSecond, "staged rows, over the whole run");
        Ok(Self { collector })
    }

    /// Writes the metrics of a run that has ended.
    pub fn run_ended(&self, run: &Summary) {
        let counts = &run.tally.counts;
        for (name, value) in [
            ("RunsEnded", 1),
            ("RunsFailed", i64::from(!run.status.is_success())),
            ("SlaMissed", i64::from(run.deadline_met == Some(false))),
            ("RowsStaged", counts.staged),
            ("RowsInserted", counts.inserted),
            ("RowsUpdated", counts.updated),
            ("RowsDeleted", counts.deleted),
            ("RowsUnchanged", counts.unchanged),
            ("RowsSkipped", counts.skipped),
            ("RowsRejected", counts.rejected),
            ("ChunksProcessed", run.tally.processed),
            ("ChunksFailed", run.tally.failed + run.tally.left),
            ("ChunkRetries", run.tally.retries),
        ] {
            count(&run.job, name, u64::try_from(value).unwrap_or(0));
        }
        measure(&run.job, "RunSeconds", run.seconds);
        measure(&run.job, "HeldSeconds", run.held_seconds);
        if run.seconds > 0.0 {
            #[allow(clippy::cast_precision_loss, reason = "a rate needs no more than 15 digits")]
            measure(&run.job, "RowsPerSecond", counts.staged as f64 / run.seconds);
        }
        // Late by nothing: the time from the start to the deadline was used up exactly.
        if let Some(late) = run.late_seconds.filter(|late| run.seconds > *late) {
            measure(&run.job, "DeadlineUsed", 100.0 * run.seconds / (run.seconds - late));
        }
        self.flush(run.run);
    }

    /// Writes that a run will probably miss its deadline.
    pub fn at_risk(&self, run: i64, job: &str, late: Duration) {
        count(job, "SlaAtRisk", 1);
        measure(job, "SecondsLate", late.as_secs_f64());
        self.flush(run);
    }

    /// A failure to write is logged: the log table is the record.
    fn flush(&self, run: i64) {
        self.collector.set_property("run", run);
        if let Err(error) = self.collector.flush(std::io::stdout().lock()) {
            tracing::warn!(run, "the run's metrics could not be written: {error}");
        }
    }
}

fn count(job: &str, name: &'static str, value: u64) {
    metrics::counter!(name).increment(value);
    metrics::counter!(name, "job" => job.to_owned()).increment(value);
}

fn measure(job: &str, name: &'static str, value: f64) {
    metrics::histogram!(name).record(value);
    metrics::histogram!(name, "job" => job.to_owned()).record(value);
}
