//! What can go wrong with server and connections, and how it is made to.

use std::time::Duration;

use fastrand::Rng;
use scratch_postgres::Shutdown;

use super::{
    proxy::{Harm, Point},
    scene::{DATABASE, Scene},
};

/// A fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Fault {
    /// Harm to the connection at a point of a chunk's life.
    Connection(Point, Harm),
    /// `pg_terminate_backend` on a worker's session.
    TerminateBackend,
    /// The server dies without a shutdown and recovers.
    Crash,
    /// The server is restarted.
    Restart,
    /// No connections to be had for a while.
    TooManyConnections,
    /// Another session takes the same rows in another order.
    Deadlock,
    /// Another session holds ACCESS EXCLUSIVE on the target for longer than lock_timeout.
    TableLock,
    /// Another session holds target rows for longer than lock_timeout.
    RowLocks,
}

/// The harm that each point is given.
const HARMS: [Harm; 7] = [
    Harm::CutBefore,
    Harm::CutAfter,
    Harm::DropAnswer,
    Harm::HalfAnswer,
    Harm::Stall,
    Harm::Vanish,
    Harm::Refuse("25006"),
];

impl Fault {
    /// Every fault there is.
    pub fn all() -> Vec<Self> {
        let connection = Point::ALL.into_iter().flat_map(|point| HARMS.map(|harm| Self::Connection(point, harm)));
        // A server does not refuse a connection's first message, nor COMMIT, so.
        let connection = connection
            .filter(|fault| !matches!(fault, Self::Connection(Point::Connect | Point::Commit, Harm::Refuse(_))));
        let others = [
            Self::TerminateBackend,
            Self::Crash,
            Self::Restart,
            Self::TooManyConnections,
            Self::Deadlock,
            Self::TableLock,
            Self::RowLocks,
        ];
        others.into_iter().chain(connection).collect()
    }

    /// The line of the table that it is counted in.
    pub fn name(self) -> String {
        match self {
            Self::TerminateBackend => "pg_terminate_backend".into(),
            Self::Crash => "server crash and recovery".into(),
            Self::Restart => "server restart".into(),
            Self::TooManyConnections => "too many connections".into(),
            Self::Deadlock => "deadlock with another session".into(),
            Self::TableLock => "ACCESS EXCLUSIVE on the target".into(),
            Self::RowLocks => "target rows locked".into(),
            Self::Connection(point, harm) => {
                let harm = match harm {
                    Harm::CutBefore => "cut before",
                    Harm::CutAfter => "cut after",
                    Harm::DropAnswer => "answer lost",
                    Harm::HalfAnswer => "half an answer",
                    Harm::Stall => "stalled",
                    Harm::Vanish => "vanished",
                    Harm::Refuse(_) => "refused as read-only (25006)",
                };
                let point = match point {
                    Point::Connect => "connecting",
                    Point::Claim => "claim",
                    Point::Fence => "fence",
                    Point::Statement => "statement",
                    Point::Finish => "PROCESSED",
                    Point::Commit => "COMMIT",
                };
                format!("connection: {harm}, {point}")
            }
        }
    }

    /// Does it; false when its moment did not come before the victim's end.
    pub async fn strike(self, scene: &Scene, over: impl Future<Output = ()>, dice: &mut Rng) -> bool {
        match self {
            Self::Connection(point, harm) => connection(scene, over, point, harm, dice).await,
            Self::TerminateBackend => {
                let sql = "SELECT count(pg_terminate_backend(pid)) FROM (SELECT pid FROM pg_stat_activity
                           WHERE datname = current_database() AND application_name LIKE 'stagemill:%' ORDER BY random() LIMIT 1) a";
                scene.value(sql).await == "1"
            }
            Self::Crash => restart(scene, Shutdown::Immediate).await,
            Self::Restart => restart(scene, Shutdown::Fast).await,
            Self::TooManyConnections => too_many(scene, dice).await,
            Self::Deadlock => deadlock(scene).await,
            Self::TableLock => held(scene, "LOCK TABLE target IN ACCESS EXCLUSIVE MODE").await,
            Self::RowLocks => held(scene, "SELECT id FROM target WHERE id % 7 = 0 FOR UPDATE").await,
        }
    }
}

pub async fn pause(dice: &mut Rng, milliseconds: std::ops::Range<u64>) {
    tokio::time::sleep(Duration::from_millis(dice.u64(milliseconds))).await;
}

async fn connection(scene: &Scene, over: impl Future<Output = ()>, point: Point, harm: Harm, dice: &mut Rng) -> bool {
    let passes = if point == Point::Connect { dice.u32(0..3) } else { dice.u32(0..12) };
    let mut struck = scene.proxy.arm(point, harm, passes);
    let struck = tokio::select! {
        struck = struck.wait_for(|struck| *struck) => struck.is_ok(),
        () = over => false,
        () = tokio::time::sleep(Duration::from_secs(5)) => false,
    };
    scene.proxy.disarm();
    struck
}

async fn restart(scene: &Scene, shutdown: Shutdown) -> bool {
    scene.restart(shutdown).await;
    true
}

/// No session more for anybody but superusers; those there are, are ended.
async fn too_many(scene: &Scene, dice: &mut Rng) -> bool {
    let connection = scene.connection().await;
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'stagemill%'";
    let struck = connection.batch(&format!("ALTER DATABASE {DATABASE} CONNECTION LIMIT 0; {end}")).await.is_ok();
    pause(dice, 300..1_200).await;
    // A crash that follows must not take this back.
    let lift = format!("SET synchronous_commit = on; ALTER DATABASE {DATABASE} CONNECTION LIMIT -1");
    connection.batch(&lift).await.is_ok() && struck
}

/// Takes rows from the last to the first, one by one: the workers come the other way.
async fn deadlock(scene: &Scene) -> bool {
    let connection = scene.connection().await;
    let before = deadlocks(scene).await;
    for _ in 0..20 {
        if connection.batch("BEGIN").await.is_err() {
            return false;
        }
        for id in [390, 330, 300, 260, 230, 210] {
            // The victim can be this session.
            if connection.batch(&format!("UPDATE target SET n = n WHERE id BETWEEN {} AND {id}", id - 9)).await.is_err()
            {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let _ = connection.batch("ROLLBACK").await;
        if deadlocks(scene).await > before {
            return true;
        }
    }
    false
}

async fn deadlocks(scene: &Scene) -> i64 {
    let sql = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    scene.value(sql).await.parse().unwrap_or(0)
}

/// Holds locks for longer than the job's lock_timeout of two seconds.
async fn held(scene: &Scene, sql: &str) -> bool {
    let connection = scene.connection().await;
    if connection.batch(&format!("BEGIN; {sql}")).await.is_err() {
        return false;
    }
    tokio::time::sleep(Duration::from_millis(2_300)).await;
    connection.batch("ROLLBACK").await.is_ok()
}
