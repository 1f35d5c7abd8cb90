//! The time axis that all charts of a report share. Time in which nothing went on, between an interruption and a resume the next day, is left
//! out and marked: the charts would be a line at each end otherwise.

/// The width of every chart, in units of its own: the page stretches it.
pub(crate) const WIDTH: f64 = 1000.0;

/// What stands for time that is left out.
const BREAK: f64 = 18.0;

/// A pause of less than a minute is shown as long as it was.
const KEPT: f64 = 60.0;

/// So is one of less than this part of the time in which something went on.
const KEPT_PART: f64 = 0.25;

/// Labels are no nearer to each other than this.
const APART: f64 = 95.0;

/// Seconds from a run's start, and where they are on the page.
#[derive(Debug)]
pub(crate) struct Axis {
    pieces: Vec<Piece>,
    /// Units a second.
    scale: f64,
}

/// Time that is shown as long as it was.
#[derive(Debug, Clone, Copy)]
struct Piece {
    since: f64,
    until: f64,
    x: f64,
}

/// A label on the axis.
#[derive(Debug)]
pub(crate) struct Tick {
    pub(crate) x: f64,
    pub(crate) label: String,
}

/// Time that is left out.
#[derive(Debug)]
pub(crate) struct Break {
    pub(crate) x: f64,
    pub(crate) width: f64,
    pub(crate) seconds: f64,
}

impl Axis {
    /// An axis for spans of time in which something went on.
    pub(crate) fn new(spans: Vec<(f64, f64)>) -> Self {
        let busy = merged(spans, 0.0);
        let length = |pieces: &[(f64, f64)]| pieces.iter().map(|(since, until)| until - since).sum::<f64>();
        let shown = merged(busy.clone(), (length(&busy) * KEPT_PART).max(KEPT));
        let total = length(&shown).max(0.001);
        let scale = (WIDTH - BREAK * shown.len().saturating_sub(1) as f64).max(WIDTH / 2.0) / total;
        let mut x = 0.0;
        let pieces = shown.into_iter().map(|(since, until)| {
            let piece = Piece { since, until, x };
            x += (until - since) * scale + BREAK;
            piece
        });
        Self { pieces: pieces.collect(), scale }
    }

    /// Where a moment is.
    pub(crate) fn x(&self, at: f64) -> f64 {
        let n = self.pieces.partition_point(|piece| piece.since <= at);
        let Some(piece) = n.checked_sub(1).and_then(|n| self.pieces.get(n)) else { return 0.0 };
        let left_out = if at > piece.until && n < self.pieces.len() { BREAK / 2.0 } else { 0.0 };
        piece.x + (at.min(piece.until) - piece.since) * self.scale + left_out
    }

    /// Seconds that are shown.
    pub(crate) fn seconds(&self) -> f64 {
        self.pieces.iter().map(|piece| piece.until - piece.since).sum()
    }

    /// What is left out.
    pub(crate) fn breaks(&self) -> Vec<Break> {
        let pairs = self.pieces.windows(2).filter_map(|pair| match pair {
            [one, next] => Some(Break { x: next.x - BREAK, width: BREAK, seconds: next.since - one.until }),
            _ => None,
        });
        pairs.collect()
    }

    /// Labels at round moments.
    pub(crate) fn ticks(&self) -> Vec<Tick> {
        let step = round_step(self.seconds() / 8.0);
        let mut ticks: Vec<Tick> = Vec::new();
        for piece in &self.pieces {
            let (first, last) = ((piece.since / step).ceil() as i64, (piece.until / step).floor() as i64);
            // The longest axis has nine steps or so; a piece that is not a number has none.
            for n in first..=last.min(first.saturating_add(100)) {
                let at = n as f64 * step;
                let x = self.x(at);
                if ticks.last().is_none_or(|tick| x - tick.x >= APART) {
                    ticks.push(Tick { x, label: clock(at) });
                }
            }
        }
        ticks
    }

    /// Cuts it into about so many cells of equal length.
    pub(crate) fn cells(&self, about: usize) -> Vec<(f64, f64)> {
        let each = (self.seconds() / about as f64).max(1e-6);
        let mut cells = Vec::with_capacity(about);
        for piece in &self.pieces {
            let n = ((piece.until - piece.since) / each).round().clamp(1.0, about as f64);
            let length = (piece.until - piece.since) / n;
            cells.extend((0..n as usize).map(|cell| {
                let since = piece.since + cell as f64 * length;
                (since, since + length)
            }));
        }
        cells
    }
}

/// Spreads an amount over the cells that a span of time meets.
pub(crate) fn spread(cells: &[(f64, f64)], values: &mut [f64], (since, until): (f64, f64), amount: f64) {
    let first = cells.partition_point(|(_, end)| *end <= since).min(cells.len().saturating_sub(1));
    let length = until - since;
    if length <= 0.0 {
        if let Some(value) = values.get_mut(first) {
            *value += amount;
        }
        return;
    }
    for ((begin, end), value) in cells.iter().zip(values.iter_mut()).skip(first) {
        if *begin >= until {
            break;
        }
        *value += amount * (until.min(*end) - since.max(*begin)).max(0.0) / length;
    }
}

/// Spans in their order, those as one that overlap or are no further apart than this.
fn merged(mut spans: Vec<(f64, f64)>, apart: f64) -> Vec<(f64, f64)> {
    spans.sort_by(|one, other| one.0.total_cmp(&other.0));
    let mut merged: Vec<(f64, f64)> = Vec::new();
    for (since, until) in spans {
        match merged.last_mut() {
            Some(last) if since - last.1 <= apart => last.1 = last.1.max(until),
            _ => merged.push((since, until.max(since))),
        }
    }
    merged
}

/// The next step that people count in.
fn round_step(seconds: f64) -> f64 {
    const OF_CLOCKS: [f64; 10] = [60.0, 120.0, 300.0, 600.0, 1_200.0, 1_800.0, 3_600.0, 7_200.0, 14_400.0, 28_800.0];
    if seconds <= 30.0 {
        return super::chart::round_up(seconds.max(0.001));
    }
    OF_CLOCKS.into_iter().find(|step| *step >= seconds).unwrap_or_else(|| (seconds / 86_400.0).ceil() * 86_400.0)
}

/// Time since the start: `0.5 s`, `12 s`, `1:30 min`, `2:05 h`.
pub(crate) fn clock(seconds: f64) -> String {
    let whole = seconds.round() as i64;
    match seconds {
        s if s.fract().abs() > 1e-6 && s < 10.0 => format!("{} s", (s * 1e3).round() / 1e3),
        s if s < 60.0 => format!("{} s", (s * 10.0).round() / 10.0),
        _ if whole < 3_600 => format!("{}:{:02} min", whole / 60, whole % 60),
        _ => format!("{}:{:02} h", whole / 3_600, whole % 3_600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_without_a_pause_fills_the_axis_evenly() {
        let axis = Axis::new(vec![(0.0, 40.0), (40.0, 100.0)]);
        assert_eq!([0.0, 50.0, 100.0, 200.0].map(|at| axis.x(at)), [0.0, 500.0, 1000.0, 1000.0]);
        assert!(axis.breaks().is_empty());
        let labels: Vec<String> = axis.ticks().into_iter().map(|tick| tick.label).collect();
        assert_eq!(labels, ["0 s", "20 s", "40 s", "1:00 min", "1:20 min", "1:40 min"]);
    }

    #[test]
    fn a_night_between_an_interruption_and_a_resume_is_left_out_and_marked() {
        let axis = Axis::new(vec![(0.0, 100.0), (30_000.0, 30_100.0)]);
        assert_eq!((axis.x(100.0), axis.x(30_000.0), axis.x(30_100.0)), (491.0, 509.0, 1000.0));
        assert_eq!(axis.x(15_000.0), 500.0);
        assert_eq!(axis.breaks().iter().map(|gap| gap.seconds).collect::<Vec<_>>(), [29_900.0]);
        assert_eq!(axis.seconds(), 200.0);
    }

    #[test]
    fn what_is_spread_over_cells_is_all_there() {
        let axis = Axis::new(vec![(0.0, 10.0)]);
        let cells = axis.cells(10);
        let mut values = vec![0.0; cells.len()];
        spread(&cells, &mut values, (0.5, 2.5), 20.0);
        assert_eq!(values, [5.0, 10.0, 5.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
        spread(&cells, &mut values, (9.0, 9.0), 7.0);
        spread(&cells, &mut values, (10.0, 10.0), 1.0);
        assert_eq!(values[9], 8.0);
    }

    #[test]
    fn an_axis_without_any_time_can_be_drawn() {
        for spans in [vec![], vec![(0.0, 0.0)]] {
            let axis = Axis::new(spans);
            assert!(axis.x(0.0).is_finite() && axis.ticks().len() <= 1 && axis.cells(10).len() <= 10);
        }
    }

    #[test]
    fn moments_are_written_as_on_a_stopwatch() {
        assert_eq!([0.05, 0.2, 12.0, 90.0, 7_500.0].map(clock), ["0.05 s", "0.2 s", "12 s", "1:30 min", "2:05 h"]);
    }
}
