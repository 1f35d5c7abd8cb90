//! A run that keeps another one out: who is behind it, whether they are alive, and what to type.

use nix::{sys::signal::kill, unistd::Pid};
use stagemill_engine::{
    ledger::{run::OpenRun, summary::Summary},
    outcome::Status,
};

use crate::{drive, exit::CliError, table};

/// Whether somebody works on an open run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Life {
    /// This session does.
    Working(i32),
    /// Nobody can be seen now, and somebody may come back.
    MayComeBack,
    /// Nobody does.
    Gone,
}

/// Looks for a sign of life.
pub(crate) fn life(open: &OpenRun) -> Life {
    if let Some(session) = open.backend {
        return Life::Working(session);
    }
    // Of a process of this machine the system knows more than the ledger.
    let ended = process(&open.owner).is_some_and(|(host, pid)| {
        host == drive::host() && kill(Pid::from_raw(pid), None) == Err(nix::errno::Errno::ESRCH)
    });
    if ended || !open.is_alive() { Life::Gone } else { Life::MayComeBack }
}

/// Host and process of a command line.
fn process(owner: &str) -> Option<(&str, i32)> {
    let (rest, _started) = owner.rsplit_once(':')?;
    let (host, pid) = rest.rsplit_once(':')?;
    Some((host, pid.parse().ok()?))
}

/// Who is behind a run, and when they were last heard of.
pub(crate) fn owner(open: &OpenRun) -> String {
    let who = match process(&open.owner) {
        Some((host, pid)) => format!("process {pid} on {host}"),
        None => open.owner.clone(),
    };
    let silent = table::whole_duration(open.silent.as_secs_f64());
    match life(open) {
        Life::Working(session) => format!("{who}, through session {session}; last sign of life {silent} ago"),
        Life::MayComeBack => format!("{who}, without a session now; last sign of life {silent} ago"),
        Life::Gone => format!("{who}, which is gone; last sign of life {silent} ago"),
    }
}

/// The error of a start that another run keeps out.
pub(crate) fn error(open: &OpenRun, summary: &Summary, job: &str, typed: &str) -> CliError {
    let id = open.id;
    let tables = if open.job == job {
        String::new()
    } else {
        format!(" on the same tables ({} to {})", table::plain(&summary.stage), table::plain(&summary.target))
    };
    let head = format!(
        "run {id} of job {}{tables} is open, so that nothing was started\n  status {}, started {} by {}\n  owner {}",
        open.job,
        open.status.as_str(),
        summary.started_at,
        summary.started_by,
        owner(open)
    );
    let resume = format!("stagemill resume {id}");
    let abandon = format!("stagemill run {typed} --abandon");
    let next = match life(open) {
        Life::Working(_) => format!("  wait for it: `stagemill status {id}` shows how far it is"),
        // A command line that works on a run has a session: where there is none, `resume` asks for no silence.
        Life::MayComeBack if open.status != Status::Planning && !open.is_execution() => format!(
            "  wait for it: `stagemill status {id}` shows how far it is; if its owner was killed, `{resume}` goes on at once"
        ),
        Life::MayComeBack => format!(
            "  wait for it: `stagemill status {id}` shows how far it is; if its owner was killed, `{}` works after {} of silence",
            if open.status == Status::Planning { &abandon } else { &resume },
            table::whole_duration(open.stale_after().as_secs_f64())
        ),
        Life::Gone if open.status == Status::Planning => {
            table::commands(&[(&abandon, "closes it, of which nothing was applied, and starts anew")])
        }
        Life::Gone => table::commands(&[
            (&resume, "completes it: only what was not applied is applied"),
            (&abandon, &abandoning(open, summary, job)),
        ]),
    };
    CliError::Taken { text: format!("{head}\n{next}"), run: id }
}

/// What giving a dead run up means: another job does not apply what it left.
fn abandoning(open: &OpenRun, summary: &Summary, job: &str) -> String {
    let id = open.id;
    if open.job == job {
        return format!("closes it and starts anew: what run {id} applied is applied again");
    }
    let left = table::many(summary.tally.chunks - summary.tally.processed, "chunk", "chunks");
    format!("closes it, with {left} of job {} not applied, and starts job {job}", open.job)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(owner: &str, status: Status, silent: u64) -> OpenRun {
        let silent = std::time::Duration::from_secs(silent);
        OpenRun { id: 1, job: "j".into(), owner: owner.into(), status, silent, backend: None }
    }

    #[test]
    fn a_run_is_given_up_only_when_nobody_can_come_back() {
        let (here, dead) = (drive::host(), i32::MAX - 1);
        for (owner, status, silent, expected) in [
            (format!("{here}:{}:1", std::process::id()), Status::Running, 30, Life::MayComeBack),
            (format!("{here}:{dead}:1"), Status::Running, 1, Life::Gone),
            (format!("{here}:{dead}:1"), Status::Planning, 1, Life::Gone),
            ("elsewhere.example:7:1".into(), Status::Running, 5, Life::MayComeBack),
            ("elsewhere.example:7:1".into(), Status::Running, 90, Life::Gone),
            ("elsewhere.example:7:1".into(), Status::Planning, 90, Life::Gone),
            ("elsewhere.example:7:1".into(), Status::Interrupted, 0, Life::Gone),
            ("arn:aws:states:r:1:execution:m:e".into(), Status::Running, 300, Life::MayComeBack),
            ("arn:aws:states:r:1:execution:m:e".into(), Status::Running, 3_000, Life::Gone),
        ] {
            assert_eq!(life(&open(&owner, status, silent)), expected, "{owner} {status:?} {silent}");
        }
    }
}
