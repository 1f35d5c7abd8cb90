//! A full disk, on a small file system in memory.

use std::{os::unix::fs::MetadataExt, path::Path, process::Command};

use stagemill_engine::{failure::Class, outcome::Status, resume};

use crate::database::{Database, job, shared};

/// A file system in memory, as long as this lives.
struct Small(tempfile::TempDir);

impl Small {
    /// `None` where this process may not mount one.
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().ok()?;
        std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).ok()?;
        // Inside, so that the mount point's parent keeps its rights.
        std::fs::create_dir(folder.path().join("small")).ok()?;
        let small = Self(folder);
        small.run("mount", &["-t", "tmpfs", "-o", "size=12m", "tmpfs"]).then_some(())?;
        let server = std::fs::metadata(format!("/proc/{}", shared().pid()?)).ok()?;
        std::os::unix::fs::chown(small.path(), Some(server.uid()), Some(server.gid())).ok()?;
        Some(small)
    }

    fn path(&self) -> std::path::PathBuf {
        self.0.path().join("small")
    }

    fn run(&self, program: &str, args: &[&str]) -> bool {
        let path: &Path = &self.path();
        Command::new(program).args(args).arg(path).output().is_ok_and(|output| output.status.success())
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        self.run("umount", &["-l"]);
    }
}

#[tokio::test]
async fn a_full_disk_stops_the_run_and_resume_completes_it_once_there_is_room() {
    let Some(small) = Small::mount() else {
        eprintln!("NOT RUN: a full disk needs the right to mount a file system (root)");
        return;
    };
    let database = Database::with("").await;
    database.execute(&format!("CREATE TABLESPACE small LOCATION '{}'", small.path().display())).await;
    database
        .execute(
            "CREATE TABLE target (id int PRIMARY KEY, n text) TABLESPACE small;
             CREATE TABLE stage (id int PRIMARY KEY, n text); INSERT INTO stage SELECT g, repeat(md5(g::text), 16) FROM generate_series(1, 40000) g;",
        )
        .await;
    let spec = job(
        r#"{"name": "full", "stage": {"table": "stage"}, "target": {"table": "target", "key": ["id"]}, "operation": "upsert", "parallelism": 3,
            "chunks": {"rows": 1000}}"#,
    );
    let summary = database.run(&spec).await;
    assert_eq!((summary.status, summary.sqlstate.as_deref()), (Status::Stopped, Some("53100")), "{:?}", summary.error);
    assert_eq!(summary.error_class, Some(format!("{:?}", Class::Stopped)));
    assert_eq!(database.value("SELECT count(*) FROM target").await, summary.tally.counts.staged.to_string());
    assert!(small.run("mount", &["-o", "remount,size=200m"]));
    let answer = resume::run(&database.connection, summary.run, "again", false).await.unwrap();
    let summary = database.drive(answer).await;
    assert_eq!((summary.status, summary.tally.counts.inserted), (Status::Complete, 40_000), "{:?}", summary.error);
    assert_eq!(database.value("SELECT count(*) FROM stage JOIN target USING (id, n)").await, "40000");
    database.execute("DROP TABLE target").await;
    database.execute("DROP TABLESPACE small").await;
}
