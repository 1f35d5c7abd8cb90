//! A function's process with Lambda's runtime API before it, and Secrets Manager, both of a few lines: for what is measured of one process.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow, bail};
use serde_json::{Value, json};

use crate::{machine, program::Program};

/// A call has as long as on Lambda.
const CALL: Duration = Duration::from_secs(900);

/// How long a start may take.
const START: Duration = Duration::from_secs(20);

/// A running function.
pub(crate) struct Sandbox {
    process: Child,
    runtime: Arc<Runtime>,
    heard: Receiver<Heard>,
    /// From the process's start until it asked for its first event.
    pub(crate) init: Duration,
}

/// Where a function finds its database.
pub(crate) enum Database<'a> {
    /// Through a secret with this text.
    Secret(&'a Value),
    /// By an address, with TLS by the authority in this file where there is one.
    Url { url: &'a str, authority: Option<&'a str> },
}

/// What the process said.
enum Heard {
    AsksForEvent(Instant),
    Answers(Result<Value, String>),
}

/// The events that wait for the process, and what it is told of its secret.
struct Runtime {
    events: Mutex<VecDeque<String>>,
    arrived: Condvar,
    secret: Value,
    heard: Sender<Heard>,
}

impl Sandbox {
    /// Starts a function and waits until it asks for its first event.
    pub(crate) fn start(function: &str, database: &Database<'_>) -> Result<Self> {
        let program = Program::release(function)?;
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let address = listener.local_addr()?.to_string();
        let (sender, heard) = mpsc::channel();
        let secret = match database {
            Database::Secret(text) => {
                json!({ "ARN": "secret", "Name": "secret", "VersionId": "1", "SecretString": text.to_string() })
            }
            Database::Url { .. } => Value::Null,
        };
        let runtime = Arc::new(Runtime { events: Mutex::default(), arrived: Condvar::new(), secret, heard: sender });
        let serving = Arc::clone(&runtime);
        // Ends with this process; a function's connections end with the function.
        thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let runtime = Arc::clone(&serving);
                thread::spawn(move || runtime.serve(&connection));
            }
        });
        let mut command = Command::new(program.path());
        command
            .env_remove("DATABASE_URL")
            .envs([("AWS_LAMBDA_RUNTIME_API", address.as_str()), ("AWS_LAMBDA_FUNCTION_NAME", function)])
            .envs([
                ("AWS_LAMBDA_FUNCTION_VERSION", "1"),
                ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128"),
                ("AWS_REGION", "us-east-1"),
            ])
            .envs([("AWS_LAMBDA_LOG_GROUP_NAME", "bench"), ("AWS_LAMBDA_LOG_STREAM_NAME", "bench")])
            .envs([("AWS_ACCESS_KEY_ID", "bench"), ("AWS_SECRET_ACCESS_KEY", "bench")])
            .env("AWS_ENDPOINT_URL_SECRETS_MANAGER", format!("http://{address}"))
            .env("ALLOW_INLINE_JOBS", "true")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        match database {
            Database::Secret(_) => drop(command.env("SECRET_ARN", "secret")),
            Database::Url { url, authority } => {
                command.env("DATABASE_URL", url);
                command.envs(authority.map(|file| ("DATABASE_CA_FILE", file)));
            }
        }
        let began = Instant::now();
        let process = command.spawn().with_context(|| format!("{function} can't be started"))?;
        let mut sandbox = Self { process, runtime, heard, init: Duration::ZERO };
        sandbox.init = match sandbox.heard.recv_timeout(START) {
            Ok(Heard::AsksForEvent(at)) => at.duration_since(began),
            _ => bail!("{function} asked for no event within {} s", START.as_secs()),
        };
        Ok(sandbox)
    }

    /// Has it work on an event, and says what it answered and after how long.
    pub(crate) fn invoke(&self, event: &Value) -> Result<(Value, Duration)> {
        let began = Instant::now();
        self.runtime.events.lock().unwrap_or_else(PoisonError::into_inner).push_back(event.to_string());
        self.runtime.arrived.notify_one();
        let answer = loop {
            match self.heard.recv_timeout(CALL).context("the function gave no answer")? {
                Heard::Answers(answer) => break answer,
                Heard::AsksForEvent(_) => {}
            }
        };
        Ok((answer.map_err(|error| anyhow!("the function failed: {error}"))?, began.elapsed()))
    }

    /// The most memory that it ever had, in MB.
    pub(crate) fn peak_mb(&self) -> Result<f64> {
        let peak = machine::field(&format!("/proc/{}/status", self.process.id()), "VmHWM");
        let kb: f64 = peak.trim_end_matches("kB").trim().parse().context("the process's peak memory can't be read")?;
        Ok(kb / 1024.0)
    }

    /// Seconds of a processor that it used so far, to 0.01.
    pub(crate) fn processor_seconds(&self) -> Result<f64> {
        machine::processor_seconds(self.process.id())
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Runtime {
    /// Answers the requests of a connection until it ends.
    fn serve(&self, connection: &TcpStream) {
        let mut reader = BufReader::new(connection);
        while let Some(Request { path, body }) = Request::read(&mut reader) {
            let (headers, text) = self.answer(&path, &body);
            let status =
                if path.ends_with("/response") || path.ends_with("/error") { "202 Accepted" } else { "200 OK" };
            let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n{headers}\r\n{text}", text.len());
            let mut connection = connection;
            if connection.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    }

    fn answer(&self, path: &str, body: &str) -> (String, String) {
        // Nobody listens any more when the sandbox is dropped.
        let tell = |heard| drop(self.heard.send(heard));
        if path.ends_with("/invocation/next") {
            tell(Heard::AsksForEvent(Instant::now()));
            let events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
            let mut events =
                self.arrived.wait_while(events, |events| events.is_empty()).unwrap_or_else(PoisonError::into_inner);
            let deadline = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default() + CALL;
            let headers = format!(
                "Lambda-Runtime-Aws-Request-Id: 1\r\nLambda-Runtime-Deadline-Ms: {}\r\n\
                 Lambda-Runtime-Invoked-Function-Arn: arn:aws:lambda:us-east-1:123456789012:function:bench\r\n",
                deadline.as_millis()
            );
            return (headers, events.pop_front().unwrap_or_default());
        }
        if path.ends_with("/response") {
            tell(Heard::Answers(serde_json::from_str(body).map_err(|error| error.to_string())));
        } else if path.ends_with("/error") {
            tell(Heard::Answers(Err(body.to_owned())));
        } else {
            return ("Content-Type: application/x-amz-json-1.1\r\n".to_owned(), self.secret.to_string());
        }
        (String::new(), "{}".to_owned())
    }
}

/// What a client asks.
struct Request {
    path: String,
    body: String,
}

impl Request {
    /// `None` at the connection's end.
    fn read(reader: &mut impl BufRead) -> Option<Self> {
        let first = line(reader)?;
        let path = first.split(' ').nth(1)?.to_owned();
        let (mut length, mut chunked) = (0, false);
        loop {
            let header = line(reader)?.to_ascii_lowercase();
            match header.split_once(':') {
                None => break,
                Some(("content-length", value)) => length = value.trim().parse().ok()?,
                Some(("transfer-encoding", value)) => chunked = value.trim() == "chunked",
                Some(_) => {}
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        while chunked {
            let size = usize::from_str_radix(&line(reader)?, 16).ok()?;
            let mut chunk = vec![0; size];
            reader.read_exact(&mut chunk).ok()?;
            line(reader)?;
            body.extend(chunk);
            chunked = size > 0;
        }
        Some(Self { path, body: String::from_utf8_lossy(&body).into_owned() })
    }
}

/// A line without its end; `None` where there is no more.
fn line(reader: &mut impl BufRead) -> Option<String> {
    let mut text = String::new();
    let read = reader.read_line(&mut text).ok()?;
    (read > 0).then(|| text.trim_end().to_owned())
}

/// Starts a function so many times, one after the other: milliseconds until each asked for an event.
pub(crate) fn init_ms(function: &str, database: &Database<'_>, times: u32) -> Result<Vec<f64>> {
    (0..times).map(|_| Ok(Sandbox::start(function, database)?.init.as_secs_f64() * 1000.0)).collect()
}
