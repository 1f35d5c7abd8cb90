//! How long chunks took: a histogram with ten bars a power of ten, since a few chunks take a hundred times as long as the others.

use super::chart::{compact, scale_end};
use crate::table::many;

/// With fewer it would look like nothing.
const FEWEST: i32 = 14;

/// Shorter ones are as good as nothing.
const SHORTEST: f64 = 0.000_1;

/// How long chunks took.
#[derive(Debug)]
pub(crate) struct Histogram {
    pub(crate) bars: Vec<Bar>,
    pub(crate) labels: Vec<Label>,
    /// How many chunks the scale ends at.
    pub(crate) top: String,
}

/// Chunks that took about as long as each other. All in percent of the chart.
#[derive(Debug)]
pub(crate) struct Bar {
    pub(crate) left: f64,
    pub(crate) width: f64,
    pub(crate) height: f64,
    pub(crate) title: String,
}

/// A label below the bars.
#[derive(Debug)]
pub(crate) struct Label {
    pub(crate) left: f64,
    pub(crate) text: String,
}

/// Draws durations in seconds, which are sorted; none for none.
pub(crate) fn histogram(sorted: &[f64]) -> Option<Histogram> {
    let (mut first, mut last) = (bar_of(*sorted.first()?), bar_of(*sorted.last()?));
    let missing = (FEWEST - (last - first + 1)).max(0);
    first -= missing / 2;
    last += missing - missing / 2;
    let mut counts = vec![0_u32; usize::try_from(last - first + 1).ok()?];
    for seconds in sorted {
        if let Some(count) = usize::try_from(bar_of(*seconds) - first).ok().and_then(|bar| counts.get_mut(bar)) {
            *count += 1;
        }
    }
    let width = 100.0 / counts.len() as f64;
    let top = scale_end(f64::from(counts.iter().copied().max()?));
    let bars = (first..).zip(&counts).filter(|(_, count)| **count > 0).map(|(bar, count)| Bar {
        left: f64::from(bar - first) * width,
        width,
        // One chunk is still seen.
        height: (f64::from(*count) / top * 100.0).max(1.5),
        title: format!(
            "{} to {}: {}",
            length(edge(bar)),
            length(edge(bar + 1)),
            many(i64::from(*count), "chunk", "chunks")
        ),
    });
    let shown = if counts.len() > 32 { &[0][..] } else { &[0, 3, 7] };
    let labels = (first..=last)
        .filter(|bar| shown.contains(&bar.rem_euclid(10)))
        .map(|bar| Label { left: f64::from(bar - first) * width, text: length(edge(bar)) });
    Some(Histogram { bars: bars.collect(), labels: labels.collect(), top: compact(top) })
}

/// A power of ten is cut at round numbers about as far apart from each other.
const ROUND: [f64; 10] = [1.0, 1.3, 1.6, 2.0, 2.5, 3.2, 4.0, 5.0, 6.3, 8.0];

/// The bar that a duration is in.
fn bar_of(seconds: f64) -> i32 {
    let seconds = seconds.max(SHORTEST);
    let decade = (seconds.log10() + 1e-9).floor() as i32;
    let in_decade = ROUND.iter().filter(|edge| **edge * 10_f64.powi(decade) <= seconds * (1.0 + 1e-9)).count();
    decade * 10 + i32::try_from(in_decade).unwrap_or(1).max(1) - 1
}

/// Where a bar begins.
fn edge(bar: i32) -> f64 {
    let of_decade = usize::try_from(bar.rem_euclid(10)).ok().and_then(|n| ROUND.get(n));
    of_decade.copied().unwrap_or(1.0) * 10_f64.powi(bar.div_euclid(10))
}

/// `0.5 ms`, `20 ms`, `5 s`, `3 min`.
pub(crate) fn length(seconds: f64) -> String {
    let digits =
        |value: f64| if value < 9.95 { format!("{}", (value * 10.0).round() / 10.0) } else { format!("{value:.0}") };
    match seconds {
        s if s < 0.999_5 => format!("{} ms", digits(s * 1e3)),
        s if s < 120.0 => format!("{} s", digits(s)),
        s if s < 7_200.0 => format!("{} min", digits(s / 60.0)),
        s => format!("{} h", digits(s / 3_600.0)),
    }
}

/// The duration that this part of them does not exceed.
pub(crate) fn quantile(sorted: &[f64], part: f64) -> f64 {
    let at = ((sorted.len() as f64 * part).ceil() as usize).clamp(1, sorted.len().max(1)) - 1;
    sorted.get(at).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_chunk_is_in_one_bar_and_the_few_slow_ones_are_seen() {
        let mut durations = vec![0.01; 900];
        durations.extend([5.0]);
        let drawn = histogram(&durations).unwrap();
        let titles: Vec<&str> = drawn.bars.iter().map(|bar| bar.title.as_str()).collect();
        assert_eq!(titles, ["10 ms to 13 ms: 900 chunks", "5 s to 6.3 s: 1 chunk"]);
        assert_eq!((drawn.top.as_str(), drawn.bars[0].height, drawn.bars[1].height), ("1k", 90.0, 1.5));
        assert!(drawn.bars.iter().all(|bar| bar.left >= 0.0 && bar.left + bar.width <= 100.01));
    }

    #[test]
    fn equal_durations_are_one_bar_in_the_middle_and_none_are_no_chart() {
        let drawn = histogram(&[0.0, 0.0]).unwrap();
        assert_eq!((drawn.bars.len(), drawn.bars[0].left.round()), (1, 43.0));
        assert!(histogram(&[]).is_none());
    }

    #[test]
    fn quantiles_are_durations_that_were_seen() {
        let sorted = [1.0, 2.0, 3.0, 4.0];
        assert_eq!([0.0, 0.5, 0.95, 1.0].map(|part| quantile(&sorted, part)), [1.0, 2.0, 4.0, 4.0]);
        assert_eq!(quantile(&[], 0.5), 0.0);
        assert_eq!([0.0005, 0.02, 5.0, 180.0, 9_000.0].map(length), ["0.5 ms", "20 ms", "5 s", "3 min", "2.5 h"]);
    }
}
