//! What was wanted, beside what was measured.

use crate::{
    contestant::Contestant,
    part::lambda::Function,
    race::{Entrant, Race},
    results::Results,
    statistic::{median, times_as_fast},
};

/// A row of the goals' table.
#[derive(Debug)]
pub(crate) struct Goal {
    pub(crate) what: &'static str,
    pub(crate) goal: &'static str,
    /// `None`: not measured.
    pub(crate) result: Option<Outcome>,
}

/// What was measured of it.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) text: String,
    pub(crate) met: bool,
}

/// The names of the races that goals speak of.
pub(crate) const IN_CACHE: &str = "update, page images off";
pub(crate) const LARGE: &str = "update, large, page images off";
pub(crate) const READ_BOUND: &str = "update, read-bound";
pub(crate) const WITH_PYTHON: &str = "update of 1M staged rows, read-bound";

/// The most of a run that `"auto"` may take to find its number.
const SETTLED_WITHIN: f64 = 0.15;

pub(crate) fn race<'a>(races: &'a [Race], name: &str) -> Option<&'a Race> {
    races.iter().find(|race| race.name == name)
}

/// All goals, in the order in which they were set.
pub(crate) fn all(results: &Results) -> Vec<Goal> {
    // One session a core of the machine that it was measured on.
    let own =
        |c: &Contestant| *c == Contestant::Stagemill { parallelism: u32::try_from(results.write.machine.cores).ok() };
    let in_cache = race(&results.write.found, IN_CACHE);
    let read_bound = race(&results.read_bound.found, READ_BOUND);
    let with_python = race(&results.read_bound.found, WITH_PYTHON);
    let mut goals = vec![
        Goal {
            what: "against the hand-cut limit, every operation",
            goal: "at least 0.95",
            result: against_limit(&results.write.found, &own),
        },
        Goal {
            what: "against the hand-cut limit, read-bound, same sessions",
            goal: "at least 0.95",
            result: read_bound.and_then(same_sessions),
        },
    ];
    let single = |c: &Contestant| *c == Contestant::Single;
    let procedure = |c: &Contestant| *c == Contestant::Procedure;
    let mut ratio = |what,
                     goal,
                     least,
                     race: Option<&Race>,
                     own: &dyn Fn(&Contestant) -> bool,
                     other: &dyn Fn(&Contestant) -> bool| {
        let ratio = race.and_then(|race| times_as_fast(&race.find(own)?.seconds(), &race.fastest(other)?.seconds()));
        let result = ratio.map(|ratio| Outcome { text: format!("{ratio:.2}x"), met: ratio >= least });
        goals.push(Goal { what, goal, result });
    };
    ratio("against the single statement, update, in the cache", "at least 2.2x", 2.2, in_cache, &own, &single);
    ratio("the same, read-bound, with `auto`", "at least 22x", 22.0, read_bound, &is_auto, &single);
    ratio("against the procedure, in the cache", "at least 1.5x", 1.5, in_cache, &own, &procedure);
    ratio("the same, read-bound, with `auto`", "at least 18x", 18.0, read_bound, &is_auto, &procedure);
    ratio(
        "against the Python program as shipped, in the cache",
        "at least 4x",
        4.0,
        in_cache,
        &own,
        &is_python_as_shipped,
    );
    ratio(
        "the same, read-bound, 1M staged rows, with `auto`",
        "at least 1.3x",
        1.3,
        with_python,
        &is_auto,
        &is_python_as_shipped,
    );
    ratio("against its best hand-tuned setting, in the cache", "never slower", 1.0, in_cache, &own, &is_python);
    ratio("the same, read-bound, 1M staged rows, with `auto`", "never slower", 1.0, with_python, &is_auto, &is_python);
    goals.extend([
        Goal {
            what: "`auto` against the best fixed number, in the cache",
            goal: "at most 1.1 of its time",
            result: in_cache.and_then(auto_slowness),
        },
        Goal {
            what: "the same, read-bound",
            goal: "at most 1.1 of its time",
            result: read_bound.and_then(auto_slowness),
        },
        Goal {
            what: "`auto` has found its number, in the cache",
            goal: "in the first 15 % of the run",
            result: in_cache.and_then(auto_settled),
        },
        Goal {
            what: "the same, of five times as many rows",
            goal: "in the first 15 % of the run",
            result: race(&results.write.found, LARGE).and_then(auto_settled),
        },
        Goal {
            what: "the same, read-bound",
            goal: "in the first 15 % of the run",
            result: read_bound.and_then(auto_settled),
        },
    ]);
    goals.extend(planning(results));
    goals.extend(overhead(results));
    goals.extend(lambda(&results.lambda.found.functions));
    goals
}

fn is_auto(contestant: &Contestant) -> bool {
    *contestant == Contestant::Stagemill { parallelism: None }
}

fn is_fixed(contestant: &Contestant) -> bool {
    matches!(contestant, Contestant::Stagemill { parallelism: Some(_) })
}

fn is_python(contestant: &Contestant) -> bool {
    matches!(contestant, Contestant::Threads { .. })
}

fn is_python_as_shipped(contestant: &Contestant) -> bool {
    *contestant == Contestant::Threads { threads: 20, rows: 50_000 }
}

/// stagemill by the limit, in every race of the part in the cache; the worst one decides.
fn against_limit(races: &[Race], own: &dyn Fn(&Contestant) -> bool) -> Option<Outcome> {
    let ratios: Vec<(&str, f64)> = races
        .iter()
        .filter_map(|race| {
            let limit = race.find(|contestant| matches!(contestant, Contestant::Limit { .. }))?;
            Some((race.name.as_str(), times_as_fast(&race.find(own)?.seconds(), &limit.seconds())?))
        })
        .collect();
    let (worst, least) = *ratios.iter().min_by(|one, other| one.1.total_cmp(&other.1))?;
    let most = ratios.iter().map(|(_, ratio)| *ratio).fold(least, f64::max);
    Some(Outcome { text: format!("{least:.2} ({worst}) to {most:.2}"), met: least >= 0.95 })
}

/// The limit's fastest number of sessions, and stagemill with as many.
fn same_sessions(race: &Race) -> Option<Outcome> {
    let limit = race.fastest(|contestant| matches!(contestant, Contestant::Limit { .. }))?;
    let Contestant::Limit { sessions } = limit.contestant else { return None };
    let own = race.find(|contestant| *contestant == Contestant::Stagemill { parallelism: Some(sessions) })?;
    let ratio = times_as_fast(&own.seconds(), &limit.seconds())?;
    Some(Outcome { text: format!("{ratio:.2} ({sessions} sessions)"), met: ratio >= 0.95 })
}

fn auto_slowness(race: &Race) -> Option<Outcome> {
    let (auto, best) = (race.find(is_auto)?, race.fastest(is_fixed)?);
    let slowness = auto.median()? / best.median()?;
    Some(Outcome { text: format!("{slowness:.2} ({})", best.contestant.name()), met: slowness <= 1.1 })
}

/// The shares of its runs after which `"auto"` changed nothing any more; the median decides.
fn auto_settled(race: &Race) -> Option<Outcome> {
    let runs = settled(race.find(is_auto)?);
    let shares: Vec<f64> = runs.iter().map(|(share, _)| *share).collect();
    let share = median(&shares)?;
    let sessions: Vec<String> = runs.iter().map(|(_, sessions)| sessions.to_string()).collect();
    Some(Outcome {
        text: format!("after {:.0} % of the run (found {})", share * 100.0, sessions.join(", ")),
        met: share <= SETTLED_WITHIN,
    })
}

fn settled(auto: &Entrant) -> Vec<(f64, u32)> {
    let ledgers = auto.laps.iter().filter_map(|lap| lap.ledger.as_ref());
    ledgers
        .filter_map(|ledger| Some((ledger.settled.as_ref()?.after / ledger.seconds, ledger.settled.as_ref()?.sessions)))
        .collect()
}

fn planning(results: &Results) -> [Goal; 2] {
    let cuts = &results.planning.found;
    let rows = cuts.iter().map(|cut| cut.rows).max();
    let of_most: Vec<_> = cuts.iter().filter(|cut| Some(cut.rows) == rows).collect();
    let slowest = of_most.iter().filter_map(|cut| median(&cut.plan_seconds)).reduce(f64::max);
    let uneven = cuts.iter().filter(|cut| cut.skewed).map(|cut| cut.largest / cut.mean).reduce(f64::max);
    let time = slowest.zip(rows).map(|(seconds, rows)| Outcome {
        text: format!("{seconds:.2} s ({}M rows)", rows / 1_000_000),
        met: seconds < 1.0,
    });
    let evenness = uneven.map(|most| Outcome { text: format!("{most:.2}x"), met: most <= 1.5 });
    [
        Goal { what: "planning 40M rows", goal: "under 1 s", result: time },
        Goal { what: "largest chunk over the mean, skewed keys", goal: "at most 1.5x", result: evenness },
    ]
}

fn overhead(results: &Results) -> [Goal; 2] {
    let outcome =
        |values: &[f64], most: f64| median(values).map(|ms| Outcome { text: format!("{ms:.2} ms"), met: ms < most });
    let found = &results.coordination.found;
    [
        Goal { what: "overhead a chunk, locally", goal: "under 2 ms", result: outcome(&found.local_ms, 2.0) },
        Goal {
            what: "overhead a chunk, in an executor, beyond its SQL",
            goal: "under 5 ms",
            result: outcome(&found.executor_ms, 5.0),
        },
    ]
}

fn lambda(functions: &[Function]) -> [Goal; 3] {
    let worst = |value: &dyn Fn(&Function) -> Option<f64>, unit: &str, most: f64| {
        let worst = functions.iter().filter_map(|function| Some((value(function)?, function.name.as_str())));
        let (value, name) = worst.max_by(|one, other| one.0.total_cmp(&other.0))?;
        Some(Outcome { text: format!("{value:.1} {unit} ({name})"), met: value < most })
    };
    [
        Goal { what: "Lambda: zip", goal: "under 6 MB", result: worst(&|f| Some(f.zip_bytes as f64 / 1e6), "MB", 6.0) },
        Goal { what: "Lambda: init", goal: "under 60 ms", result: worst(&|f| median(&f.init_ms), "ms", 60.0) },
        Goal {
            what: "Lambda: peak memory",
            goal: "under 40 MB",
            result: worst(&|f| Some(f.peak_mb.max(f.peak_tls_mb)), "MB", 40.0),
        },
    ]
}
