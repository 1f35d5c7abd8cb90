//! The real state machine with the functions' real programs, on the local AWS of the tests (`tests/aws-local`).

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::program::{Program, repository, timed};

const REGION: &str = "us-east-1";
const ACCOUNT: &str = "123456789012";

/// No execution takes longer.
const PATIENCE: Duration = Duration::from_secs(300);

/// A running local AWS with the state machine.
pub(crate) struct StateMachine {
    front: Child,
    /// It ends when its input does.
    lifeline: Option<ChildStdin>,
    port: u16,
    arn: String,
    _folder: TempDir,
}

impl StateMachine {
    /// Starts the functions' front and creates the state machine.
    pub(crate) fn start(url: &str) -> Result<Self> {
        let aws = repository().join("tests/aws-local");
        let (environment, _) = timed(Command::new(aws.join("setup")))?;
        let environment = std::path::Path::new(environment.trim());
        let folder = tempfile::tempdir()?;
        let mut front = Command::new(environment.join("bin/python"))
            .arg(aws.join("front.py"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(folder.path().join("front.log"))?)
            .spawn()
            .context("the local AWS can't be started")?;
        let mut lifeline = front.stdin.take().context("the local AWS has no input")?;
        let functions = ["planner", "executor", "recorder"].map(|name| function(name, url));
        let functions: Vec<Value> = functions.into_iter().collect::<Result<_>>()?;
        let config = json!({ "directory": folder.path(), "cargo_lambda": environment.join("bin/cargo-lambda"), "functions": functions,
                             "variables": { "AWS_REGION": REGION, "AWS_DEFAULT_REGION": REGION, "AWS_ACCESS_KEY_ID": "bench",
                                            "AWS_SECRET_ACCESS_KEY": "bench" } });
        writeln!(lifeline, "{config}")?;
        let mut line = String::new();
        BufReader::new(front.stdout.take().context("the local AWS has no output")?).read_line(&mut line)?;
        let mut machine = Self { front, lifeline: Some(lifeline), port: 0, arn: String::new(), _folder: folder };
        let ready: Value = serde_json::from_str(&line).context("the local AWS did not start")?;
        machine.port =
            ready["port"].as_u64().and_then(|port| u16::try_from(port).ok()).context("the local AWS has no port")?;
        let created = machine.ask(
            "CreateStateMachine",
            &json!({ "name": "apply", "definition": definition()?, "roleArn": format!("arn:aws:iam::{ACCOUNT}:role/apply") }),
        )?;
        created["stateMachineArn"].as_str().context("the state machine was refused")?.clone_into(&mut machine.arn);
        Ok(machine)
    }

    /// Runs an execution to its end, and says how long it took.
    pub(crate) fn run(&self, name: &str, input: &Value) -> Result<Duration> {
        let began = Instant::now();
        let started = self
            .ask("StartExecution", &json!({ "stateMachineArn": self.arn, "name": name, "input": input.to_string() }))?;
        while began.elapsed() < PATIENCE {
            let found = self.ask("DescribeExecution", &json!({ "executionArn": started["executionArn"] }))?;
            match found["status"].as_str() {
                Some("RUNNING") => thread::sleep(Duration::from_millis(20)),
                Some("SUCCEEDED") => return Ok(began.elapsed()),
                _ => bail!("the execution did not succeed: {found}"),
            }
        }
        bail!("the execution did not end in {} s", PATIENCE.as_secs())
    }

    /// Asks Step Functions.
    fn ask(&self, action: &str, body: &Value) -> Result<Value> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        let body = body.to_string();
        // Nobody verifies the signature; the service is read from its scope.
        write!(
            stream,
            "POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Type: application/x-amz-json-1.0\r\n\
             X-Amz-Target: AWSStepFunctions.{action}\r\n\
             Authorization: AWS4-HMAC-SHA256 Credential=bench/20250101/{REGION}/states/aws4_request, SignedHeaders=host, Signature=0\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        )?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        let (head, body) = text.split_once("\r\n\r\n").context("the local AWS gave no answer")?;
        if head.split(' ').nth(1) != Some("200") {
            bail!("{action} was refused: {body}");
        }
        serde_json::from_str(body).with_context(|| format!("{action} was answered with {body:?}"))
    }
}

impl Drop for StateMachine {
    fn drop(&mut self) {
        drop(self.lifeline.take());
        // It stops the functions first; whatever hangs is left to nobody.
        for _ in 0..500 {
            if !matches!(self.front.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
        let _ = self.front.kill();
        let _ = self.front.wait();
    }
}

/// A function as the front wants it.
fn function(name: &str, url: &str) -> Result<Value> {
    Ok(
        json!({ "name": name, "arn": arn(name), "version": "1", "binary": Program::release(name)?.path(), "timeout_s": 300.0, "memory_mb": 128,
               "concurrency": null, "environment": { "DATABASE_URL": url, "ALLOW_INLINE_JOBS": "true" } }),
    )
}

fn arn(function: &str) -> String {
    format!("arn:aws:lambda:{REGION}:{ACCOUNT}:function:{function}")
}

/// The state machine as the template would deploy it.
fn definition() -> Result<String> {
    let text = fs::read_to_string(repository().join("statemachine/apply.asl.json"))?;
    let names = [("Planner", "planner"), ("Executor", "executor"), ("Recorder", "recorder")];
    let text = names.iter().fold(text, |text, (placeholder, name)| {
        text.replace(&format!("${{{placeholder}FunctionArn}}"), &format!("{}:1", arn(name)))
    });
    Ok(text.replace("${ExecutionTimeoutSeconds}", &PATIENCE.as_secs().to_string()).replace("${Partition}", "aws"))
}
