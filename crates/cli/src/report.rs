//! A run as one HTML page that needs nothing else: no script, no network. What is computed is pure; the page is `report/page.html`.

mod advice;
mod axis;
mod chart;
mod facts;
mod headline;
mod histogram;
mod lanes;
mod trouble;

use askama::Template;
use serde_json::{Value as Json, json};
use stagemill_engine::{
    job::{Job, Parallelism},
    ledger::{
        hold::PEOPLE,
        pace::FIRST_TRIED,
        timeline::{Hold, State, Timeline},
    },
};

use self::{
    advice::{Advice, Asked, advice},
    axis::{Axis, Break, Tick, clock, spread},
    chart::{Chart, chart},
    facts::{Facts, facts},
    headline::{Headline, Tile},
    histogram::{Histogram, histogram, length, quantile},
    lanes::{Lanes, lanes, span},
    trouble::{Cause, Failed, Slow},
};
use crate::{
    exit::CliError,
    table::{count, many, plain, whole_duration},
};

/// Points of the charts over time.
const CELLS: usize = 200;

/// Changes of the pace that are listed.
const MOST_PACES: usize = 12;

#[derive(Template)]
#[template(path = "page.html")]
struct Page<'a> {
    timeline: &'a Timeline,
    headline: Headline,
    tiles: Vec<Tile>,
    /// What to type next.
    next: Option<String>,
    advice: Vec<Advice>,
    over: Overlay,
    ticks: Vec<Tick>,
    lanes: Lanes,
    lane_height: usize,
    rate: Chart,
    flight: Chart,
    histogram: Option<Histogram>,
    quantiles: Vec<(&'static str, String)>,
    causes: Vec<Cause>,
    failed: Vec<Failed>,
    failed_in_all: usize,
    slow: Vec<Slow>,
    holds: Vec<Listed>,
    paces: Vec<Listed>,
    settings: Vec<(&'static str, String)>,
    job: String,
    written: String,
    version: &'static str,
}

/// What lies over every chart on the time axis.
struct Overlay {
    /// Left edge and width of each hold, and what it was.
    holds: Vec<(f64, f64, String)>,
    breaks: Vec<Break>,
    /// Where each round but the first began.
    rounds: Vec<(f64, String)>,
    deadline: Option<f64>,
}

/// A line of a list: when, what, why.
struct Listed {
    when: String,
    what: String,
    why: String,
}

/// Writes the page.
///
/// # Errors
/// A defect of the page.
pub(crate) fn page(timeline: &Timeline, next: Option<&str>, written: String) -> Result<String, CliError> {
    let axis = Axis::new(spans(timeline));
    let facts = facts(timeline, &axis);
    let job = Job::from_value(timeline.job.clone()).ok();
    let over = overlay(timeline, &axis);
    let failed = trouble::failed(timeline);
    let page = Page {
        headline: headline::headline(timeline),
        tiles: headline::tiles(timeline, &facts),
        next: next.map(commands),
        advice: advice(&facts, asked(timeline, job.as_ref())),
        over,
        ticks: axis.ticks(),
        lanes: lanes(timeline, &axis),
        lane_height: lanes::HEIGHT,
        rate: rate(timeline, &axis),
        flight: flight(timeline, &axis, job.as_ref()),
        histogram: histogram(&facts.durations),
        quantiles: quantiles(&facts),
        causes: trouble::causes(timeline),
        failed_in_all: failed.len(),
        failed: failed.into_iter().take(trouble::SHOWN).collect(),
        slow: trouble::slowest(timeline),
        holds: holds(timeline),
        paces: paces(timeline),
        settings: job.as_ref().map(|job| settings(job, timeline)).unwrap_or_default(),
        job: serde_json::to_string_pretty(&timeline.job).unwrap_or_default(),
        timeline,
        written,
        version: env!("CARGO_PKG_VERSION"),
    };
    page.render().map_err(|error| CliError::Internal(format!("the report can't be written: {error}")))
}

/// The same for programs: the timeline, and what to try next.
pub(crate) fn facts_for_programs(timeline: &Timeline) -> Json {
    let facts = facts(timeline, &Axis::new(spans(timeline)));
    let job = Job::from_value(timeline.job.clone()).ok();
    let mut value = json!(timeline);
    value["advice"] = json!(advice(&facts, asked(timeline, job.as_ref())));
    value
}

/// The commands alone, where there are some: the page has said the rest.
fn commands(next: &str) -> String {
    let commands: Vec<&str> = next.lines().filter_map(|line| line.strip_prefix("  ")).collect();
    if commands.is_empty() { next.to_owned() } else { commands.join("\n") }
}

/// Spans of time in which something went on: planning, chunks, and the end.
fn spans(timeline: &Timeline) -> Vec<(f64, f64)> {
    let planned = timeline.rounds.first().copied().unwrap_or(timeline.until);
    let mut spans = vec![(0.0, planned), (timeline.until, timeline.until)];
    spans.extend(timeline.rounds.iter().map(|opened| (*opened, *opened)));
    spans.extend(timeline.chunks.iter().filter_map(|chunk| span(chunk, timeline)));
    spans
}

fn overlay(timeline: &Timeline, axis: &Axis) -> Overlay {
    let holds = timeline.holds.iter().map(|hold| {
        let (left, right) = (axis.x(hold.since), axis.x(hold.until.unwrap_or(timeline.until)));
        (left, (right - left).max(1.0), why(hold))
    });
    let rounds = timeline.rounds.iter().enumerate().skip(1);
    Overlay {
        holds: holds.collect(),
        breaks: axis.breaks(),
        rounds: rounds.map(|(n, opened)| (axis.x(*opened), format!("round {}", n + 1))).collect(),
        deadline: timeline.deadline.filter(|at| *at <= timeline.until).map(|at| axis.x(at)),
    }
}

/// Rows a second: those of a chunk are spread over its time.
fn rate(timeline: &Timeline, axis: &Axis) -> Chart {
    let cells = axis.cells(CELLS);
    let mut rows = vec![0.0; cells.len()];
    for chunk in timeline.chunks.iter().filter(|chunk| chunk.state == State::Processed) {
        if let (Some(span), Some(staged)) = (span(chunk, timeline), chunk.staged) {
            spread(&cells, &mut rows, span, staged as f64);
        }
    }
    chart(axis, &cells, &a_second(&cells, &rows), &[], timeline.until)
}

/// Chunks in flight, and how many were allowed.
fn flight(timeline: &Timeline, axis: &Axis, job: Option<&Job>) -> Chart {
    let cells = axis.cells(CELLS);
    let mut busy = vec![0.0; cells.len()];
    for span in timeline.chunks.iter().filter_map(|chunk| span(chunk, timeline)) {
        spread(&cells, &mut busy, span, span.1 - span.0);
    }
    let first = timeline.rounds.first().copied().unwrap_or(0.0);
    let at_first = job.map_or(timeline.run.parallelism, |job| first_allowed(job.parallelism));
    let mut steps = vec![(first, f64::from(at_first))];
    steps.extend(timeline.paces.iter().map(|pace| (pace.since.max(first), f64::from(pace.allowed))));
    chart(axis, &cells, &a_second(&cells, &busy), &steps, timeline.until)
}

fn first_allowed(parallelism: Parallelism) -> i32 {
    let most = i32::try_from(parallelism.most()).unwrap_or(i32::MAX);
    if parallelism.is_auto() { most.min(FIRST_TRIED) } else { most }
}

fn a_second(cells: &[(f64, f64)], values: &[f64]) -> Vec<f64> {
    cells.iter().zip(values).map(|((since, until), value)| value / (until - since).max(1e-6)).collect()
}

fn asked(timeline: &Timeline, job: Option<&Job>) -> Asked {
    Asked {
        rows: job.map_or(0, |job| i64::from(job.chunks.rows)),
        auto: timeline.run.auto,
        late: timeline.run.deadline_met == Some(false),
    }
}

fn quantiles(facts: &Facts) -> Vec<(&'static str, String)> {
    if facts.durations.is_empty() {
        return Vec::new();
    }
    [("half", 0.5), ("95 %", 0.95), ("all", 1.0)]
        .map(|(name, part)| (name, length(quantile(&facts.durations, part))))
        .into()
}

fn holds(timeline: &Timeline) -> Vec<Listed> {
    let holds = timeline.holds.iter().map(|hold| Listed {
        when: clock((hold.since * 10.0).round() / 10.0),
        what: match hold.until {
            Some(until) => whole_duration(until - hold.since),
            None if timeline.run.status.is_open() => {
                format!("{}, and lasts", whole_duration(timeline.until - hold.since))
            }
            None => whole_duration(timeline.until - hold.since),
        },
        why: why(hold),
    });
    holds.collect()
}

/// A person's reason says that it is one's.
fn why(hold: &Hold) -> String {
    if hold.owner == PEOPLE { hold.reason.clone() } else { format!("{}: {}", hold.owner, hold.reason) }
}

fn paces(timeline: &Timeline) -> Vec<Listed> {
    // The last ones tell what came of it.
    let skipped = timeline.paces.len().saturating_sub(MOST_PACES);
    let paces = timeline.paces.iter().skip(skipped).map(|pace| Listed {
        when: clock((pace.since * 10.0).round() / 10.0),
        what: many(i64::from(pace.allowed), "chunk at a time", "chunks at a time"),
        why: pace.reason.clone(),
    });
    paces.collect()
}

/// The job's words that a run's speed depends on; the whole job stands below them.
fn settings(job: &Job, timeline: &Timeline) -> Vec<(&'static str, String)> {
    let word = |value: Json| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let mut settings = vec![
        ("stage", plain(&timeline.run.stage)),
        ("target", plain(&timeline.run.target)),
        ("operation", job.operation.as_str().to_owned()),
        ("chunks by", word(json!(job.chunks.by))),
        ("rows a chunk", count(i64::from(job.chunks.rows))),
        ("parallelism", word(json!(job.parallelism))),
        ("attempts, rounds", format!("{}, {}", job.retry.attempts, job.retry.rounds)),
        ("bad rows", word(json!(job.on_bad_row))),
        ("stage rows", word(json!(job.stage_rows))),
    ];
    settings.extend(job.deadline_minutes.map(|minutes| ("deadline", format!("{minutes} min"))));
    if !job.limits.is_none() {
        settings.push(("limits", json!(job.limits).to_string()));
    }
    settings.extend((!job.session.is_empty()).then(|| {
        let session: Vec<String> = job.session.iter().map(|(name, value)| format!("{name} = {value}")).collect();
        ("session", session.join(", "))
    }));
    settings
}
