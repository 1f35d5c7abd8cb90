//! Tables and numbers for people.

use std::io::IsTerminal;

use anstyle::AnsiColor;
use comfy_table::{Cell, CellAlignment, Color, ColumnConstraint, ContentArrangement, Table, presets};
use stagemill_engine::{
    finding::{Finding, Severity},
    ledger::summary::Summary,
    outcome::Status,
};

use crate::world::{Stream, no_color, styled};

/// Widest where there is no terminal to ask.
const WIDTH: u16 = 160;

/// An empty table with a header, as wide as the terminal at most.
pub(crate) fn new<const N: usize>(header: [&str; N]) -> Table {
    let mut table = bare();
    table.set_header(header.map(|title| Cell::new(title).fg(Color::Cyan)));
    table
}

fn bare() -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
    // A terminal that was opened by a program can have no columns.
    let width = table.width().filter(|width| std::io::stdout().is_terminal() && *width > 0);
    if width.is_none() || no_color() {
        // It would end colours that nobody began.
        table.force_no_tty().set_width(width.unwrap_or(WIDTH));
    }
    table
}

/// A text of more than this may be broken into lines.
const TEXT: u16 = 34;

/// Hides columns, the first named first, until a table fits the terminal: a number that is broken into two lines is misread.
pub(crate) fn fit(table: &mut Table, dispensable: &[usize]) {
    let Some(width) = table.width() else { return };
    for n in dispensable {
        if needed(table) <= width {
            return;
        }
        hide(table, [*n]);
    }
}

/// Hides columns.
pub(crate) fn hide(table: &mut Table, columns: impl IntoIterator<Item = usize>) {
    for n in columns {
        if let Some(column) = table.column_mut(n) {
            column.set_constraint(ColumnConstraint::Hidden);
        }
    }
}

/// How wide a table has to be. Each column has two blanks and a border, and there is one border more.
fn needed(table: &Table) -> u16 {
    let widths = table.column_max_content_widths();
    let shown = table.column_iter().zip(widths).filter(|(column, _)| !column.is_hidden());
    1 + shown.map(|(_, width)| width.min(TEXT) + 3).sum::<u16>()
}

/// Two columns: what, and its value.
pub(crate) fn facts(rows: Vec<(&str, Cell)>) -> Table {
    let mut table = bare();
    for (name, value) in rows {
        table.add_row(vec![fact(name), value]);
    }
    table
}

/// The name of a fact.
pub(crate) fn fact(name: &str) -> Cell {
    Cell::new(name).fg(Color::Cyan)
}

/// A number, to the right.
pub(crate) fn number(n: i64) -> Cell {
    Cell::new(count(n)).set_alignment(CellAlignment::Right)
}

/// A run's status, coloured by what it asks of the reader.
pub(crate) fn status(status: Status) -> Cell {
    let color = match status {
        Status::Complete => Color::Green,
        Status::CompleteWithRejects => Color::Yellow,
        Status::Planning | Status::Running => Color::Blue,
        Status::Interrupted | Status::Abandoned => Color::Yellow,
        Status::Incomplete | Status::Failed | Status::SourceChanged | Status::Stopped => Color::Red,
    };
    Cell::new(status.as_str()).fg(color)
}

/// Findings, errors first. Not a table: a remedy is there to be copied, and a cell would break it into lines.
pub(crate) fn findings(findings: &[Finding], stream: Stream) -> String {
    let mut sorted: Vec<&Finding> = findings.iter().collect();
    sorted.sort_by_key(|finding| finding.severity);
    let lines = sorted.iter().map(|finding| {
        let word = match finding.severity {
            Severity::Error => styled(stream, AnsiColor::Red, "error  "),
            Severity::Warning => styled(stream, AnsiColor::Yellow, "warning"),
        };
        format!("  {word}  {} {}\n           -> {}", finding.at, finding.fault, finding.remedy)
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// What a run came to.
pub(crate) fn summary(summary: &Summary, log: Option<&str>) -> Table {
    let tally = &summary.tally;
    let failed = if tally.failed > 0 { format!(", {} failed", count(tally.failed)) } else { String::new() };
    let mut rows = vec![
        ("run", Cell::new(summary.run)),
        ("job", Cell::new(format!("{}: {} to {}", summary.job, plain(&summary.stage), plain(&summary.target)))),
        ("status", status(summary.status)),
        ("rows", Cell::new(rows(summary))),
        (
            "chunks",
            Cell::new(format!(
                "{} of {} applied{failed}; {}, {}",
                count(tally.processed),
                count(tally.chunks),
                many(tally.retries, "retry", "retries"),
                sessions(summary)
            )),
        ),
        ("time", Cell::new(format!("{}, {} rows/s", duration(seconds(summary)), count(rate(summary))))),
    ];
    rows.extend(held(summary).map(|held| ("held back", Cell::new(held))));
    rows.extend(deadline(summary).map(|deadline| ("deadline", Cell::new(deadline))));
    if let Some(reported) = &summary.statement_rows {
        let reported: Vec<String> = reported.iter().map(|rows| count(*rows)).collect();
        rows.push(("statements", Cell::new(format!("{} rows, in their order", reported.join(", ")))));
    }
    if summary.outside > 0 {
        let outside =
            format!("{} in no range of chunks.query: not applied", many(summary.outside, "staged row", "staged rows"));
        rows.push(("outside", Cell::new(outside)));
    }
    rows.extend(window(summary).map(|window| ("window", Cell::new(window))));
    rows.extend(summary.error.as_ref().map(|error| ("error", Cell::new(with_code(summary, error)))));
    rows.extend(log.map(|log| ("log", Cell::new(log))));
    facts(rows)
}

/// How many chunks at a time.
pub(crate) fn sessions(summary: &Summary) -> String {
    let (allowed, most) = (i64::from(summary.allowed), i64::from(summary.parallelism));
    match (summary.auto, allowed == most) {
        (true, _) => format!("{} (auto, up to {most})", many(allowed, "session", "sessions")),
        (false, true) => many(most, "session", "sessions"),
        (false, false) => format!("{allowed} of {}", many(most, "session", "sessions")),
    }
}

/// What held it back, and for how long.
fn held(summary: &Summary) -> Option<String> {
    let now = summary.held.as_ref().map(|why| format!("now: {why}"));
    let total = (summary.held_seconds >= 0.5).then(|| format!("{} in all", whole_duration(summary.held_seconds)));
    match (total, now) {
        (None, None) => None,
        (total, now) => Some(total.into_iter().chain(now).collect::<Vec<_>>().join("; ")),
    }
}

/// Whether it will be, or was, done in time.
fn deadline(summary: &Summary) -> Option<String> {
    let (at, late) = (summary.deadline_at.as_ref()?, summary.late_seconds?);
    let how = match (summary.deadline_met, summary.predicted_end.is_some()) {
        (Some(true), _) => format!("met, {} before it", whole_duration(-late)),
        (Some(false), _) if late > 0.0 => format!("missed by {}", whole_duration(late)),
        // It ended in time, and was not complete.
        (Some(false), _) => "not met: the run is not complete".to_owned(),
        (None, true) if late > 0.0 => format!("will probably be missed by {}", whole_duration(late)),
        (None, true) => format!("will probably be met, {} before it", whole_duration(-late)),
        (None, false) => format!("in {}", whole_duration(-late)),
    };
    Some(format!("{at}: {how}"))
}

/// Why it is not complete, with the server's code.
pub(crate) fn with_code(summary: &Summary, error: &str) -> String {
    // What to type stands below the table, where it can be copied.
    let error = error.split("; `stagemill").next().unwrap_or(error);
    let class = summary.error_class.as_deref().unwrap_or("error");
    match &summary.sqlstate {
        Some(code) => format!("{class} (SQLSTATE {code}): {error}"),
        None => format!("{class}: {error}"),
    }
}

/// Which rows were this run's, of a job with a watermark.
fn window(summary: &Summary) -> Option<String> {
    let high = summary.window_high.as_ref()?;
    let above = summary.window_low.as_ref().map(|low| format!("above {low}, ")).unwrap_or_default();
    Some(format!("{above}up to {high}"))
}

/// Rows by what became of them; kinds that did not occur are left out.
pub(crate) fn rows(summary: &Summary) -> String {
    let counts = &summary.tally.counts;
    let kinds = [
        (counts.inserted, "inserted"),
        (counts.updated, "updated"),
        (counts.deleted, "deleted"),
        (counts.unchanged, "unchanged"),
        (counts.skipped, "skipped"),
        (counts.rejected, "set aside"),
        (counts.handed, "handed to the job's statements"),
    ];
    let parts: Vec<String> =
        kinds.iter().filter(|(n, _)| *n > 0).map(|(n, kind)| format!("{} {kind}", count(*n))).collect();
    let staged = format!("{} staged", count(counts.staged));
    if parts.is_empty() { staged } else { format!("{staged} = {}", parts.join(" + ")) }
}

/// Seconds from a run's start to its end, or to the last sign of life of one that was interrupted.
pub(crate) fn seconds(summary: &Summary) -> f64 {
    match (summary.status, summary.silent_seconds) {
        (Status::Interrupted, Some(silent)) => summary.seconds - silent,
        _ => summary.seconds,
    }
}

/// Staged rows a second, over the run's whole time.
pub(crate) fn rate(summary: &Summary) -> i64 {
    (summary.tally.counts.staged as f64 / seconds(summary).max(0.001)) as i64
}

/// A name without the quotes that SQL can do without: `"edw_ods"."Account"` is `edw_ods."Account"`.
pub(crate) fn plain(name: &str) -> String {
    let simple = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
            && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    if name.contains("\"\"") {
        return name.to_owned();
    }
    let mut text = String::new();
    for (n, part) in name.split('"').enumerate() {
        // Every other part is inside quotes.
        text += &if n % 2 == 1 && !simple(part) { format!("\"{part}\"") } else { part.to_owned() };
    }
    text
}

/// `1,234,567`.
pub(crate) fn count(n: i64) -> String {
    let digits = n.unsigned_abs().to_string();
    let mut text = String::from(if n < 0 { "-" } else { "" });
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 retry`, `2 retries`.
pub(crate) fn many(n: i64, one: &str, more: &str) -> String {
    format!("{} {}", count(n), if n == 1 { one } else { more })
}

/// `0.42 s`, `12.3 s`, `4 min 05 s`, `2 h 04 min`.
pub(crate) fn duration(seconds: f64) -> String {
    let whole = seconds.max(0.0).round() as u64;
    match seconds {
        s if s < 9.995 => format!("{s:.2} s"),
        s if s < 59.95 => format!("{s:.1} s"),
        _ if whole < 3600 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole % 3600 / 60),
    }
}

/// The same where fractions of a second would say nothing.
pub(crate) fn whole_duration(seconds: f64) -> String {
    if seconds < 59.5 { format!("{:.0} s", seconds.max(0.0)) } else { duration(seconds) }
}

/// What may be typed next, one command a line, with what it does.
pub(crate) fn commands(lines: &[(&str, &str)]) -> String {
    let width = lines.iter().map(|(command, _)| command.len()).max().unwrap_or(0);
    let lines = lines.iter().map(|(command, what)| format!("  {command:width$}    {what}"));
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_hidden_in_their_order_until_a_table_fits_and_long_texts_are_broken_instead() {
        let shown = |width: u16, text: usize| {
            let mut table = new(["name", "ms", "n", "why"]);
            table.add_row(["abcdefgh", "12345", "1234567", &"why ".repeat(text)]);
            table.set_width(width);
            fit(&mut table, &[1, 2]);
            let hidden = table.column_iter().map(|column| !column.is_hidden()).collect::<Vec<_>>();
            (hidden, table.to_string().lines().all(|line| line.chars().count() <= usize::from(width)))
        };
        assert_eq!(shown(80, 5), (vec![true, true, true, true], true));
        assert_eq!(shown(58, 50), (vec![true, false, false, true], true));
        assert_eq!(shown(66, 50), (vec![true, false, true, true], true));
        assert_eq!(shown(67, 50), (vec![true, true, true, true], true));
    }

    #[test]
    fn numbers_and_times_read_easily() {
        assert_eq!([0, 999, 1_000, -1_234_567].map(count), ["0", "999", "1,000", "-1,234,567"]);
        assert_eq!([0.421, 12.34, 245.0, 7_440.0].map(duration), ["0.42 s", "12.3 s", "4 min 05 s", "2 h 04 min"]);
        assert_eq!([r#""a"."b_2""#, r#""A"."b""#, r#""a""b""#].map(plain), ["a.b_2", r#""A".b"#, r#""a""b""#]);
        assert_eq!((many(1, "retry", "retries"), many(0, "retry", "retries")), ("1 retry".into(), "0 retries".into()));
    }
}
