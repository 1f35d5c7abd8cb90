//! The check of a job as a DBA would do it: beside what keeps a job from running, what makes it slow, wrong or sorry. A run looks at none of it.

use super::{
    Checked, activity, dms, duplicates, expression, promise, scan, security, storage,
    subject::{Events, Subject},
    target,
};
use crate::{failure::Failure, finding::Finding, job::Job, pg::Connection, probe, table::Kind};

/// Checks a job and all around it: locks, then what [`super::job`] checks, then expressions, tables, the server, and rows. Nothing is changed.
/// It reads the stage where nothing else shows that its keys are unique.
///
/// # Errors
/// When the server can't be asked.
pub async fn thoroughly(connection: &Connection, job: &Job) -> Result<Checked, Failure> {
    let mut findings = Vec::new();
    activity::locks(connection, job, &mut findings).await?;
    if Finding::any_error(&findings) {
        return Ok(Checked { mapping: None, stage: None, findings });
    }
    let mut checked = super::job(connection, job).await?;
    findings.append(&mut checked.findings);
    if let (Some(mapping), Some(stage)) = (&checked.mapping, &checked.stage)
        && let Some(target) = probe::table(connection, &mapping.settings, &mapping.target).await?
    {
        let events = Events::of(mapping.operation);
        let subject = Subject { connection, mapping, stage, target: &target, events };
        examine(&subject, job, &mut findings).await?;
    }
    checked.findings = findings;
    Ok(checked)
}

async fn examine(subject: &Subject<'_>, job: &Job, findings: &mut Vec<Finding>) -> Result<(), Failure> {
    let Subject { connection, mapping, .. } = subject;
    let can_run = !Finding::any_error(findings);
    let expressions = expression::Expression::all_of(mapping);
    let facts = expression::facts(connection, &mapping.settings, &mapping.stage, &mapping.target, &expressions).await?;
    match facts {
        Some(facts) => promise::examine(&expressions, &facts, findings),
        None => findings.push(expression::unknown()),
    }
    security::examine(subject, findings).await?;
    if subject.target.kind != Kind::NoHeap {
        target::examine(subject, findings).await?;
    }
    storage::examine(subject, findings).await?;
    activity::examine(subject, findings).await?;
    dms::examine(subject, findings).await?;
    // What is asked of rows needs a statement that the server accepts.
    if can_run {
        duplicates::examine(subject, findings).await?;
        scan::examine(subject, job, findings).await?;
    }
    Ok(())
}
