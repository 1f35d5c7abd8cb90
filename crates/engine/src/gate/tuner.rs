//! Finds how many chunks at a time are best for a run.
//!
//! Two signals. Sessions that mostly wait for reads leave the processors idle: their number doubles while they do, which takes a few looks and no
//! chunk has to end; that they do no more is believed when chunks have. Where they never did, rows per second decide: more sessions while that brings more rows. What was found is kept for a minute;
//! only then are fewer tried as well, since a window at a number that is too small costs a short run more than it can gain.

use serde::{Deserialize, Serialize};
use tokio_postgres::types::Type;

use crate::{chunk::CHUNKS_A_SESSION, failure::Failure, pg::Connection};

/// Sessions looked at, before their waits say something, and how often.
const ENOUGH_SESSIONS: u32 = 12;
const ENOUGH_LOOKS: u32 = 3;

/// While so large a share of them waits for reads, twice as many are tried. Where processors are not used up, the share is the same however many
/// sessions there are, so that a larger one would end the search by chance; where they are, it falls with each step.
const MUCH_READING: f64 = 0.5;

/// Chunks for each session that have to end before a rate is one, and seconds that have to pass.
const ENOUGH_CHUNKS: u32 = 3;
const SHORTEST_WINDOW: f64 = 0.2;

/// Half as many sessions more have to bring at least so much more: rates vary by some per cent by themselves.
const WORTH_IT: f64 = 1.15;

/// Fewer sessions may bring so much less.
const AS_GOOD: f64 = 0.97;

/// A number that was found is kept for so many seconds, then its neighbours are tried again: what goes on at the server changes.
const KEPT: f64 = 60.0;

/// A run as a look finds it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Seen {
    /// The server's clock, seconds.
    pub now: f64,
    /// Rows of the chunks that were applied, and how many they are.
    pub rows: i64,
    /// Chunks that were applied.
    pub chunks: i64,
    /// Chunks of the run.
    pub planned: u64,
    /// Sessions that run a statement of a chunk.
    pub active: u32,
    /// Those of them that wait for a read.
    pub reading: u32,
}

/// What is known so far, at the number that is tried now.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tuner {
    stage: Stage,
    /// What was seen since this number is tried: how often, sessions, and those that waited for reads.
    looks: u32,
    active: u32,
    reading: u32,
    /// Where the window begins in which rows are counted: when, rows, chunks; none until as many chunks have ended as there are sessions, since
    /// they may have begun at the number before.
    window: Option<(f64, i64, i64)>,
    /// Chunks applied when this number was first tried.
    chunks_before: Option<i64>,
    /// The best number so far, and its rows per second.
    best: Option<(u32, f64)>,
    /// The waits for reads have doubled the number.
    doubled: bool,
    /// A number was found before.
    found: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
enum Stage {
    /// By what sessions wait for.
    #[default]
    Waits,
    /// By rows per second, upwards.
    Up,
    /// By rows per second, downwards.
    Down,
    /// Found; until then.
    Kept(f64),
}

impl Tuner {
    /// Takes a look into account. Returns the number to try next, and why, when it is another one.
    pub fn step(&mut self, allowed: u32, most: u32, seen: &Seen) -> Option<(u32, String)> {
        if self.keeps(seen.now) {
            return None;
        }
        if matches!(self.stage, Stage::Kept(_)) {
            self.best = None;
            self.look_anew(Stage::Up);
        }
        // With fewer chunks for each, the last ones would be at work alone, and what the first ones do would say nothing of the run.
        let most = most.min(u32::try_from(seen.planned.div_ceil(CHUNKS_A_SESSION)).unwrap_or(most).max(1));
        self.looks += u32::from(seen.active > 0);
        self.active += seen.active;
        self.reading += seen.reading;
        let rate = self.rate(allowed, seen);
        if self.stage == Stage::Waits {
            return self.by_waits(allowed, most, seen.now);
        }
        self.by_rate(allowed, most, rate?, seen.now)
    }

    /// Whether nothing is tried for a while.
    pub fn keeps(&self, now: f64) -> bool {
        matches!(self.stage, Stage::Kept(until) if now < until)
    }

    fn by_waits(&mut self, allowed: u32, most: u32, now: f64) -> Option<(u32, String)> {
        if self.looks < ENOUGH_LOOKS || self.active < ENOUGH_SESSIONS {
            return None;
        }
        let share = f64::from(self.reading) / f64::from(self.active);
        let reading = share >= MUCH_READING;
        if reading && allowed < most {
            self.doubled = true;
            self.look_anew(Stage::Waits);
            let reason = format!("more: {:.0} % of the sessions waited for reads", share * 100.0);
            return Some(((allowed * 2).min(most), reason));
        }
        if !reading {
            // Chunks that began together first take their rows, from pages that planning has read, and wait for the target's pages only then.
            self.window?;
        }
        if reading || self.doubled {
            // Between this number and half of it little is to be gained: a window of rows per second takes three rounds of chunks.
            self.look_anew(Stage::Kept(now + KEPT));
        } else {
            self.stage = Stage::Up;
        }
        None
    }

    /// Rows per second at this number, once enough chunks have ended that were begun at it.
    fn rate(&mut self, allowed: u32, seen: &Seen) -> Option<f64> {
        let before = *self.chunks_before.get_or_insert(seen.chunks);
        let Some((since, rows, chunks)) = self.window else {
            if seen.chunks - before >= i64::from(allowed) {
                self.window = Some((seen.now, seen.rows, seen.chunks));
            }
            return None;
        };
        let seconds = seen.now - since;
        let enough = seen.chunks - chunks >= i64::from(ENOUGH_CHUNKS * allowed);
        (enough && seconds >= SHORTEST_WINDOW).then(|| (seen.rows - rows) as f64 / seconds)
    }

    fn by_rate(&mut self, allowed: u32, most: u32, rate: f64, now: f64) -> Option<(u32, String)> {
        let up = self.stage == Stage::Up;
        let (best, best_rate) = self.best.unwrap_or((allowed, rate));
        let first = self.best.is_none();
        let better = first || if up { rate >= best_rate * WORTH_IT } else { rate >= best_rate * AS_GOOD };
        if better {
            // Going down gives no ground step by step: each is held to the best rate there was.
            self.best = Some((allowed, if up || first { rate } else { best_rate.max(rate) }));
        }
        let next = if up { allowed + (allowed / 2).max(1) } else { allowed / 2 };
        if better && up && next <= most {
            self.look_anew(Stage::Up);
            return Some((next, format!("more: {rate:.0} rows/s at {allowed}")));
        }
        if better && !up && next >= 1 {
            self.look_anew(Stage::Down);
            return Some((next, format!("fewer: as many rows/s at {allowed}")));
        }
        // Nothing above was better than where it began: perhaps fewer do as well.
        if up && self.found && best > 1 && (first || self.best.is_some_and(|(found, _)| found == best && !better)) {
            self.look_anew(Stage::Down);
            return Some((
                (best / 2).max(1),
                format!("fewer: {rate:.0} rows/s at {allowed}, {best_rate:.0} at {best}"),
            ));
        }
        let found = self.best.map_or(allowed, |(found, _)| found);
        self.look_anew(Stage::Kept(now + KEPT));
        (found != allowed).then(|| (found, format!("found: {best_rate:.0} rows/s at {found}, {rate:.0} at {allowed}")))
    }

    fn look_anew(&mut self, stage: Stage) {
        let found = self.found || matches!(stage, Stage::Kept(_));
        *self = Self { stage, best: self.best, doubled: self.doubled, found, ..Self::default() };
    }
}

/// Looks at a run: its chunks, and what its sessions wait for.
///
/// # Errors
/// What the server or the connection says.
pub(super) async fn look(connection: &Connection, run: i64, now: f64) -> Result<Seen, Failure> {
    let sql = "SELECT c.rows, c.chunks, (SELECT COALESCE(pg_catalog.max(chunk_id), 0)::int8 FROM stagemill.chunk WHERE run_id = $1), s.active, s.reading
               FROM (SELECT COALESCE(pg_catalog.sum(staged), 0)::int8 AS rows, pg_catalog.count(*) AS chunks
                     FROM stagemill.chunk WHERE run_id = $1 AND state = 'PROCESSED') c,
                    (SELECT pg_catalog.count(*)::int4 AS active, (pg_catalog.count(*) FILTER (WHERE wait_event_type = 'IO'))::int4 AS reading
                     FROM pg_catalog.pg_stat_activity
                     WHERE state = 'active' AND datname = pg_catalog.current_database()
                       AND application_name ~ ('^stagemill:' || $1 || ':[0-9]+:[0-9]+$')) s";
    let row = connection.query_one(sql, &[(&run, Type::INT8)]).await?;
    let count = |n: i32| u32::try_from(n).unwrap_or(0);
    Ok(Seen {
        now,
        rows: row.get(0),
        chunks: row.get(1),
        planned: u64::try_from(row.get::<_, i64>(2)).unwrap_or(0),
        active: count(row.get(3)),
        reading: count(row.get(4)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server of so many processors, on which a row costs `cpu` seconds of one and `read` seconds of waiting. Returns the number that is
    /// found, and the seconds until then.
    fn find(tuner: Tuner, processors: f64, cpu: f64, read: f64, most: u32) -> (u32, f64) {
        let (mut tuner, mut allowed) = (tuner, 4.min(most));
        let (mut now, mut rows) = (0.0, 0.0);
        const CHUNK: f64 = 1_000.0;
        while now < 600.0 {
            let alone = f64::from(allowed) / (cpu + read);
            let rate = alone.min(processors / cpu) * (1.0 - f64::from(allowed.saturating_sub(48)) * 0.01);
            let reading = (rate * read).round() as u32;
            rows += rate * 0.1;
            now += 0.1;
            let seen = Seen {
                now,
                rows: rows as i64,
                chunks: (rows / CHUNK) as i64,
                planned: 8_000,
                active: allowed,
                reading,
            };
            if let Some((to, _)) = tuner.step(allowed, most, &seen) {
                assert!(to >= 1 && to <= most, "{to}");
                allowed = to;
            }
            if matches!(tuner.stage, Stage::Kept(_)) {
                return (allowed, now);
            }
        }
        panic!("nothing was found in 600 s: {tuner:?}");
    }

    #[test]
    fn where_the_processors_are_busy_it_stays_with_few_and_tries_fewer_only_later() {
        let (found, seconds) = find(Tuner::default(), 2.0, 7e-6, 0.0, 64);
        assert_eq!(found, 4);
        assert!(seconds < 3.0, "{seconds}");
        let again = Tuner { stage: Stage::Up, found: true, ..Tuner::default() };
        let (found, _) = find(again, 2.0, 7e-6, 0.0, 64);
        assert!((2..=3).contains(&found), "{found}");
    }

    #[test]
    fn where_sessions_wait_for_reads_many_are_found_and_soon() {
        let (found, seconds) = find(Tuner::default(), 2.0, 5e-5, 1e-3, 64);
        assert!((28..=64).contains(&found), "{found}");
        assert!(seconds < 2.0, "{seconds}");
        // Before any chunk has ended the number has doubled three times.
        let mut tuner = Tuner::default();
        let mut allowed = 4;
        for look in 0..9 {
            let seen = Seen {
                now: f64::from(look) * 0.1,
                rows: 0,
                chunks: 0,
                planned: 8_000,
                active: allowed,
                reading: allowed,
            };
            allowed = tuner.step(allowed, 64, &seen).map_or(allowed, |(to, _)| to);
        }
        assert!(allowed >= 32, "{allowed}");
    }

    #[test]
    fn chunks_that_only_take_their_rows_yet_do_not_end_the_search() {
        let mut tuner = Tuner::default();
        let seen = |look: u32, reading: u32, chunks: i64| Seen {
            now: f64::from(look) * 0.1,
            rows: 0,
            chunks,
            planned: 8_000,
            active: 8,
            reading,
        };
        for look in 0..5 {
            assert_eq!(tuner.step(8, 64, &seen(look, 0, 0)), None);
        }
        let doubled = (5..20).find_map(|look| tuner.step(8, 64, &seen(look, 8, 0))).map(|(to, _)| to);
        assert_eq!(doubled, Some(16));
        // Once as many have ended as there are sessions, what was seen counts.
        for look in 20..25 {
            assert_eq!(tuner.step(8, 64, &seen(look, 0, 1)), None);
        }
        tuner.step(8, 64, &seen(25, 0, 9));
        assert!(tuner.keeps(2.6));
    }

    #[test]
    fn a_run_of_few_chunks_has_few_sessions() {
        let mut tuner = Tuner::default();
        let mut allowed = 4;
        for look in 0..30 {
            let seen =
                Seen { now: f64::from(look) * 0.1, rows: 0, chunks: 0, planned: 80, active: allowed, reading: allowed };
            allowed = tuner.step(allowed, 64, &seen).map_or(allowed, |(to, _)| to);
        }
        assert_eq!(allowed, 10);
    }

    #[test]
    fn on_a_large_server_as_many_as_bring_more() {
        let (found, _) = find(Tuner::default(), 64.0, 7e-6, 0.0, 64);
        assert!(found >= 40, "{found}");
        assert!(find(Tuner::default(), 64.0, 7e-6, 0.0, 6).0 <= 6);
        assert_eq!(find(Tuner::default(), 1.0, 7e-6, 0.0, 1).0, 1);
    }

    #[test]
    fn what_was_found_is_looked_at_again_after_a_minute() {
        let mut tuner = Tuner { stage: Stage::Kept(60.0), ..Tuner::default() };
        let seen = |now: f64| Seen { now, rows: 0, chunks: 0, planned: 8_000, active: 4, reading: 0 };
        assert_eq!(tuner.step(4, 64, &seen(59.0)), None);
        assert!(matches!(tuner.stage, Stage::Kept(_)));
        tuner.step(4, 64, &seen(61.0));
        assert_eq!(tuner.stage, Stage::Up);
    }
}
