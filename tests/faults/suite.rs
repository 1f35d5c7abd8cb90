//! Runs jobs, does harm, and looks at what is left.

use std::{
    collections::BTreeMap,
    fmt,
    time::{Duration, SystemTime},
};

use fastrand::Rng;

use super::{
    fault::Fault,
    scene::{Scene, ended},
    workload::Workload,
};

/// Faults in one run.
const FAULTS_A_RUN: std::ops::RangeInclusive<usize> = 3..=9;

/// Starts of the program until its run is complete: each fault can end one, and `resume` has to be enough for the rest.
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
    fault: Fault,
    at: SystemTime,
}

/// Injects so many faults, and fails with the seed when a row or an outcome is wrong.
pub async fn run(wanted: u32, seed: u64) -> Table {
    let mut dice = Rng::with_seed(seed);
    let mut scene = Scene::start().await;
    let mut table = Table::default();
    // Every kind comes once before any comes again.
    let mut deck: Vec<Fault> = Vec::new();
    while table.injected < wanted {
        let workload = dice.choice(Workload::ALL).unwrap_or(Workload::Increment);
        table.runs += 1;
        scene.set(table.runs, workload, &mut dice).await;
        let faults = deal(&mut deck, &mut dice);
        let (struck, starts) = harm(&scene, &faults, &mut dice).await;
        table.starts += starts;
        judge(&scene, workload, &struck, &mut table, seed).await;
        scene.clear().await;
    }
    table
}

fn deal(deck: &mut Vec<Fault>, dice: &mut Rng) -> Vec<Fault> {
    let mut hand = Vec::new();
    for _ in 0..dice.usize(FAULTS_A_RUN) {
        if deck.is_empty() {
            *deck = Fault::all();
            dice.shuffle(deck);
        }
        hand.extend(deck.pop());
    }
    hand
}

/// Runs the job until it is complete, and does harm meanwhile. Returns what struck, and how often the program was started.
async fn harm(scene: &Scene, faults: &[Fault], dice: &mut Rng) -> (Vec<Struck>, usize) {
    let mut left = faults.to_vec();
    let (mut struck, mut last) = (Vec::new(), String::new());
    for start in 1..=STARTS {
        let mut child = scene.run().await;
        while let Some(fault) = left.pop() {
            tokio::time::sleep(Duration::from_millis(dice.u64(0..150))).await;
            if child.try_wait().is_ok_and(|ended| ended.is_some()) {
                left.push(fault);
                break;
            }
            let at = SystemTime::now();
            if fault.strike(scene, &mut child, dice).await {
                struck.push(Struck { fault, at });
            }
        }
        let ended = ended(child).await;
        assert!(!ended.said.contains("4711"), "a row's value was printed: {ended:?}");
        // 70 is a defect of ours, 101 a panic.
        assert!(!matches!(ended.code, Some(70 | 101)), "{ended:?}");
        no_orphans(scene).await;
        last = ended.said;
        let status = scene.value("SELECT status FROM stagemill.run ORDER BY run_id DESC LIMIT 1").await;
        if status.starts_with("COMPLETE") {
            return (struck, start);
        }
    }
    let names: Vec<String> = faults.iter().map(|fault| fault.name()).collect();
    panic!("not complete after {STARTS} starts, with {names:?}: {last}")
}

/// No session or lock of the program is left when it has ended.
async fn no_orphans(scene: &Scene) {
    let sessions = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'stagemill%'";
    let since = std::time::Instant::now();
    while scene.value(sessions).await != "0" {
        assert!(since.elapsed() < ORPHANS_END_WITHIN, "sessions are left: {}", scene.value("SELECT string_agg(concat_ws(' ', application_name, state, query), '; ') FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'stagemill%'").await);
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
        let tally = table.kinds.entry(one.fault.name()).or_default();
        tally.injected += 1;
        tally.runs += 1;
        tally.wrong_rows += u32::from(wrong_rows != "0");
        tally.wrong_outcomes += u32::from(outcome != expected);
        tally.longest_recovery = tally.longest_recovery.max(recovery(scene, one.at).await);
        table.injected += 1;
    }
    let names: Vec<String> = struck.iter().map(|one| one.fault.name()).collect();
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
        write!(f, "{} faults in {} runs, {} starts of the program", self.injected, self.runs, self.starts)
    }
}
