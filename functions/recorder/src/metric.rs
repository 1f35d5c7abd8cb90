//! A run's metrics, as a line in CloudWatch's embedded metric format on standard output: no way out of the VPC is needed.

use metrics::Unit;
use metrics_cloudwatch_embedded::{Builder, Collector};
use stagemill_engine::{
    failure::{Class, Failure},
    ledger::summary::Summary,
};

/// The metrics' namespace; their one dimension is `job`.
const NAMESPACE: &str = "stagemill";

/// Where metrics are written.
pub(crate) struct Metrics {
    collector: &'static Collector,
}

impl Metrics {
    /// The process's metrics.
    pub(crate) fn new() -> Result<Self, Failure> {
        let collector = Builder::new()
            .cloudwatch_namespace(NAMESPACE)
            .init()
            .map_err(|error| Failure::new(Class::Internal, format!("metrics can't be set up: {error}")))?;
        // With LogFormat JSON a line without a level may be filtered out.
        collector.set_property("level", "INFO").set_property("message", "run metrics");
        metrics::describe_histogram!("RunSeconds", Unit::Seconds, "from start to end");
        Ok(Self { collector })
    }

    /// Writes the metrics of a run that has ended. A failure to write is logged: the log table is the record.
    pub(crate) fn write(&self, run: &Summary) {
        let counts = &run.tally.counts;
        let failed = i64::from(!run.status.is_success());
        for (name, value) in [
            ("RunsEnded", 1),
            ("RunsFailed", failed),
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
            metrics::counter!(name, "job" => run.job.clone()).increment(u64::try_from(value).unwrap_or(0));
        }
        metrics::histogram!("RunSeconds", "job" => run.job.clone()).record(run.seconds);
        self.collector.set_property("run", run.run);
        if let Err(error) = self.collector.flush(std::io::stdout().lock()) {
            tracing::warn!(run = run.run, "the run's metrics could not be written: {error}");
        }
    }
}
