//! The front: the Python process behind a cloud, and requests to it.

use super::function::{FunctionName, Setup};
use super::invocation::FunctionError;
use super::{REGION, repository};
use serde_json::{Value, json};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long the front may take to stop its processes.
const STOP: Duration = Duration::from_secs(10);

/// The running front. It ends when its standard input does: with this value, or with the test process.
#[derive(Debug)]
pub(super) struct Front {
    process: Child,
    lifeline: Option<ChildStdin>,
    port: u16,
    folder: Option<TempDir>,
}

impl Front {
    /// Starts the front and waits until it listens.
    pub(super) fn start(setup: &Setup) -> Self {
        let environment = environment();
        let folder = tempfile::Builder::new().prefix("stagemill-cloud-").tempdir().expect("a temporary folder");
        let log = folder.path().join("front.log");
        let mut process = Command::new(environment.join("bin/python"))
            .arg(repository().join("tests/aws-local/front.py"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&log).expect("the front's log file"))
            .spawn()
            .expect("the front can be started");
        let mut lifeline = process.stdin.take().expect("piped above");
        let config = configuration(setup, folder.path(), environment);
        writeln!(lifeline, "{config}").expect("the front reads its configuration");
        let mut line = String::new();
        let stdout = process.stdout.take().expect("piped above");
        BufReader::new(stdout).read_line(&mut line).expect("the front's first line");
        let Some(port) = serde_json::from_str::<Value>(&line).ok().and_then(|ready| ready["port"].as_u64()) else {
            let _ = process.wait();
            panic!("the local cloud did not start:\n{}", std::fs::read_to_string(&log).unwrap_or_default());
        };
        let port = u16::try_from(port).expect("a port");
        Self { process, lifeline: Some(lifeline), port, folder: Some(folder) }
    }

    pub(super) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(super) fn folder(&self) -> &Path {
        self.folder.as_ref().expect("there until dropped").path()
    }

    /// The files of the cloud's folder that have such names, one after the other.
    pub(super) fn texts(&self, wanted: impl Fn(&str) -> bool) -> String {
        let entries = std::fs::read_dir(self.folder()).expect("the cloud's folder can be read");
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.retain(|path| path.file_name().is_some_and(|name| wanted(&name.to_string_lossy())));
        paths.sort();
        paths.iter().map(|path| std::fs::read_to_string(path).unwrap_or_default()).collect()
    }

    /// Asks one of the front's own hooks.
    pub(super) async fn hook(&self, name: &str, body: &Value) -> Value {
        let answer = self.post(format!("/_stagemill/{name}"), body.to_string()).await;
        assert_eq!(answer.status, 200, "the hook {name} refused: {}", answer.body);
        serde_json::from_str(&answer.body).expect("hooks answer with JSON")
    }

    /// Invokes a function as an AWS SDK would.
    pub(super) async fn invoke(&self, arn: &str, payload: &Value) -> Result<Value, FunctionError> {
        let path = format!("/2015-03-31/functions/{arn}/invocations");
        let answer = self.post(path, payload.to_string()).await;
        if answer.status == 200 && !answer.function_error {
            return Ok(serde_json::from_str(&answer.body).expect("functions answer with JSON"));
        }
        Err(serde_json::from_str(&answer.body).unwrap_or_else(|_| FunctionError::other(answer.status, answer.body)))
    }

    async fn post(&self, path: String, body: String) -> Answer {
        let port = self.port;
        // The standard library's sockets on a thread of their own: no HTTP client is worth a dependency here.
        let answer = tokio::task::spawn_blocking(move || post(port, &path, &body)).await;
        answer.expect("the request does not panic").expect("the front answers")
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        drop(self.lifeline.take());
        let limit = Instant::now() + STOP;
        while Instant::now() < limit && matches!(self.process.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(10));
        }
        // Its watchdog ends what it started.
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking()
            && let Some(folder) = self.folder.take()
        {
            eprintln!("the logs of the local cloud are kept in {}", folder.keep().display());
        }
    }
}

/// The Python environment, made when it is missing. Takes seconds the first time, nothing after that.
fn environment() -> &'static Path {
    static ENVIRONMENT: OnceLock<PathBuf> = OnceLock::new();
    ENVIRONMENT.get_or_init(|| {
        let output = Command::new(repository().join("tests/aws-local/setup")).stderr(Stdio::inherit()).output();
        let output = output.expect("tests/aws-local/setup can be run");
        assert!(output.status.success(), "tests/aws-local/setup failed, see above");
        PathBuf::from(String::from_utf8_lossy(&output.stdout).trim())
    })
}

fn configuration(setup: &Setup, folder: &Path, environment: &Path) -> Value {
    let functions = FunctionName::ALL.map(|name| setup.function(name).as_json(name));
    json!({
        "directory": folder,
        "cargo_lambda": environment.join("bin/cargo-lambda"),
        "functions": functions,
        "variables": {
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
        },
    })
}

struct Answer {
    status: u16,
    function_error: bool,
    body: String,
}

fn post(port: u16, path: &str, body: &str) -> std::io::Result<Answer> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    let length = body.len();
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    )?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    let function_error = head.to_ascii_lowercase().contains("\r\nx-amz-function-error:");
    Ok(Answer { status, function_error, body: body.to_owned() })
}
