//! What is made of repetitions.

/// The middle one; of an even number the mean of the two in the middle. `None` of nothing.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        length if length % 2 == 1 => Some(sorted[middle]),
        _ => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
    }
}

/// How many times as fast as `other` something is: `other`'s median by its own.
pub(crate) fn times_as_fast(own: &[f64], other: &[f64]) -> Option<f64> {
    Some(median(other)? / median(own)?)
}

/// Seconds for one unit more: what does not grow with the number falls out.
pub(crate) fn slope(few: (f64, f64), many: (f64, f64)) -> f64 {
    (many.1 - few.1) / (many.0 - few.0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::float_cmp, reason = "these are exact")]

    use super::*;

    #[test]
    fn the_median_is_the_middle_one_in_any_order() {
        assert_eq!(median(&[3.0, 1.0, 100.0]), Some(3.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 100.0]), Some(3.0));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn twice_as_fast_takes_half_the_time() {
        assert_eq!(times_as_fast(&[1.0, 2.0, 9.0], &[4.0]), Some(2.0));
        assert_eq!(times_as_fast(&[], &[4.0]), None);
    }

    #[test]
    fn a_slope_leaves_out_what_does_not_grow() {
        assert_eq!(slope((100.0, 5.1), (1100.0, 6.1)), 0.001);
    }
}
