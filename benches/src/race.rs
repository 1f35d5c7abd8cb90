//! Contestants on one workload, interleaved: each repetition has everybody once, on a fresh copy of the tables.

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

use crate::{
    contestant::{Contestant, Lap, Task},
    server::{COPY, Server},
    statistic,
    workload::{CHECKSUM, Operation, PREWARM, Size},
};

/// What was measured of a race.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Race {
    /// Such as `update, page images off`.
    pub(crate) name: String,
    pub(crate) operation: Operation,
    pub(crate) size: Size,
    pub(crate) page_images: bool,
    pub(crate) entrants: Vec<Entrant>,
    /// Tried once each, to find the best setting of the Python program.
    pub(crate) tried: Vec<Entrant>,
}

/// A contestant with its laps, or why it has none.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Entrant {
    pub(crate) contestant: Contestant,
    pub(crate) laps: Vec<Lap>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) failed: Option<String>,
}

/// Where a race is run.
pub(crate) struct Course<'a> {
    pub(crate) server: &'a Server,
    /// The database to copy.
    pub(crate) template: &'a str,
    pub(crate) operation: Operation,
    pub(crate) size: Size,
    /// Whether all is read into the cache beforehand.
    pub(crate) warm: bool,
    /// Switches slow reads on and off; nothing where there are none.
    pub(crate) slow: &'a dyn Fn(bool) -> Result<()>,
}

impl Entrant {
    fn new(contestant: Contestant) -> Self {
        Self { contestant, laps: Vec::new(), failed: None }
    }

    /// The seconds of its laps.
    pub(crate) fn seconds(&self) -> Vec<f64> {
        self.laps.iter().map(|lap| lap.seconds).collect()
    }

    /// The median of what they cost the server's processors.
    pub(crate) fn processor(&self) -> Option<f64> {
        let processor: Vec<f64> = self.laps.iter().map(|lap| lap.processor).collect();
        statistic::median(&processor)
    }

    /// Their median.
    pub(crate) fn median(&self) -> Option<f64> {
        statistic::median(&self.seconds())
    }
}

impl Race {
    /// The first entrant of a kind.
    pub(crate) fn find(&self, wanted: impl Fn(&Contestant) -> bool) -> Option<&Entrant> {
        self.entrants.iter().find(|entrant| wanted(&entrant.contestant) && !entrant.laps.is_empty())
    }

    /// The fastest entrant of a kind.
    pub(crate) fn fastest(&self, wanted: impl Fn(&Contestant) -> bool) -> Option<&Entrant> {
        let timed = self.entrants.iter().filter(|entrant| wanted(&entrant.contestant) && !entrant.laps.is_empty());
        timed.min_by(|one, other| one.median().unwrap_or(f64::MAX).total_cmp(&other.median().unwrap_or(f64::MAX)))
    }
}

impl Course<'_> {
    /// Runs a race. Contestants of `once` take part in the first repetition only.
    pub(crate) fn race(
        &self,
        name: &str,
        contestants: &[Contestant],
        once: &[Contestant],
        repetitions: u32,
    ) -> Result<Race> {
        let mut race = Race {
            name: name.to_owned(),
            operation: self.operation,
            size: self.size,
            page_images: self.server.sql("postgres", "SHOW full_page_writes")? == "on",
            entrants: once.iter().chain(contestants).cloned().map(Entrant::new).collect(),
            tried: Vec::new(),
        };
        let mut expected: Option<String> = None;
        for repetition in 0..repetitions {
            // Turned by one each time, so that nobody always follows the same one.
            let count = race.entrants.len();
            for place in 0..count {
                let entrant = &mut race.entrants[(place + repetition as usize) % count];
                if entrant.failed.is_some() || (repetition > 0 && once.contains(&entrant.contestant)) {
                    continue;
                }
                match self.lap(&entrant.contestant) {
                    Ok(lap) => {
                        eprintln!(
                            "  {name}: {} {:.2} s, the server's processors {:.2} s",
                            entrant.contestant.name(),
                            lap.seconds,
                            lap.processor
                        );
                        entrant.laps.push(lap);
                    }
                    Err(error) => {
                        eprintln!("  {name}: {} failed: {error:#}", entrant.contestant.name());
                        entrant.failed = Some(format!("{error:#}"));
                        continue;
                    }
                }
                if repetition == 0 {
                    self.compare(&entrant.contestant, &mut expected)?;
                }
            }
        }
        Ok(race)
    }

    /// The fastest of some, after one lap each, and the laps.
    pub(crate) fn best(&self, contestants: &[Contestant]) -> Result<(Contestant, Vec<Entrant>)> {
        let tried = self.race("search", &[], contestants, 1)?;
        let Some(best) = tried.fastest(|_| true) else { bail!("none of the settings tried came to an end") };
        Ok((best.contestant.clone(), tried.entrants.clone()))
    }

    fn lap(&self, contestant: &Contestant) -> Result<Lap> {
        self.server.copy(self.template)?;
        if self.warm {
            self.server.sql(COPY, PREWARM)?;
        }
        let folder = tempfile::tempdir()?;
        let task = Task {
            server: self.server,
            template: self.template,
            operation: self.operation,
            size: self.size,
            folder: folder.path(),
        };
        // Made ready at full speed, measured at that of the course.
        let command = contestant.prepare(&task)?;
        (self.slow)(true)?;
        let lap = contestant.run(&task, command);
        (self.slow)(false)?;
        lap
    }

    /// Everybody must have done the same work.
    fn compare(&self, contestant: &Contestant, expected: &mut Option<String>) -> Result<()> {
        let found = self.server.sql(COPY, CHECKSUM)?;
        let expected = expected.get_or_insert_with(|| found.clone());
        if *expected != found {
            bail!("{} left another target than who came first: {found} instead of {expected}", contestant.name());
        }
        Ok(())
    }
}
