//! The state machine and the functions' binaries under faults.

use std::{collections::BTreeSet, sync::Mutex, time::Duration};

use fastrand::Rng;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

use super::{
    fault::{Fault, pause},
    scene::{DATABASE, ROLE, Scene, password},
    suite::Victim,
    workload::PLANTED,
};
use crate::aws::cloud::{Cloud, Fault as Played, FunctionName, Invocation, Setup, Status, binaries};

/// So long a fault waits for a call that it can harm. A planner comes at once, or not any more.
const fn patience(function: FunctionName) -> Duration {
    match function {
        FunctionName::Planner => Duration::from_secs(1),
        FunctionName::Executor | FunctionName::Recorder => Duration::from_secs(8),
    }
}

/// Executions of the state machine: of the job, then of `resume` until the run is complete.
pub struct Functions {
    cloud: Cloud,
    secret: String,
    starts: Mutex<u32>,
    rotations: Mutex<u32>,
}

/// The executions of one start: one, or several that the same input started; those of `ended` have ended, and the recorder was told.
#[derive(Debug, Default)]
pub struct Executions {
    input: Value,
    started: Vec<String>,
    ended: BTreeSet<String>,
}

/// What is done to them.
#[derive(Debug, Clone, Copy)]
pub enum Harmed {
    /// A signal to a process that is serving a call.
    Signal(FunctionName, Signal),
    /// The answer of a call is lost.
    LoseAnswer(FunctionName),
    /// A call is served twice, one after the other.
    Twice(FunctionName),
    /// What is being worked on is handed to another process at the same time.
    AtOnce(FunctionName),
    /// The same event starts a second execution.
    SecondStart,
    /// The execution is stopped by a person.
    Stop,
    /// The password is changed, and a moment later the secret.
    Rotate,
    /// Something outside of them.
    Outside(Fault),
}

impl Functions {
    pub async fn start(scene: &Scene) -> Self {
        let setup = Setup::new(binaries())
            .variable("DATABASE_HOST", "127.0.0.1")
            .variable("DATABASE_PORT", &scene.proxy.port().to_string())
            .variable("DATABASE_NAME", DATABASE);
        let cloud = Cloud::start(setup).await;
        let secret = cloud.create_secret("faults", &json!({"username": ROLE, "password": password()})).await;
        cloud.set_environment(&[("SECRET_ARN", &secret)]).await;
        Self { cloud, secret, starts: Mutex::new(0), rotations: Mutex::new(0) }
    }

    /// A call of the function that is being served; none when there is none before all is over.
    async fn in_flight(&self, function: FunctionName, executions: &mut Executions) -> Option<Invocation> {
        let since = std::time::Instant::now();
        while since.elapsed() < patience(function) {
            if let Some(call) = self.cloud.in_flight(function).await.pop() {
                return Some(call);
            }
            if self.is_over(executions).await {
                return None;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        None
    }

    async fn signal(
        &self,
        function: FunctionName,
        signal: Signal,
        executions: &mut Executions,
        dice: &mut Rng,
    ) -> bool {
        let Some(call) = self.in_flight(function, executions).await else { return false };
        let Ok(pid) = i32::try_from(call.pid).map(Pid::from_raw) else { return false };
        pause(dice, 0..40).await;
        let struck = kill(pid, signal).is_ok();
        if signal == Signal::SIGSTOP {
            pause(dice, 100..1_500).await;
            let _ = kill(pid, Signal::SIGCONT);
        }
        struck
    }

    /// True once the function's next call has taken the fault.
    async fn play(&self, function: FunctionName, fault: Played, executions: &mut Executions) -> bool {
        self.cloud.play(function, fault, 1).await;
        let since = std::time::Instant::now();
        while self.cloud.waiting(function).await > 0 {
            if since.elapsed() > patience(function) || self.is_over(executions).await {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        true
    }

    async fn rotate(&self, scene: &Scene, dice: &mut Rng) -> bool {
        let password = {
            let mut rotations = self.rotations.lock().unwrap();
            *rotations += 1;
            format!("{}-{rotations}", password())
        };
        let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'etl' AND random() < 0.5";
        // A crash must not take it back: the secret has it then.
        let changed = format!("SET synchronous_commit = on; ALTER ROLE {ROLE} PASSWORD '{password}'; {end}");
        // A password that can't be changed must not go into the secret.
        if scene.connection().await.batch(&changed).await.is_err() {
            return false;
        }
        pause(dice, 0..2_000).await;
        self.cloud.put_secret(&self.secret, &json!({"username": ROLE, "password": password})).await;
        true
    }

    /// What EventBridge does when an execution ends otherwise than well: it calls the recorder, and again until that succeeds.
    async fn tell_of_end(&self, execution: &str, status: Status) {
        let status = match status {
            Status::Succeeded => return,
            Status::Failed => "FAILED",
            Status::TimedOut => "TIMED_OUT",
            Status::Aborted => "ABORTED",
        };
        let event = json!({"execution_ended": {"execution": execution, "status": status}});
        for _ in 0..20 {
            if self.cloud.invoke(FunctionName::Recorder, &event).await.is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        panic!("the recorder can't be told of the end of {execution}");
    }
}

impl Victim for Functions {
    type Fault = Harmed;
    type Attempt = Executions;

    // Warm sandboxes keep a session; only one at work is named after its run.
    const SESSIONS: &'static str = "stagemill:%";
    // Calls, retries and rounds take seconds: the work between them must not be over before it can be harmed.
    const ROW_TAKES: Duration = Duration::from_millis(10);

    fn faults() -> Vec<Harmed> {
        let signals = [Signal::SIGKILL, Signal::SIGTERM, Signal::SIGSTOP];
        let of_calls = FunctionName::ALL.into_iter().flat_map(|function| {
            let signals = signals.map(|signal| Harmed::Signal(function, signal));
            let answers = [Harmed::LoseAnswer(function), Harmed::Twice(function), Harmed::AtOnce(function)];
            signals.into_iter().chain(answers)
        });
        let others = [Harmed::SecondStart, Harmed::Stop, Harmed::Rotate];
        of_calls.chain(others).chain(Fault::all().into_iter().map(Harmed::Outside)).collect()
    }

    fn name(fault: Harmed) -> String {
        match fault {
            Harmed::Signal(function, Signal::SIGSTOP) => format!("{}: SIGSTOP, then on", function.name()),
            Harmed::Signal(function, signal) => format!("{}: {signal}", function.name()),
            Harmed::LoseAnswer(function) => format!("{}: answer lost", function.name()),
            Harmed::Twice(function) => format!("{}: called twice in a row", function.name()),
            Harmed::AtOnce(function) => format!("{}: called twice at once", function.name()),
            Harmed::SecondStart => "the same event starts a second execution".into(),
            Harmed::Stop => "execution stopped".into(),
            Harmed::Rotate => "password rotated".into(),
            Harmed::Outside(fault) => fault.name(),
        }
    }

    fn moment(fault: Harmed) -> u8 {
        match fault {
            Harmed::Signal(FunctionName::Planner, _)
            | Harmed::LoseAnswer(FunctionName::Planner)
            | Harmed::Twice(FunctionName::Planner)
            | Harmed::AtOnce(FunctionName::Planner)
            | Harmed::SecondStart => 0,
            Harmed::Signal(FunctionName::Recorder, _)
            | Harmed::LoseAnswer(FunctionName::Recorder)
            | Harmed::Twice(FunctionName::Recorder)
            | Harmed::AtOnce(FunctionName::Recorder) => 2,
            _ => 1,
        }
    }

    async fn start(&self, _scene: &Scene, planned: Option<i64>) -> Executions {
        let input = match planned {
            Some(run) => json!({"resume": run}),
            None => {
                let mut starts = self.starts.lock().unwrap();
                *starts += 1;
                json!({"job": "faults", "trigger": {"id": format!("event {starts}")}})
            }
        };
        let started = vec![self.cloud.start_execution(&input).await];
        Executions { input, started, ended: BTreeSet::new() }
    }

    async fn is_over(&self, executions: &mut Executions) -> bool {
        for execution in &executions.started {
            if !executions.ended.contains(execution) {
                let Some(outcome) = self.cloud.outcome(execution).await else { return false };
                self.tell_of_end(execution, outcome.status).await;
                executions.ended.insert(execution.clone());
            }
        }
        true
    }

    async fn strike(&self, fault: Harmed, scene: &Scene, executions: &mut Executions, dice: &mut Rng) -> bool {
        match fault {
            Harmed::Signal(function, signal) => self.signal(function, signal, executions, dice).await,
            Harmed::LoseAnswer(function) => self.play(function, Played::LoseAnswer, executions).await,
            Harmed::Twice(function) => self.play(function, Played::DeliverTwice, executions).await,
            Harmed::AtOnce(function) => {
                let Some(call) = self.in_flight(function, executions).await else { return false };
                // Whatever it answers: the ledger decides whether it had something to do.
                let _ = self.cloud.invoke(function, &call.payload).await;
                true
            }
            Harmed::SecondStart => {
                executions.started.push(self.cloud.start_execution(&executions.input).await);
                true
            }
            Harmed::Stop => {
                let execution = executions.started.last().expect("there is one from the start");
                self.cloud.stop_execution(execution).await;
                true
            }
            Harmed::Rotate => self.rotate(scene, dice).await,
            Harmed::Outside(fault) => {
                let over = async {
                    while !self.is_over(executions).await {
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                };
                fault.strike(scene, over, dice).await
            }
        }
    }

    async fn end(&self, _: &Scene, mut executions: Executions) -> String {
        for execution in &executions.started {
            self.cloud.wait(execution).await;
        }
        self.is_over(&mut executions).await;
        let mut said = String::new();
        for execution in &executions.started {
            said += &format!("{:?}\n{}", self.cloud.outcome(execution).await, self.cloud.history(execution).await);
        }
        let logs = FunctionName::ALL.map(|function| self.cloud.logs(function)).concat();
        assert!(!said.contains(PLANTED) && !logs.contains(PLANTED), "a row's value or a password was logged");
        assert!(!logs.contains("panicked") && !said.contains("Stagemill.Internal"), "a defect: {said}");
        said
    }
}
