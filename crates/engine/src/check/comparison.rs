//! Updates that are not like others: whose value can't be compared with the old one, or grows when it is set again.

use super::expression::{self, Expression};
use crate::{failure::Failure, finding::Finding, mapping::Mapping, pg::Connection};

/// Leaves values of their own time out of the comparison that `skip_unchanged` makes: a row would never be as it should be. (Casts that go by the
/// session's settings are stable too, and compared: these settings are the run's.) Refuses an overlap where it would be counted twice.
pub(super) async fn examine(
    connection: &Connection,
    mapping: &mut Mapping,
    findings: &mut Vec<Finding>,
) -> Result<(), Failure> {
    let overlaps = mapping.window.as_ref().is_some_and(|window| window.overlap.is_some());
    if !mapping.skip_unchanged && !overlaps {
        return Ok(());
    }
    let updates: Vec<Expression> = mapping
        .assignments
        .iter()
        .filter_map(|a| {
            let at = format!("columns.{}", a.column.as_str());
            Some(Expression { at, text: a.update.clone()?, with_target: true })
        })
        .collect();
    let (stage, target) = (&mapping.stage, &mapping.target);
    let Some(facts) = expression::facts(connection, &mapping.settings, stage, target, &updates).await? else {
        findings.push(Finding::error(
            if overlaps { "watermark.overlap" } else { "skip_unchanged" },
            "needs to know what the expressions depend on, for which this role may not create temporary views",
            "GRANT TEMPORARY ON DATABASE",
        ));
        return Ok(());
    };
    let updated = mapping.assignments.iter_mut().filter(|a| a.update.is_some());
    for ((assignment, expression), facts) in updated.zip(&updates).zip(facts) {
        // One that the server does not accept has been found before.
        let Some(facts) = facts else { continue };
        if facts.clock || !facts.volatile.is_empty() {
            assignment.compare = None;
        }
        if overlaps && facts.reads_target_row {
            findings.push(Finding::error(
                &expression.at,
                "reads the target's old row: what lies in watermark.overlap would be applied to it again",
                "set values that do not depend on the old ones, or stop the writers before each run and leave the overlap out",
            ));
        }
    }
    Ok(())
}
