//! Expressions whose value is not the single statement's: what "What is promised" leaves out.

use super::expression::{Expression, Facts};
use crate::finding::Finding;

/// Warns of what the facts show. The time is no fault: `CURRENT_TIMESTAMP` in a column that says when a row was written means what it says.
pub(super) fn examine(expressions: &[Expression], facts: &[Option<Facts>], findings: &mut Vec<Finding>) {
    for (expression, facts) in expressions.iter().zip(facts) {
        let Some(facts) = facts else { continue };
        for finding in volatile(expression, facts).into_iter().chain(subquery(expression, facts)) {
            // Both branches of a column can say it.
            if !findings.contains(&finding) {
                findings.push(finding);
            }
        }
    }
}

fn volatile(expression: &Expression, facts: &Facts) -> Option<Finding> {
    let names = facts.volatile.join(", ");
    let what = if expression.at == "stage.where" {
        "another reading of the stage can find other rows of this job"
    } else {
        "a chunk that is tried again gets other values, and no run gives what another gave"
    };
    let remedy = "stage the value; where a function's result depends on its arguments alone, say so: ALTER FUNCTION ... IMMUTABLE";
    (!facts.volatile.is_empty())
        .then(|| Finding::warning(&expression.at, format!("calls {names}, which is volatile: {what}"), remedy))
}

fn subquery(expression: &Expression, facts: &Facts) -> Option<Finding> {
    facts.reads_target.then(|| {
        Finding::warning(
            &expression.at,
            "has a subquery on the target: it sees what other chunks have committed by then",
            "stage what it gives, or read the row's own old values as `target` in the update branch",
        )
    })
}
