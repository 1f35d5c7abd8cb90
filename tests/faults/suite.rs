//! Runs jobs, does harm, and looks at what is left.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    time::{Duration, SystemTime},
};

use fastrand::Rng;

use super::{scene::Scene, workload::Workload};

/// Faults in one run.
const FAULTS_A_RUN: std::ops::RangeInclusive<usize> = 3..=9;

/// Starts until its run is complete: each fault can end one, and `resume` has to be enough for the rest.
const STARTS: usize = 30;

/// Whatever a worker's socket did, its statement ends soon.
const ORPHANS_END_WITHIN: Duration = Duration::from_secs(2);

/// What became of one kind of fault.
#[derive(Debug, Default)]
struct Tally {
    injected: u32,
    runs: u32,
    wrong_rows: u32,
    wrong_outcomes: u32,
    longest_recovery: Duration,
}

/// The table of a suite.
#[derive(Debug, Default)]
pub struct Table {
    kinds: BTreeMap<String, Tally>,
    injected: u32,
    runs: u32,
    starts: usize,
}

/// A fault that struck, and when.
struct Struck {
    name: String,
    at: SystemTime,
}

/// What applies a job while it is harmed.
pub trait Victim {
    /// What can be done to it.
    type Fault: Copy;
    /// What was started to apply the job, or to go on with it.
    type Attempt;
    /// How the sessions are called that must not outlive an attempt, as a pattern of LIKE.
    const SESSIONS: &'static str;
    /// How long the target takes for each row.
    const ROW_TAKES: Duration;

    /// Every fault there is.
    fn faults() -> Vec<Self::Fault>;
    /// The line of the table that a fault is counted in.
    fn name(fault: Self::Fault) -> String;
    /// Faults of a lower moment have to come earlier in an attempt.
    fn moment(_fault: Self::Fault) -> u8 {
        0
    }
    /// Starts the job, or goes on with the run that was planned.
    async fn start(&self, scene: &Scene, planned: Option<i64>) -> Self::Attempt;
    /// Whether the attempt has ended.
    async fn is_over(&self, attempt: &mut Self::Attempt) -> bool;
    /// Does harm; false when the moment for it did not come before the attempt's end.
    async fn strike(&self, fault: Self::Fault, scene: &Scene, attempt: &mut Self::Attempt, dice: &mut Rng) -> bool;
    /// Waits for the attempt's end, and answers with all that it said.
    async fn end(&self, scene: &Scene, attempt: Self::Attempt) -> String;
}

/// Injects so many faults, and fails with the seed when a row or an outcome is wrong.
pub async fn run<V: Victim>(victim: &V, scene: &Scene, wanted: u32, seed: u64) -> Table {
    let mut dice = Rng::with_seed(seed);
    let mut table = Table::default();
    // Every kind comes once before any comes again.
    let mut deck = Vec::new();
    while table.injected < wanted {
        let workload = dice.choice(Workload::ALL).unwrap_or(Workload::Increment);
        table.runs += 1;
        scene.set(workload, V::ROW_TAKES, &mut dice).await;
        let faults = deal::<V>(&mut deck, &mut dice);
        let (struck, starts) = harm(victim, scene, &faults, &mut dice).await;
        table.starts += starts;
        judge(scene, workload, &struck, &mut table, seed).await;
        scene.clear().await;
        if table.runs.is_multiple_of(25) {
            println!("{} of {wanted} faults in {} runs", table.injected, table.runs);
        }
    }
    table
}

fn deal<V: Victim>(deck: &mut Vec<V::Fault>, dice: &mut Rng) -> Vec<V::Fault> {
    let mut hand = Vec::new();
    for _ in 0..dice.usize(FAULTS_A_RUN) {
        if deck.is_empty() {
            *deck = V::faults();
            dice.shuffle(deck);
        }
        hand.extend(deck.pop());
    }
    hand.sort_by_key(|fault| V::moment(*fault));
    hand
}

/// Runs the job until it is complete, and does harm meanwhile. Returns what struck, and how often something was started.
async fn harm<V: Victim>(victim: &V, scene: &Scene, faults: &[V::Fault], dice: &mut Rng) -> (Vec<Struck>, usize) {
    let mut left: VecDeque<V::Fault> = faults.iter().copied().collect();
    let (mut struck, mut said) = (Vec::new(), String::new());
    for start in 1..=STARTS {
        let planned = scene.value("SELECT max(run_id) FROM stagemill.run WHERE round > 0").await.parse().ok();
        let mut attempt = victim.start(scene, planned).await;
        while let Some(fault) = left.pop_front() {
            tokio::time::sleep(Duration::from_millis(dice.u64(0..150))).await;
            if victim.is_over(&mut attempt).await {
                left.push_front(fault);
                break;
            }
            let at = SystemTime::now();
            if victim.strike(fault, scene, &mut attempt, dice).await {
                struck.push(Struck { name: V::name(fault), at });
            }
        }
        said = victim.end(scene, attempt).await;
        no_orphans(scene, V::SESSIONS).await;
        let status = scene.value("SELECT status FROM stagemill.run ORDER BY run_id DESC LIMIT 1").await;
        if status.starts_with("COMPLETE") {
            return (struck, start);
        }
    }
    let names: Vec<String> = faults.iter().map(|fault| V::name(*fault)).collect();
    panic!("not complete after {STARTS} starts, with {names:?}: {said}")
}

/// No session or lock is left when an attempt has ended.
async fn no_orphans(scene: &Scene, sessions: &str) {
    let from =
        format!("FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE '{sessions}'");
    let since = std::time::Instant::now();
    while scene.value(&format!("SELECT count(*) {from}")).await != "0" {
        let left = format!("SELECT string_agg(concat_ws(' ', application_name, state, query), '; ') {from}");
        assert!(since.elapsed() < ORPHANS_END_WITHIN, "sessions are left: {}", scene.value(&left).await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Looks at every row and at the log table.
async fn judge(scene: &Scene, workload: Workload, struck: &[Struck], table: &mut Table, seed: u64) {
    let wrong_rows = scene.value(workload.wrong()).await;
    let truth = "SELECT concat_ws(' ', status, staged = inserted + updated + deleted + unchanged + skipped + rejected + handed, error IS NULL,
                          (SELECT count(*) FROM stagemill.run WHERE ended_at IS NULL),
                          staged = (SELECT sum(staged) FROM stagemill.chunk c WHERE c.run_id = r.run_id))
         FROM stagemill.run r ORDER BY run_id DESC LIMIT 1";
    let outcome = scene.value(truth).await;
    let expected = format!("{} t t 0 t", workload.status());
    for one in struck {
        let tally = table.kinds.entry(one.name.clone()).or_default();
        tally.injected += 1;
        tally.runs += 1;
        tally.wrong_rows += u32::from(wrong_rows != "0");
        tally.wrong_outcomes += u32::from(outcome != expected);
        tally.longest_recovery = tally.longest_recovery.max(recovery(scene, one.at).await);
        table.injected += 1;
    }
    let names: Vec<&str> = struck.iter().map(|one| one.name.as_str()).collect();
    assert!(
        wrong_rows == "0" && outcome == expected,
        "seed {seed}, run {}, {workload:?}, after {names:?}: {wrong_rows} rows are wrong, the log table says {outcome:?} instead of {expected:?}",
        table.runs
    );
}

/// From a fault to the next chunk that was applied.
async fn recovery(scene: &Scene, at: SystemTime) -> Duration {
    let at = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let sql = format!(
        "SELECT COALESCE(min(EXTRACT(epoch FROM ended_at)::float8 - {at}), 0) FROM stagemill.chunk WHERE state = 'PROCESSED' AND EXTRACT(epoch FROM ended_at)::float8 > {at}"
    );
    Duration::try_from_secs_f64(scene.value(&sql).await.parse().unwrap_or(0.0)).unwrap_or_default()
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| fault | injected | runs | rows lost or twice | wrong outcome | longest recovery |")?;
        writeln!(f, "|---|---|---|---|---|---|")?;
        for (name, tally) in &self.kinds {
            let Tally { injected, runs, wrong_rows, wrong_outcomes, longest_recovery } = tally;
            let recovery = longest_recovery.as_secs_f64();
            writeln!(f, "| {name} | {injected} | {runs} | {wrong_rows} | {wrong_outcomes} | {recovery:.1} s |")?;
        }
        write!(f, "{} faults in {} runs, {} starts", self.injected, self.runs, self.starts)
    }
}
