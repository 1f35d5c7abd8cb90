//! `stagemill prune`: deletes old runs from the ledger.

use std::{str::FromStr, time::Duration};

use jiff::{Span, ZonedDateTime};
use serde_json::json;
use stagemill_engine::{
    failure::Failure,
    ledger::prune::{Kept, Old, Pruned},
};

use crate::{
    args::PruneArgs,
    exit::{CliError, Exit},
    server, table,
    world::World,
};

/// How long ago something must have ended.
#[derive(Debug, Clone)]
pub(crate) struct Age {
    typed: String,
    duration: Duration,
}

impl FromStr for Age {
    type Err = String;

    fn from_str(typed: &str) -> Result<Self, String> {
        let say = |what: &str| format!("{what}; give an age such as 12h, 90d, 4w or \"1 year\"");
        let span: Span = typed.parse().map_err(|_| say("it is no length of time"))?;
        let now = ZonedDateTime::now();
        let then = now.checked_sub(span).map_err(|_| say("it is too long"))?;
        let duration = now.duration_since(&then).try_into().map_err(|_| say("it lies in the future"))?;
        Ok(Self { typed: typed.to_owned(), duration })
    }
}

pub(crate) async fn run(args: PruneArgs, world: &World) -> Result<Exit, CliError> {
    let (server, connection) = server::connect_with_ledger(&world.connect).await?;
    let old = Old::than(&connection, args.older_than.duration, args.job.clone()).await?;
    let kept = old.kept(&connection).await?;
    let pruned = if args.dry_run {
        old.count(&connection).await?
    } else {
        let work = async { old.delete(&connection).await.map_err(hinted) };
        world.unless_stopped("what was deleted so far stays deleted, run by run; the rest is as it was", work).await?
    };
    if args.json {
        let mut value = json!(pruned);
        value["dry_run"] = json!(args.dry_run);
        value["older_than"] = json!(args.older_than.typed);
        value["kept"] = json!(kept);
        world.print_json(&value)?;
    } else {
        world.print(&format!("{server}: {}{}", what_went(&args, &pruned), what_stays(&kept)))?;
    }
    Ok(Exit::Done)
}

/// Deleting is not among the privileges that runs need.
fn hinted(failure: Failure) -> CliError {
    match failure.sqlstate.as_deref() {
        Some("42501") => {
            CliError::hinted(failure, "prune as the ledger's owner, or GRANT DELETE ON stagemill.run TO this role")
        }
        _ => failure.into(),
    }
}

fn what_went(args: &PruneArgs, pruned: &Pruned) -> String {
    let of = args.job.as_ref().map(|job| format!(" of job {job}")).unwrap_or_default();
    let (Some(from), Some(to)) = (&pruned.from, &pruned.to) else {
        return format!("no run{of} older than {} to delete", args.older_than.typed);
    };
    format!(
        "{} {}{of} with {}, from {from} to {to}",
        if args.dry_run { "would delete" } else { "deleted" },
        table::many(pruned.runs, "run", "runs"),
        table::many(pruned.chunks, "chunk", "chunks"),
    )
}

/// What is old as well, and why it is still there.
fn what_stays(kept: &[Kept]) -> String {
    let (complete, others): (Vec<_>, Vec<_>) = kept.iter().partition(|run| run.status.is_success());
    let mut text = String::new();
    for Kept { run, job, status } in others {
        text += &format!(
            "\nkept: run {run} of job {job}, {}, the newest of its job: `stagemill status {run}` says how to go on",
            status.as_str()
        );
    }
    if !complete.is_empty() {
        let jobs = table::many(complete.len() as i64, "job", "jobs");
        text += &format!("\nkept: the last complete run of {jobs}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_read_as_people_write_them() {
        let hours = |typed: &str| typed.parse::<Age>().map(|age| age.duration.as_secs() / 3600);
        assert_eq!(hours("12h"), Ok(12));
        // A day can have 23 or 25 hours.
        assert!((28 * 24 - 1..=28 * 24 + 1).contains(&hours("4w").unwrap()));
        assert!((90 * 24 - 1..=90 * 24 + 1).contains(&hours("90 days").unwrap()));
        assert!((365 * 24 - 1..=366 * 24 + 1).contains(&hours("1 year").unwrap()));
        for wrong in ["90", "d", "soon", "", "-5d", "5d ago", "99999 years"] {
            let refused = hours(wrong).unwrap_err();
            assert!(refused.contains("12h, 90d, 4w"), "{wrong}: {refused}");
        }
    }
}
