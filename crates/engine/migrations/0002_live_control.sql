-- Live control: how many chunks of a run may be in flight now, what holds it back, by when it has to be done, and what follows it.

ALTER TABLE stagemill.run
    -- parallelism is the most chunks at a time; it may be changed while the run is open.
    -- Whether the run itself finds how many are best, below parallelism.
    ADD COLUMN auto boolean NOT NULL DEFAULT false,
    -- How many may be in flight now: below parallelism where the run goes slower, or has not found the best number yet.
    ADD COLUMN allowed integer CHECK (allowed >= 1),
    -- When limits and allowed were last looked after, and what whoever does it next has to know.
    ADD COLUMN tended_at timestamptz,
    ADD COLUMN tuning jsonb,
    -- The job's deadline_minutes after the start, and when somebody was told that it is at risk.
    ADD COLUMN deadline_at timestamptz,
    ADD COLUMN at_risk_at timestamptz,
    -- Another start came while this run was open: what arrived meanwhile needs one more run.
    ADD COLUMN rerun_requested boolean NOT NULL DEFAULT false,
    -- The triggers of the starts that asked for it: delivered again, they are known.
    ADD COLUMN coalesced_triggers text[] NOT NULL DEFAULT '{}',
    -- The jobs that its execution starts after this one, in order: a start that wants others can't leave them to it.
    ADD COLUMN followed_by text[] NOT NULL DEFAULT '{}';

-- How many workers there may be in this round: a run that is to go faster than that waits for its next one where a state machine started them.
ALTER TABLE stagemill.round ADD COLUMN parallelism integer CHECK (parallelism >= 1);

-- What keeps a run from starting chunks. Each is lifted by whoever set it, or runs out; the rest of the run's life it tells what held it back.
CREATE TABLE stagemill.hold (
    hold_id  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run_id   bigint NOT NULL REFERENCES stagemill.run ON DELETE CASCADE,
    -- Who set it: 'people', 'limits', or an alarm's name.
    owner    text NOT NULL,
    reason   text NOT NULL,
    since    timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    until    timestamptz,
    ended_at timestamptz,
    CHECK (ended_at IS NULL OR ended_at >= since)
);
CREATE UNIQUE INDEX hold_current ON stagemill.hold (run_id, owner) WHERE ended_at IS NULL;
COMMENT ON TABLE stagemill.hold IS 'Pauses of runs, by people, limits and alarms: one that has not ended holds its run back until its time is up.';

-- How many chunks were allowed at a time, from when on, and why.
CREATE TABLE stagemill.pace (
    run_id  bigint NOT NULL REFERENCES stagemill.run ON DELETE CASCADE,
    since   timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    allowed integer NOT NULL CHECK (allowed >= 1),
    reason  text NOT NULL
);
CREATE INDEX pace_run ON stagemill.pace (run_id, since);

CREATE OR REPLACE VIEW stagemill.run_status AS
SELECT r.run_id, r.job, r.status, r.started_by, r.owner, r.started_at, r.planned_at, r.ended_at, r.round, r.round_limit, r.parallelism,
       r.stage_table, r.target_table,
       COALESCE(c.chunks, 0) AS chunks, COALESCE(c.processed, 0) AS processed, COALESCE(c.failed, 0) AS failed,
       COALESCE(c.remaining, 0) AS remaining, COALESCE(c.assigned, 0) AS assigned, COALESCE(c.retries, 0) AS retries,
       COALESCE(c.staged, 0) AS staged, COALESCE(c.inserted, 0) AS inserted, COALESCE(c.updated, 0) AS updated,
       COALESCE(c.deleted, 0) AS deleted, COALESCE(c.unchanged, 0) AS unchanged, COALESCE(c.skipped, 0) AS skipped,
       COALESCE(c.rejected, 0) AS rejected, COALESCE(c.handed, 0) AS handed,
       -- Of a job with statements of its own: the rows that each of them reported.
       (SELECT pg_catalog.array_agg(n.rows ORDER BY n.statement)
        FROM (SELECT u.statement, sum(u.rows)::bigint AS rows FROM stagemill.chunk k, LATERAL unnest(k.statement_rows) WITH ORDINALITY u (rows, statement)
              WHERE k.run_id = r.run_id GROUP BY u.statement) n) AS statement_rows,
       r.window_low, r.window_high, r.outside, r.new_rows, r.recounted,
       r.error_class, r.sqlstate, r.error,
       -- A round that was opened is a sign of life as well: of a resumed run it is the first. So is a look at the limits while it is held back.
       GREATEST(r.started_at, r.planned_at, c.last_seen, o.opened_at, r.tended_at) AS heartbeat_at,
       r.auto, COALESCE(r.allowed, r.parallelism) AS allowed,
       h.reason AS held, h.owner AS held_by, h.since AS held_since, h.until AS held_until,
       COALESCE(t.seconds, 0)::float8 AS held_seconds,
       r.deadline_at,
       -- By the chunks of this round, holds not counted: a guess, which gets better.
       CASE WHEN r.ended_at IS NULL AND c.remaining > 0 AND c.done_since > 0 THEN
           pg_catalog.clock_timestamp() + pg_catalog.make_interval(secs => c.remaining * GREATEST(0,
               EXTRACT(epoch FROM pg_catalog.clock_timestamp() - o.opened_at)::float8 - COALESCE(t.in_round, 0)) / c.done_since)
       END AS predicted_end,
       CASE WHEN r.ended_at IS NOT NULL THEN r.ended_at <= r.deadline_at AND r.status IN ('COMPLETE', 'COMPLETE_WITH_REJECTS')
            WHEN pg_catalog.clock_timestamp() > r.deadline_at THEN false END AS deadline_met,
       r.rerun_requested
FROM stagemill.run r
LEFT JOIN stagemill.round o ON o.run_id = r.run_id AND o.round = r.round
LEFT JOIN LATERAL (
    SELECT count(*) FILTER (WHERE state <> 'SPLIT') AS chunks,
           count(*) FILTER (WHERE state = 'PROCESSED') AS processed,
           count(*) FILTER (WHERE state = 'PROCESSED' AND ended_at >= o.opened_at) AS done_since,
           count(*) FILTER (WHERE state = 'PROCESSED_WITH_ERROR') AS failed,
           count(*) FILTER (WHERE state IN ('UNASSIGNED', 'ASSIGNED')) AS remaining,
           count(*) FILTER (WHERE state = 'ASSIGNED') AS assigned,
           sum(GREATEST(attempt - 1, 0))::bigint AS retries,
           sum(staged)::bigint AS staged, sum(inserted)::bigint AS inserted, sum(updated)::bigint AS updated,
           sum(deleted)::bigint AS deleted, sum(unchanged)::bigint AS unchanged, sum(skipped)::bigint AS skipped,
           sum(rejected)::bigint AS rejected, sum(handed)::bigint AS handed,
           GREATEST(max(assigned_at), max(ended_at)) AS last_seen
    FROM stagemill.chunk c WHERE c.run_id = r.run_id
) c ON true
LEFT JOIN LATERAL (
    SELECT reason, owner, since, until FROM stagemill.hold h
    WHERE h.run_id = r.run_id AND h.ended_at IS NULL AND (h.until IS NULL OR h.until > pg_catalog.clock_timestamp()) AND r.ended_at IS NULL
    ORDER BY h.since LIMIT 1
) h ON true
-- Of holds that overlap the time counts once.
LEFT JOIN LATERAL (
    SELECT sum(EXTRACT(epoch FROM upper(span) - lower(span))) AS seconds,
           sum(EXTRACT(epoch FROM GREATEST(upper(span), o.opened_at) - GREATEST(lower(span), o.opened_at)))::float8 AS in_round
    FROM (SELECT unnest(pg_catalog.range_agg(pg_catalog.tstzrange(h.since, GREATEST(h.since,
                     LEAST(h.ended_at, h.until, r.ended_at, pg_catalog.clock_timestamp()))))) AS span
          FROM stagemill.hold h WHERE h.run_id = r.run_id) spans
) t ON true;
