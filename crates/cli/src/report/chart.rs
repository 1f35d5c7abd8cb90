//! Charts over the time axis: what was done a second, and how many chunks were in flight.

use std::fmt::Write;

use super::axis::{Axis, WIDTH};

/// The height of a chart, in units of its own.
pub(crate) const HEIGHT: f64 = 100.0;

/// An area, and perhaps a line of steps, over the time axis.
#[derive(Debug)]
pub(crate) struct Chart {
    /// The path of the area.
    pub(crate) area: String,
    /// The path of the line.
    pub(crate) line: String,
    /// The scale's labels.
    pub(crate) marks: Vec<Mark>,
}

/// A label of the scale, and the line that goes with it.
#[derive(Debug)]
pub(crate) struct Mark {
    /// From the top, in percent.
    pub(crate) top: f64,
    pub(crate) label: String,
}

/// Draws a value for each cell, and the steps of another: `(since, value)`.
pub(crate) fn chart(axis: &Axis, cells: &[(f64, f64)], values: &[f64], steps: &[(f64, f64)], until: f64) -> Chart {
    let highest = values.iter().copied().chain(steps.iter().map(|step| step.1)).fold(0.0, f64::max);
    let top = scale_end(highest.max(1e-3));
    let y = |value: f64| HEIGHT - value / top * HEIGHT;
    let marks = [1.0, 0.5].map(|part| Mark { top: (1.0 - part) * 100.0, label: compact(top * part) });
    Chart { area: area(axis, cells, values, &y), line: line(axis, steps, until, &y), marks: marks.into() }
}

fn area(axis: &Axis, cells: &[(f64, f64)], values: &[f64], y: &impl Fn(f64) -> f64) -> String {
    let mut path = String::new();
    let mut last_end = f64::NAN;
    for ((since, until), value) in cells.iter().zip(values) {
        let (left, right, top) = (axis.x(*since), axis.x(*until), y(*value));
        if (left - last_end).abs() > 0.5 || path.is_empty() {
            // Time was left out: the area ends and begins anew.
            let close = if path.is_empty() { "" } else { "Z" };
            let down = if path.is_empty() { String::new() } else { format!("V{HEIGHT}") };
            let _ = write!(path, "{down}{close}M{left:.1} {HEIGHT}");
        }
        let _ = write!(path, "V{top:.1}H{right:.1}");
        last_end = right;
    }
    if !path.is_empty() {
        let _ = write!(path, "V{HEIGHT}Z");
    }
    path
}

fn line(axis: &Axis, steps: &[(f64, f64)], until: f64, y: &impl Fn(f64) -> f64) -> String {
    let mut path = String::new();
    for (since, value) in steps {
        let x = axis.x(*since);
        let _ = if path.is_empty() {
            write!(path, "M{x:.1} {:.1}", y(*value))
        } else {
            write!(path, "H{x:.1}V{:.1}", y(*value))
        };
    }
    if !path.is_empty() {
        let _ = write!(path, "H{:.1}", axis.x(until).min(WIDTH));
    }
    path
}

/// Where a scale ends: a number of which the half is round too, with a little room above the highest value.
pub(crate) fn scale_end(highest: f64) -> f64 {
    next_of(&[1.0, 1.2, 1.6, 2.0, 2.4, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0], highest * 1.04)
}

/// The next of 1, 2, 5, 10, ...
pub(crate) fn round_up(value: f64) -> f64 {
    next_of(&[1.0, 2.0, 5.0, 10.0], value)
}

fn next_of(steps: &[f64], value: f64) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    steps.iter().map(|step| step * power).find(|step| *step >= value * 0.999_999).unwrap_or(value)
}

/// `950`, `1.5k`, `2M`.
pub(crate) fn compact(value: f64) -> String {
    let (scaled, unit) = match value {
        v if v >= 1e6 => (v / 1e6, "M"),
        v if v >= 1e3 => (v / 1e3, "k"),
        v => (v, ""),
    };
    format!("{}{unit}", (scaled * 100.0).round() / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_end_at_round_numbers() {
        assert_eq!([5_400.0, 6.0, 8.0, 130.0].map(scale_end), [6_000.0, 8.0, 10.0, 160.0]);
        assert_eq!([0.3, 1.0, 3.0, 70.0, 150_000.0].map(round_up), [0.5, 1.0, 5.0, 100.0, 200_000.0]);
        assert_eq!([0.5, 950.0, 1_500.0, 2e6].map(compact), ["0.5", "950", "1.5k", "2M"]);
    }

    #[test]
    fn an_area_goes_down_where_time_is_left_out_and_a_line_goes_on() {
        let axis = Axis::new(vec![(0.0, 100.0), (30_000.0, 30_100.0)]);
        let cells = axis.cells(2);
        let drawn = chart(&axis, &cells, &[4.75, 9.5], &[(0.0, 9.5), (30_050.0, 4.75)], 30_100.0);
        assert_eq!(drawn.area, "M0.0 100V52.5H491.0V100ZM509.0 100V5.0H1000.0V100Z");
        assert_eq!(drawn.line, "M0.0 5.0H754.5V52.5H1000.0");
    }
}
