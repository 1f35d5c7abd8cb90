//! What a batch would cost, on paper.

use std::fmt::Write as _;

use crate::price::{self, Batch};

/// The table, with its prices, against a machine that is always on.
pub(super) fn cost() -> String {
    let mut text = format!(
        "
### On paper: 40 million staged rows onto 1.2 billion, in 30 minutes

With on-demand prices of us-east-1 from general knowledge of 2025, to be checked: ${} a GB-second, ${} a million calls, ${} a thousand state transitions;
against one machine that is always on and runs the Python program (m6i.large, ${} an hour, ${:.0} a month). The database, its storage, NAT and endpoints are not part of it.

| executors | GB-seconds | state transitions | a batch | a month, one a day | a month, one each half hour |
|---|---|---|---|---|---|
",
        price::GB_SECOND,
        price::MILLION_CALLS,
        price::THOUSAND_TRANSITIONS,
        price::MACHINE_HOUR,
        price::MACHINE_HOUR * price::MONTH_HOURS
    );
    for executors in [16, 64] {
        let cost = Batch { executors, seconds: 1_800.0, memory_mb: 128.0 }.cost();
        let _ = writeln!(
            text,
            "| {executors} | {:.0} | {:.0} | ${:.3} | ${:.2} | ${:.0} |",
            cost.gb_seconds,
            cost.transitions,
            cost.dollars,
            cost.dollars * 30.0,
            cost.dollars * 30.0 * 48.0
        );
    }
    text.push_str("\nSo functions are cheaper for batches that come some times a day, and dearer where every half hour is used up whole.\n");
    text
}
