//! What a batch would cost on AWS, on paper: on-demand prices of us-east-1, from general knowledge of 2025. They are to be checked.

/// A GB-second of a function, and a million calls.
pub(crate) const GB_SECOND: f64 = 0.000_016_666_7;
pub(crate) const MILLION_CALLS: f64 = 0.20;

/// A thousand state transitions of a standard workflow.
pub(crate) const THOUSAND_TRANSITIONS: f64 = 0.025;

/// An hour of a machine with 2 processors and 8 GB (m6i.large), and the hours of a month.
pub(crate) const MACHINE_HOUR: f64 = 0.096;
pub(crate) const MONTH_HOURS: f64 = 730.0;

/// Items for each session, as the planner makes them, and the most of them.
const ITEMS_A_SESSION: u32 = 8;
const MOST_ITEMS: u32 = 800;

/// A batch that takes all of its time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Batch {
    pub(crate) executors: u32,
    pub(crate) seconds: f64,
    pub(crate) memory_mb: f64,
}

/// What it uses and costs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Cost {
    pub(crate) gb_seconds: f64,
    pub(crate) transitions: f64,
    pub(crate) dollars: f64,
}

impl Batch {
    pub(crate) fn cost(self) -> Cost {
        let items = f64::from((self.executors * ITEMS_A_SESSION).min(MOST_ITEMS));
        // A call ends before 15 minutes; an item that needs more is called again.
        let calls_an_item = (self.seconds * f64::from(self.executors) / items / 870.0).ceil();
        let calls = items * calls_an_item + 2.0;
        // Start, Plan, Planned, Apply, Record, Decide, Applied; and of each child its start, Done, and for each call Execute and More.
        let transitions = 7.0 + items * (2.0 + 2.0 * calls_an_item);
        let gb_seconds = self.seconds * f64::from(self.executors) * self.memory_mb / 1024.0;
        let dollars = gb_seconds * GB_SECOND + calls / 1e6 * MILLION_CALLS + transitions / 1e3 * THOUSAND_TRANSITIONS;
        Cost { gb_seconds, transitions, dollars }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sixteen_executors_for_half_an_hour_cost_some_cents() {
        let cost = Batch { executors: 16, seconds: 1_800.0, memory_mb: 128.0 }.cost();
        assert!((cost.gb_seconds - 3_600.0).abs() < 1e-6 && (cost.transitions - 519.0).abs() < 1e-6, "{cost:?}");
        assert!((cost.dollars - 0.073).abs() < 0.001, "{cost:?}");
    }
}
