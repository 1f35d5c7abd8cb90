//! The functions: their zips, their start, and the memory that they need for a real batch.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Effort;
use crate::{
    program::{Program, timed},
    sandbox::{Database, Sandbox, init_ms},
    server::{COPY, Server},
    workload::{Operation, PREWARM, Secondary, Size, make_target, make_template},
};

/// What was measured.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Lambda {
    pub(crate) functions: Vec<Function>,
    /// The batch of which peak memory was taken: an update, all of it by one executor.
    pub(crate) batch: Option<Batch>,
}

/// A function.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) zip_bytes: u64,
    /// From the process's start until it asks for an event.
    pub(crate) init_ms: Vec<f64>,
    /// After the batch, with credentials from a secret.
    pub(crate) peak_mb: f64,
    /// After the batch, with TLS to the server.
    pub(crate) peak_tls_mb: f64,
}

/// A batch in one executor.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Batch {
    pub(crate) size: Size,
    pub(crate) chunks: u64,
    pub(crate) executor_seconds: f64,
    /// Of a processor of this machine, in the executor's process.
    pub(crate) executor_processor_seconds: f64,
}

const FUNCTIONS: [&str; 3] = ["planner", "executor", "recorder"];

/// Starts of each function.
const STARTS: u32 = 20;

pub(crate) fn run(effort: Effort, found: &mut Lambda) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let certificate = folder.path().join("server.crt");
    let key = folder.path().join("server.key");
    let mut make = Command::new("openssl");
    make.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"])
        .args(["-addext", "subjectAltName=IP:127.0.0.1", "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&certificate);
    timed(make)?;
    let server = Server::start_with_tls("2GB", &fs::read_to_string(&certificate)?, &fs::read_to_string(&key)?)?;
    let size = if effort.quick {
        Size { staged: 20_000, target: 200_000 }
    } else {
        Size { staged: 400_000, target: 4_000_000 }
    };
    eprintln!("lambda: filling {} target rows", size.target);
    make_target(&server, "base", size, Secondary::Near)?;
    let template = make_template(&server, "base", Operation::Update, size)?;
    let secret = json!({ "username": server.user(), "password": "none", "host": "127.0.0.1", "port": server.port(), "dbname": COPY });
    let (plain, batch) = peaks(&server, &template, size, &Database::Secret(&secret))?;
    found.batch = Some(batch);
    let url = format!("{}?sslmode=require", server.url(COPY));
    let authority = certificate.display().to_string();
    let (tls, _) = peaks(&server, &template, size, &Database::Url { url: &url, authority: Some(&authority) })?;
    for (place, name) in FUNCTIONS.into_iter().enumerate() {
        let function = Function {
            name: name.to_owned(),
            zip_bytes: zip_bytes(name, folder.path())?,
            init_ms: init_ms(name, &Database::Secret(&secret), STARTS)?,
            peak_mb: plain[place],
            peak_tls_mb: tls[place],
        };
        eprintln!(
            "  {name}: zip {} bytes, peak {:.1} MB, with TLS {:.1} MB",
            function.zip_bytes, function.peak_mb, function.peak_tls_mb
        );
        found.functions.push(function);
    }
    Ok(())
}

/// Applies a batch with one process of each function: their peaks in MB.
fn peaks(server: &Server, template: &str, size: Size, database: &Database<'_>) -> Result<([f64; 3], Batch)> {
    server.copy(template)?;
    server.sql(COPY, PREWARM)?;
    let [planner, executor, recorder] = [0, 1, 2].map(|place| Sandbox::start(FUNCTIONS[place], database));
    let (planner, executor, recorder) = (planner?, executor?, recorder?);
    let job = Operation::Update.job();
    let (plan, _) = planner.invoke(&json!({ "start": "bench", "input": { "job": job } }))?;
    let items = plan["items"].as_array().filter(|items| !items.is_empty()).context("the planner gave no items")?;
    let mut seconds = 0.0;
    for item in items {
        let (answer, took) = executor.invoke(item)?;
        if answer["remaining"] != 0 {
            bail!("the executor left chunks: {answer}");
        }
        seconds += took.as_secs_f64();
    }
    let number = |item: Option<&Value>, field: &str| item.and_then(|item| item[field].as_u64()).unwrap_or_default();
    let chunks = number(items.last(), "last") + 1 - number(items.first(), "first");
    let (verdict, _) =
        recorder.invoke(&json!({ "start": "bench", "run": items[0]["run"], "round": items[0]["round"] }))?;
    if verdict["status"] != "complete" {
        bail!("the recorder's verdict: {verdict}");
    }
    let batch =
        Batch { size, chunks, executor_seconds: seconds, executor_processor_seconds: executor.processor_seconds()? };
    Ok(([planner.peak_mb()?, executor.peak_mb()?, recorder.peak_mb()?], batch))
}

/// The size of a function's zip, as it is deployed: the release program, as `bootstrap`.
fn zip_bytes(function: &str, folder: &std::path::Path) -> Result<u64> {
    const ZIP: &str = "import sys, zipfile; zipfile.ZipFile(sys.argv[2], 'w', zipfile.ZIP_DEFLATED, compresslevel=9).write(sys.argv[1], 'bootstrap')";
    let zip = folder.join(format!("{function}.zip"));
    let mut command = Command::new("python3");
    command.args(["-c", ZIP]).arg(Program::release(function)?.path()).arg(&zip);
    timed(command)?;
    Ok(fs::metadata(zip)?.len())
}
