//! CloudWatch alarms on the database, which hold the runs of a state machine's executions back while they last.

use std::time::Duration;

use serde::Deserialize;
use stagemill_engine::{
    failure::{Class, Failure},
    ledger::{self, hold},
    pg::Connection,
    probe,
};

/// How long an alarm holds runs back of which nothing more is heard.
const LASTS_MINUTES: u32 = 60;

/// An alarm that is heard of so late may be over: a busy database is what keeps the recorder from hearing of it.
const STALE: Duration = Duration::from_secs(300);

/// An alarm that changed its state, as the template's rule passes it on.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Alarm {
    /// Its name: the owner of the holds.
    alarm: String,
    state: State,
    /// When it changed, in ISO 8601; left out by people.
    at: Option<String>,
    /// The ARN of the state machine whose runs are meant.
    state_machine: String,
}

#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum State {
    Alarm,
    Ok,
    /// Nobody knows: what holds runs back runs out by itself.
    InsufficientData,
}

impl Alarm {
    /// Holds back the runs in flight, or lets them go as far as this alarm is concerned.
    pub(crate) async fn obey(&self, connection: &Connection) -> Result<(), Failure> {
        let lasts = lasts()?;
        let stale = match &self.at {
            Some(at) if self.state == State::Alarm => probe::is_past(connection, at, STALE).await?,
            _ => false,
        };
        if stale {
            tracing::warn!(alarm = self.alarm, at = self.at, "an alarm was heard of too late, and holds nothing back");
            return Ok(());
        }
        for run in ledger::run::open_ids(connection, &self.owners()?).await? {
            let changed = match self.state {
                State::Alarm => {
                    let reason = format!("the CloudWatch alarm {}", self.alarm);
                    hold::set(connection, run, &self.alarm, &reason, Some(lasts)).await?
                }
                State::Ok => hold::lift(connection, run, &self.alarm).await?,
                State::InsufficientData => false,
            };
            tracing::info!(run, alarm = self.alarm, state = ?self.state, changed, "an alarm changed its state");
        }
        Ok(())
    }

    /// How the owners of the state machine's runs begin: its executions' ARNs, up to their names.
    fn owners(&self) -> Result<String, Failure> {
        self.state_machine
            .split_once(":stateMachine:")
            .map(|(before, name)| format!("{before}:execution:{name}:"))
            .ok_or_else(|| {
                Failure::new(
                    Class::BadJob,
                    "the event's `state_machine` is not the ARN of a state machine; see the samples under events/",
                )
            })
    }
}

/// Reads `ALARM_HOLD_MINUTES`.
fn lasts() -> Result<Duration, Failure> {
    let minutes = match std::env::var("ALARM_HOLD_MINUTES").unwrap_or_default().as_str() {
        "" => LASTS_MINUTES,
        text => text.parse().map_err(|_| {
            Failure::new(Class::Configuration, format!("ALARM_HOLD_MINUTES is {text:?}; give a number of minutes"))
        })?,
    };
    Ok(Duration::from_secs(u64::from(minutes) * 60))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alarm_is_about_the_executions_of_one_state_machine() {
        let alarm = |state_machine: &str| Alarm {
            alarm: "cpu".into(),
            state: State::Ok,
            at: None,
            state_machine: state_machine.into(),
        };
        let owners = alarm("arn:aws:states:eu-central-1:123456789012:stateMachine:apply").owners().unwrap();
        assert_eq!(owners, "arn:aws:states:eu-central-1:123456789012:execution:apply:");
        // All runs would begin with nothing.
        assert_eq!(alarm("").owners().unwrap_err().class, Class::BadJob);
    }
}
