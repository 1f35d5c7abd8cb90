//! The command line under faults: signals, a second start, and what happens to its server and connections.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use fastrand::Rng;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;
use tokio::{
    io::AsyncReadExt,
    process::{Child, Command},
};

use super::{
    fault::{Fault, pause},
    scene::{DATABASE, ROLE, Scene, password},
    suite::Victim,
    workload::PLANTED,
};

/// Longer than any run here takes by itself: what is not over by then hangs.
const PATIENCE: Duration = Duration::from_secs(90);

/// `stagemill run`, then `stagemill resume` until the run is complete.
pub struct Program {
    program: PathBuf,
    folder: TempDir,
}

/// What is done to the program.
#[derive(Debug, Clone, Copy)]
pub enum Harmed {
    /// SIGKILL.
    Kill,
    /// SIGTERM: what is in flight finishes.
    Terminate,
    /// SIGTERM twice: the end is at once.
    TerminateTwice,
    /// SIGSTOP, and on after a while.
    Freeze,
    /// The job is started once more meanwhile.
    SecondStart,
    /// Something outside of it.
    Outside(Fault),
}

impl Program {
    pub fn new() -> Self {
        Self { program: program(), folder: tempfile::tempdir().unwrap() }
    }

    fn command(&self, scene: &Scene, args: &[&str]) -> Child {
        Command::new(&self.program)
            .args(args)
            .arg("--quiet")
            .current_dir(self.folder.path())
            .env("DATABASE_URL", format!("postgres://{ROLE}@127.0.0.1:{}/{DATABASE}", scene.proxy.port()))
            .env("PGPASSWORD", password())
            .env("HOME", self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}; `cargo build` makes it", self.program.display()))
    }

    /// Turned away by name while the run is open; not tried when it is not, since that would be another run.
    async fn second_start(&self, scene: &Scene) -> bool {
        // Its row is locked, so that the run can't end before the second start has met it.
        let connection = scene.connection().await;
        let lock = "SELECT status FROM stagemill.run WHERE status IN ('PLANNING', 'RUNNING') FOR UPDATE";
        let locked = async {
            connection.batch("BEGIN").await?;
            connection.query(lock, &[]).await
        };
        if !locked.await.is_ok_and(|runs| !runs.is_empty()) {
            return false;
        }
        let (code, said) = ended(self.command(scene, &["run", "faults"]), scene.witness()).await;
        let _ = connection.batch("ROLLBACK").await;
        // 5: another run is open.
        assert_eq!(code, Some(5), "{said}");
        true
    }
}

impl Victim for Program {
    type Fault = Harmed;
    type Attempt = Child;

    const SESSIONS: &'static str = "stagemill%";
    const ROW_TAKES: Duration = Duration::from_millis(1);

    fn faults() -> Vec<Harmed> {
        let own = [Harmed::Kill, Harmed::Terminate, Harmed::TerminateTwice, Harmed::Freeze, Harmed::SecondStart];
        own.into_iter().chain(Fault::all().into_iter().map(Harmed::Outside)).collect()
    }

    fn name(fault: Harmed) -> String {
        match fault {
            Harmed::Kill => "SIGKILL of the program".into(),
            Harmed::Terminate => "SIGTERM".into(),
            Harmed::TerminateTwice => "SIGTERM twice".into(),
            Harmed::Freeze => "SIGSTOP, then on".into(),
            Harmed::SecondStart => "a second start".into(),
            Harmed::Outside(fault) => fault.name(),
        }
    }

    async fn start(&self, scene: &Scene, planned: Option<i64>) -> Child {
        match planned {
            // Until its plan is written a run has applied nothing, and is started anew.
            None => self.command(scene, &["run", "faults", "--abandon"]),
            Some(run) => self.command(scene, &["resume", &run.to_string()]),
        }
    }

    async fn is_over(&self, child: &mut Child) -> bool {
        child.try_wait().is_ok_and(|ended| ended.is_some())
    }

    async fn strike(&self, fault: Harmed, scene: &Scene, child: &mut Child, dice: &mut Rng) -> bool {
        match fault {
            Harmed::Kill => signal(child, Signal::SIGKILL),
            Harmed::Terminate => signal(child, Signal::SIGTERM),
            Harmed::TerminateTwice => {
                signal(child, Signal::SIGTERM);
                pause(dice, 5..50).await;
                signal(child, Signal::SIGTERM)
            }
            Harmed::Freeze => {
                let struck = signal(child, Signal::SIGSTOP);
                pause(dice, 100..1_500).await;
                signal(child, Signal::SIGCONT);
                struck
            }
            Harmed::SecondStart => self.second_start(scene).await,
            Harmed::Outside(fault) => {
                let over = async {
                    let _ = child.wait().await;
                };
                fault.strike(scene, over, dice).await
            }
        }
    }

    async fn end(&self, scene: &Scene, child: Child) -> String {
        let (code, said) = ended(child, scene.witness()).await;
        assert!(!said.contains(PLANTED), "a row's value or a password was printed: {said}");
        // 70 is a defect of ours, 101 a panic.
        assert!(!matches!(code, Some(70 | 101)), "{code:?}: {said}");
        said
    }
}

/// The program under test.
pub fn program() -> PathBuf {
    std::env::var_os("STAGEMILL_BIN")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/debug/stagemill"), PathBuf::from)
}

/// Sends a signal to a program that may have ended by itself.
pub fn signal(child: &Child, signal: Signal) -> bool {
    child.id().and_then(|pid| i32::try_from(pid).ok()).is_some_and(|pid| kill(Pid::from_raw(pid), signal).is_ok())
}

/// Waits for a program's end. One that hangs is killed, once `witness` has told how things stand.
pub async fn ended(mut child: Child, witness: impl Future<Output = String>) -> (Option<i32>, String) {
    let (mut out, mut err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let (mut printed, mut complained) = (Vec::new(), Vec::new());
    let ended = async {
        match tokio::time::timeout(PATIENCE, child.wait()).await {
            Ok(ended) => Ok(ended.unwrap()),
            Err(_) => {
                let seen = witness.await;
                child.kill().await.unwrap();
                Err(seen)
            }
        }
    };
    let (ended, ..) = tokio::join!(ended, out.read_to_end(&mut printed), err.read_to_end(&mut complained));
    let said = [printed, complained].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    let status = ended.unwrap_or_else(|seen| panic!("the program hangs\n{seen}\nit said: {said}"));
    (status.code(), said)
}
