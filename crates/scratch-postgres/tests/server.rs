//! A server answers as it was asked to.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

mod support;

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use scratch_postgres::{Error, ScratchPostgres, Shutdown, shared};
use support::psql;

#[test]
fn server_starts_and_answers() {
    let begin = Instant::now();
    let server = ScratchPostgres::builder().start().unwrap();
    let started = begin.elapsed();
    for connection in [server.url("postgres"), server.socket_url("postgres")] {
        let answer = psql(&server, &connection, "select current_user, current_setting('server_encoding')");
        assert_eq!(answer.unwrap(), format!("{}|UTF8", server.user()));
    }
    let version = psql(&server, &server.url("postgres"), "show server_version").unwrap();
    assert_eq!(version.split(' ').next(), Some(server.version()));
    assert!(server.log().contains("database system is ready to accept connections"));
    let begin = Instant::now();
    drop(server);
    eprintln!("started in {started:?}, gone in {:?}", begin.elapsed());
}

#[test]
fn text_is_compared_bytewise_and_known_beyond_ascii() {
    let server = shared().unwrap();
    let answer = psql(server, &server.url("postgres"), "select 'B' < 'a', lower('É') = 'é'").unwrap();
    assert_eq!(answer, "t|t");
}

#[test]
#[cfg(target_os = "linux")]
fn server_has_the_variables_it_was_given_also_after_a_restart() {
    let mut server = ScratchPostgres::builder().environment("TZ", "Asia/Tokyo").start().unwrap();
    let ask = |server: &ScratchPostgres| {
        let environment = fs::read(format!("/proc/{}/environ", server.pid().unwrap())).unwrap();
        environment.split(|byte| *byte == 0).any(|variable| variable == b"TZ=Asia/Tokyo")
    };
    assert!(ask(&server));
    server.restart(Shutdown::Fast).unwrap();
    assert!(ask(&server));
}

#[test]
fn shared_server_is_one() {
    assert!(std::ptr::eq(shared().unwrap(), shared().unwrap()));
}

#[test]
fn two_servers_run_side_by_side() {
    let (one, two) = (ScratchPostgres::builder().start().unwrap(), ScratchPostgres::builder().start().unwrap());
    assert_ne!(one.port(), two.port());
    assert_ne!(one.socket_dir(), two.socket_dir());
    psql(&one, &one.url("postgres"), "create table only_here ()").unwrap();
    assert!(psql(&two, &two.url("postgres"), "table only_here").unwrap_err().contains("does not exist"));
    drop(one);
    assert_eq!(psql(&two, &two.url("postgres"), "select 1").unwrap(), "1");
}

#[test]
fn restart_keeps_data_and_port() {
    let mut server = ScratchPostgres::builder().start().unwrap();
    let url = server.url("postgres");
    psql(&server, &url, "create table kept as select 7 as n").unwrap();
    for shutdown in [Shutdown::Fast, Shutdown::Immediate] {
        let pid = server.pid();
        server.restart(shutdown).unwrap();
        assert_ne!(server.pid(), pid);
        assert_eq!(server.url("postgres"), url);
        assert_eq!(psql(&server, &url, "table kept").unwrap(), "7");
    }
    server.stop(Shutdown::Fast).unwrap();
    server.stop(Shutdown::Fast).unwrap();
    assert_eq!(server.pid(), None);
    assert!(psql(&server, &url, "select 1").unwrap_err().contains("refused"));
    server.start_again().unwrap();
    assert!(matches!(server.start_again(), Err(Error::AlreadyRunning { .. })));
    assert_eq!(psql(&server, &url, "table kept").unwrap(), "7");
}

#[test]
fn taken_port_is_an_error_on_starting_again() {
    let mut server = ScratchPostgres::builder().start().unwrap();
    server.stop(Shutdown::Fast).unwrap();
    let taken = TcpListener::bind(("127.0.0.1", server.port())).unwrap();
    let error = server.start_again().unwrap_err().to_string();
    assert!(error.contains("Address already in use"), "{error}");
    drop(taken);
    server.start_again().unwrap();
    assert_eq!(psql(&server, &server.url("postgres"), "select 1").unwrap(), "1");
}

#[test]
fn password_is_asked_for_over_tcp() {
    let password = "it's a/s\\cret@%é";
    let server = ScratchPostgres::builder().password(password).start().unwrap();
    let port = server.port();
    let without = format!("postgres://{}@127.0.0.1:{port}/postgres", server.user());
    let wrong = format!("postgres://{}:wrong@127.0.0.1:{port}/postgres", server.user());
    assert!(psql(&server, &without, "select 1").unwrap_err().contains("no password supplied"));
    assert!(psql(&server, &wrong, "select 1").unwrap_err().contains("password authentication failed"));
    assert_eq!(psql(&server, &server.url("postgres"), "select 1").unwrap(), "1");
    assert_eq!(psql(&server, &server.socket_url("postgres"), "select 1").unwrap(), "1");
    assert!(matches!(ScratchPostgres::builder().password("a\nb").start(), Err(Error::BadPassword)));
}

#[test]
fn settings_are_taken_over() {
    let server = ScratchPostgres::builder()
        .setting("max_connections", "31")
        .setting("shared_buffers", "16MB")
        .setting("cluster_name", r"it's a \ name")
        .start()
        .unwrap();
    let show = |name: &str| psql(&server, &server.url("postgres"), &format!("show {name}")).unwrap();
    assert_eq!(show("max_connections"), "31");
    assert_eq!(show("shared_buffers"), "16MB");
    assert_eq!(show("cluster_name"), r"it's a \ name");
    assert_eq!(show("fsync"), "off");
    assert_eq!(show("autovacuum"), "on");
}

#[test]
fn unknown_setting_shows_in_the_error() {
    let error = ScratchPostgres::builder().setting("no_such_setting", "1").start().unwrap_err().to_string();
    assert!(error.contains("unrecognized configuration parameter \"no_such_setting\""), "{error}");
    let error = ScratchPostgres::builder().setting("a b", "1").start().unwrap_err();
    assert!(matches!(error, Error::BadSetting { name } if name == "a b"));
}

#[test]
fn tls_is_offered_with_the_given_certificate() {
    let temp = tempfile::tempdir().unwrap();
    let (certificate, key) = (temp.path().join("crt"), temp.path().join("key"));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"])
        .arg("-out")
        .arg(&certificate)
        .arg("-keyout")
        .arg(&key)
        .output()
        .expect("this test makes its certificate with the `openssl` command");
    assert!(made.status.success());
    let read = |path| fs::read_to_string(path).unwrap();
    let server = ScratchPostgres::builder().tls(read(&certificate), read(&key)).start().unwrap();
    let url = server.url("postgres");
    let sql = "select ssl from pg_stat_ssl where pid = pg_backend_pid()";
    let verified = format!("{url}?sslmode=verify-ca&sslrootcert={}", certificate.display());
    assert_eq!(psql(&server, &verified, sql).unwrap(), "t");
    assert_eq!(psql(&server, &format!("{url}?sslmode=disable"), sql).unwrap(), "f");
}

#[test]
fn wrong_program_folder_is_named() {
    let temp = tempfile::tempdir().unwrap();
    let error = ScratchPostgres::builder().bin_dir(temp.path()).start().unwrap_err().to_string();
    assert!(error.contains(&temp.path().display().to_string()) && error.contains("initdb"), "{error}");
    let error = ScratchPostgres::builder().bin_dir("/no/such/folder").start().unwrap_err().to_string();
    assert!(error.contains("/no/such/folder"), "{error}");
}

#[test]
fn failing_initdb_shows_in_the_error() {
    let temp = tempfile::tempdir().unwrap();
    fs::set_permissions(temp.path(), fs::Permissions::from_mode(0o755)).unwrap();
    for program in ["initdb", "postgres"] {
        let path = temp.path().join(program);
        fs::write(&path, "#!/bin/sh\necho no luck today >&2; exit 3\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let error = ScratchPostgres::builder().bin_dir(temp.path()).start().unwrap_err();
    assert!(matches!(&error, Error::Initdb { .. }));
    assert!(error.to_string().contains("no luck today"), "{error}");
}

#[test]
fn program_folder_closed_to_the_servers_user_is_explained() {
    if !nix::unistd::geteuid().is_root() {
        return; // Only root runs the server as somebody else.
    }
    let temp = tempfile::tempdir().unwrap();
    for program in ["initdb", "postgres"] {
        let path = temp.path().join(program);
        fs::write(&path, "#!/bin/sh\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    fs::set_permissions(temp.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let error = ScratchPostgres::builder().bin_dir(temp.path()).start().unwrap_err();
    assert!(matches!(&error, Error::NotExecutable { program, .. } if program.starts_with(Path::new(temp.path()))));
    assert!(error.to_string().contains("chmod a+rx"), "{error}");
}
