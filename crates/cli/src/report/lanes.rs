//! Chunks on the time axis, a lane a worker.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write,
};

use stagemill_engine::ledger::timeline::{Chunk, State, Timeline};

use super::{
    axis::{Axis, WIDTH, clock, spread},
    histogram::length,
};
use crate::table::{count, many};

/// The height of a lane, in pixels.
pub(crate) const HEIGHT: usize = 16;

/// A run can have had hundreds of workers.
const MOST_LANES: usize = 48;

/// Of more chunks than this none is drawn by itself: the page would be megabytes.
const MOST_BOXES: usize = 2_500;

/// Cells of a lane in which chunks are not drawn by themselves.
const CELLS: usize = 240;

/// Narrower boxes would not be seen; of chunks that went wrong, not on a telephone.
const NARROWEST: f64 = 1.2;
const NARROWEST_TROUBLE: f64 = 3.0;

/// Chunks on the time axis.
#[derive(Debug)]
pub(crate) struct Lanes {
    pub(crate) names: Vec<Name>,
    pub(crate) height: usize,
    pub(crate) boxes: Vec<Drawn>,
    /// Where chunks are not drawn by themselves: a path for each class.
    pub(crate) paths: BTreeMap<String, String>,
    /// Workers without a lane.
    pub(crate) more: usize,
}

/// A worker's name, short and in full.
#[derive(Debug)]
pub(crate) struct Name {
    pub(crate) short: String,
    pub(crate) full: String,
}

/// A chunk.
#[derive(Debug)]
pub(crate) struct Drawn {
    pub(crate) x: f64,
    pub(crate) y: usize,
    pub(crate) width: f64,
    pub(crate) class: &'static str,
    pub(crate) title: String,
}

/// From when to when a chunk's last attempt went.
pub(crate) fn span(chunk: &Chunk, timeline: &Timeline) -> Option<(f64, f64)> {
    let since = chunk.since?;
    // One that waits for its next attempt is nobody's.
    let until = if chunk.state == State::Assigned { Some(timeline.until) } else { chunk.until };
    Some((since, until?.max(since)))
}

/// Draws them.
pub(crate) fn lanes(timeline: &Timeline, axis: &Axis) -> Lanes {
    let places = places(timeline);
    let shown = places.iter().flatten().count();
    let mut lanes = Lanes {
        names: names(timeline, &places),
        height: shown * HEIGHT,
        boxes: Vec::new(),
        paths: BTreeMap::new(),
        more: timeline.workers.len() - shown,
    };
    let placed = timeline.chunks.iter().filter_map(|chunk| {
        let lane = places.get(chunk.worker?).copied().flatten()?;
        Some((chunk, lane, span(chunk, timeline)?))
    });
    if timeline.chunks.len() <= MOST_BOXES {
        lanes.boxes = placed.map(|(chunk, lane, span)| drawn(chunk, lane, span, axis)).collect();
        // What is to be seen lies on top.
        lanes.boxes.sort_by_key(|drawn| rank(drawn.class));
    } else {
        lanes.paths = summed(placed, shown, axis);
    }
    lanes
}

/// The lane of each worker, in the order in which they began; none for those beyond the last lane.
fn places(timeline: &Timeline) -> Vec<Option<usize>> {
    let mut first = vec![f64::INFINITY; timeline.workers.len()];
    for chunk in &timeline.chunks {
        if let (Some(worker), Some(since)) = (chunk.worker, chunk.since)
            && let Some(first) = first.get_mut(worker)
        {
            *first = first.min(since);
        }
    }
    // Processes by time, and the workers of one by number.
    let mut began: HashMap<&str, f64> = HashMap::new();
    for (name, first) in timeline.workers.iter().zip(&first) {
        let began = began.entry(split(name).0).or_insert(f64::INFINITY);
        *began = began.min(*first);
    }
    let mut order: Vec<(usize, f64, Option<u32>)> = timeline
        .workers
        .iter()
        .map(|name| (began.get(split(name).0).copied().unwrap_or(f64::INFINITY), split(name).1.parse().ok()))
        .enumerate()
        .map(|(worker, (began, number))| (worker, began, number))
        .collect();
    order.sort_by(|one, other| one.1.total_cmp(&other.1).then(one.2.cmp(&other.2)));
    let mut places = vec![None; first.len()];
    for (lane, (worker, ..)) in order.into_iter().take(MOST_LANES).enumerate() {
        if let Some(place) = places.get_mut(worker) {
            *place = Some(lane);
        }
    }
    places
}

/// `host:process:start/number`, as command lines call their workers.
fn split(name: &str) -> (&str, &str) {
    name.rsplit_once('/').unwrap_or((name, ""))
}

fn names(timeline: &Timeline, places: &[Option<usize>]) -> Vec<Name> {
    let mut names: Vec<(usize, Name)> = places
        .iter()
        .zip(&timeline.workers)
        .filter_map(|(lane, full)| {
            let short = match split(full) {
                (_, number) if number.parse::<u32>().is_ok() => format!("worker {number}"),
                // A sandbox's name is long, and its end tells it from others.
                _ => full.chars().skip(full.chars().count().saturating_sub(10)).collect(),
            };
            Some(((*lane)?, Name { short, full: full.clone() }))
        })
        .collect();
    names.sort_by_key(|(lane, _)| *lane);
    names.into_iter().map(|(_, name)| name).collect()
}

fn drawn(chunk: &Chunk, lane: usize, (since, until): (f64, f64), axis: &Axis) -> Drawn {
    let (left, right) = (axis.x(since), axis.x(until));
    // Neighbours are told apart by a gap, where there is room for one.
    let gap = if right - left > 4.0 { 0.8 } else { 0.0 };
    let class = class(chunk);
    let narrowest = if matches!(class, "done" | "open") { NARROWEST } else { NARROWEST_TROUBLE };
    let width = (right - left - gap).max(narrowest);
    Drawn { x: left.min(WIDTH - width), y: lane * HEIGHT + 2, width, class, title: title(chunk, (since, until)) }
}

fn title(chunk: &Chunk, (since, until): (f64, f64)) -> String {
    let mut title =
        format!("chunk {}, at {}: {}", chunk.chunk, clock((since * 10.0).round() / 10.0), length(until - since));
    if let Some(staged) = chunk.staged {
        let _ = write!(title, ", {} rows", count(staged));
    }
    if chunk.attempts > 1 {
        let _ = write!(title, ", {}", many(i64::from(chunk.attempts), "try", "tries"));
    }
    match (chunk.state, &chunk.error_class, &chunk.sqlstate) {
        (State::Assigned, ..) => title.push_str(", in flight"),
        (State::Split, ..) => title.push_str(", too slow: split"),
        (_, Some(class), Some(code)) => title += &format!(", {class} (SQLSTATE {code})"),
        (_, Some(class), None) => title += &format!(", {class}"),
        _ => {}
    }
    title
}

/// What a chunk is drawn as.
pub(crate) fn class(chunk: &Chunk) -> &'static str {
    match chunk.state {
        State::ProcessedWithError => "failed",
        State::Split => "split",
        State::Assigned => "open",
        State::Unassigned => "again",
        State::Processed if chunk.attempts > 1 => "again",
        State::Processed => "done",
    }
}

/// How busy a lane was, cell by cell, in four steps; and where chunks failed or were tried again.
fn summed<'a>(
    placed: impl Iterator<Item = (&'a Chunk, usize, (f64, f64))>,
    shown: usize,
    axis: &Axis,
) -> BTreeMap<String, String> {
    let cells = axis.cells(CELLS);
    let mut busy = vec![vec![0.0; cells.len()]; shown];
    let mut worst = vec![vec!["done"; cells.len()]; shown];
    for (chunk, lane, (since, until)) in placed {
        let (Some(busy), Some(worst)) = (busy.get_mut(lane), worst.get_mut(lane)) else { continue };
        spread(&cells, busy, (since, until), until - since);
        let at = cells.partition_point(|(_, end)| *end <= until).min(cells.len().saturating_sub(1));
        if let Some(worst) = worst.get_mut(at)
            && rank(class(chunk)) > rank(worst)
        {
            *worst = class(chunk);
        }
    }
    let mut paths = BTreeMap::new();
    for (lane, (busy, worst)) in busy.iter().zip(&worst).enumerate() {
        paint(&mut paths, lane, axis, &cells, busy, worst);
    }
    paths
}

fn rank(class: &str) -> usize {
    ["done", "open", "again", "split", "failed"].iter().position(|known| *known == class).unwrap_or(0)
}

/// Cells of one kind beside each other are one box.
fn paint(
    paths: &mut BTreeMap<String, String>,
    lane: usize,
    axis: &Axis,
    cells: &[(f64, f64)],
    busy: &[f64],
    worst: &[&str],
) {
    let kinds = cells.iter().zip(busy).zip(worst).map(|(((since, until), busy), worst)| {
        let part = busy / (until - since).max(1e-9);
        let kind = if part < 0.01 { None } else { Some(((part * 4.0).ceil().clamp(1.0, 4.0) as u8, *worst)) };
        (kind, axis.x(*since), axis.x(*until))
    });
    let mut boxes: Vec<(_, f64, f64)> = Vec::new();
    for (kind, left, right) in kinds {
        match boxes.last_mut() {
            Some((last, _, end)) if *last == kind && (left - *end).abs() < 0.5 => *end = right,
            _ => boxes.push((kind, left, right)),
        }
    }
    for (kind, left, right) in boxes {
        if let Some((part, worst)) = kind {
            let path = paths.entry(format!("{worst} part{part}")).or_default();
            let _ = write!(path, "M{left:.0} {}H{right:.0}v{}H{left:.0}Z", lane * HEIGHT + 2, HEIGHT - 4);
        }
    }
}
