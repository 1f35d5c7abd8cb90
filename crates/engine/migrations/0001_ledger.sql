-- The ledger: jobs, runs (the log table), their rounds, and their chunks.

CREATE TABLE stagemill.job (
    name       text PRIMARY KEY,
    spec       jsonb NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    updated_by text NOT NULL DEFAULT CURRENT_USER
);
COMMENT ON TABLE stagemill.job IS 'Jobs by name. Their expressions are code: grant writing as you would grant CREATE FUNCTION.';

CREATE TABLE stagemill.run (
    run_id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    job          text NOT NULL,
    status       text NOT NULL DEFAULT 'PLANNING' CHECK (status IN (
                     'PLANNING', 'RUNNING', 'INTERRUPTED',
                     'COMPLETE', 'COMPLETE_WITH_REJECTS', 'INCOMPLETE', 'SOURCE_CHANGED', 'STOPPED', 'FAILED', 'ABANDONED')),
    started_at   timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    planned_at   timestamptz,
    ended_at     timestamptz,
    -- Who may go on with it: an execution's ARN, or host, process and start of a command line.
    owner        text NOT NULL UNIQUE,
    started_by   text NOT NULL DEFAULT SESSION_USER,
    trigger_id   text,
    spec         jsonb NOT NULL,
    mapping      jsonb NOT NULL,
    stage_table  text NOT NULL,
    target_table text NOT NULL,
    shares_tables boolean NOT NULL DEFAULT false,
    parallelism  integer NOT NULL CHECK (parallelism >= 1),
    round        integer NOT NULL DEFAULT 0,
    round_limit  integer NOT NULL CHECK (round_limit >= 1),
    -- Why nothing more of it is started: the status it will end with, and the failure that asked for it.
    halted       text CHECK (halted IN ('FAILED', 'SOURCE_CHANGED', 'STOPPED')),
    -- Of a job with a watermark: rows above low, up to and including high, are this run's. The next run begins at high when this one is complete.
    window_low   text,
    window_high  text,
    -- Staged rows that no chunk holds: the job's own ranges leave them out.
    outside      bigint NOT NULL DEFAULT 0,
    -- Totals, written when it ends.
    chunks       integer,
    chunks_processed integer,
    chunks_failed integer,
    retries      bigint,
    staged       bigint,
    inserted     bigint,
    updated      bigint,
    deleted      bigint,
    unchanged    bigint,
    skipped      bigint,
    rejected     bigint,
    handed       bigint,
    -- Rows of the window that came or changed after planning, and rows counted in it again where the job asks for that.
    new_rows     bigint,
    recounted    bigint,
    error_class  text,
    sqlstate     text,
    error        text,
    CHECK ((ended_at IS NULL) = (status IN ('PLANNING', 'RUNNING', 'INTERRUPTED'))),
    CHECK ((planned_at IS NULL) = (round = 0)),
    CHECK (ended_at IS NULL OR status IN ('FAILED', 'STOPPED', 'ABANDONED') OR chunks IS NOT NULL),
    CHECK (status NOT IN ('COMPLETE', 'COMPLETE_WITH_REJECTS') OR (chunks_processed = chunks AND error IS NULL
           AND staged = inserted + updated + deleted + unchanged + skipped + rejected + handed) IS TRUE),
    CHECK (status <> 'COMPLETE' OR rejected = 0)
);
COMMENT ON TABLE stagemill.run IS 'The log table: one row a run. Executors build their statements from mapping: writing it is running SQL as them.';
CREATE UNIQUE INDEX run_open_job ON stagemill.run (job) WHERE ended_at IS NULL;
CREATE UNIQUE INDEX run_open_tables ON stagemill.run (stage_table, target_table) WHERE ended_at IS NULL AND NOT shares_tables;
CREATE UNIQUE INDEX run_trigger ON stagemill.run (job, trigger_id);
CREATE INDEX run_history ON stagemill.run (job, run_id DESC);

CREATE TABLE stagemill.round (
    run_id     bigint NOT NULL REFERENCES stagemill.run ON DELETE CASCADE,
    round      integer NOT NULL CHECK (round >= 1),
    opened_at  timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    -- The ranges of chunk ids that workers were handed: a planner or recorder called again gives them again.
    items      jsonb NOT NULL,
    PRIMARY KEY (run_id, round)
);

CREATE TABLE stagemill.chunk (
    run_id        bigint NOT NULL REFERENCES stagemill.run ON DELETE CASCADE,
    chunk_id      integer NOT NULL CHECK (chunk_id >= 1),
    -- The planned chunk that it is a part of: itself, or the one that was split. Workers are handed ranges of these.
    root_id       integer NOT NULL,
    state         text NOT NULL DEFAULT 'UNASSIGNED' CHECK (state IN (
                      'UNASSIGNED', 'ASSIGNED', 'PROCESSED', 'PROCESSED_WITH_ERROR', 'SPLIT')),
    kind          text NOT NULL CHECK (kind IN ('blocks', 'keys', 'null_keys', 'ids', 'rejects')),
    leaf_schema   text,
    leaf_name     text,
    leaf_oid      oid,
    leaf_filenode oid,
    low_tid       tid,
    high_tid      tid,
    low_key       text[],
    high_key      text[],
    -- More rows than were counted when the run was planned are not deleted.
    delete_limit  bigint,
    -- The round in which it is due, the attempts made (the fence: never goes back), and how many it may have.
    round         integer NOT NULL DEFAULT 1,
    attempt       integer NOT NULL DEFAULT 0,
    attempt_limit integer NOT NULL,
    worker        text,
    assigned_at   timestamptz,
    ended_at      timestamptz,
    staged        bigint,
    inserted      bigint,
    updated       bigint,
    deleted       bigint,
    unchanged     bigint,
    skipped       bigint,
    rejected      bigint,
    -- Rows handed to the job's own statements, and the rows that each of these reported.
    handed        bigint,
    statement_rows bigint[],
    error_class   text,
    sqlstate      text,
    -- Why, without values of the row; and the server's own words, which may hold some: they are read here and go nowhere else.
    error         text,
    detail        text,
    PRIMARY KEY (run_id, chunk_id),
    CHECK ((kind = 'blocks') = (low_tid IS NOT NULL)),
    CHECK (kind <> 'ids' OR (low_key IS NOT NULL AND high_key IS NOT NULL)),
    CHECK (kind <> 'blocks' OR (leaf_schema IS NOT NULL AND leaf_name IS NOT NULL AND leaf_oid IS NOT NULL AND leaf_filenode IS NOT NULL)),
    CHECK (kind IN ('keys', 'ids') OR (low_key IS NULL AND high_key IS NULL)),
    CHECK (state <> 'ASSIGNED' OR (attempt >= 1 AND assigned_at IS NOT NULL AND worker IS NOT NULL AND ended_at IS NULL)),
    CHECK (state NOT IN ('PROCESSED', 'PROCESSED_WITH_ERROR', 'SPLIT') OR ended_at IS NOT NULL),
    CHECK ((state = 'PROCESSED') = (staged IS NOT NULL)),
    CHECK (state <> 'PROCESSED' OR error_class IS NULL),
    CHECK (state <> 'PROCESSED_WITH_ERROR' OR error_class IS NOT NULL),
    CHECK (state <> 'PROCESSED' OR (staged = inserted + updated + deleted + unchanged + skipped + rejected + handed) IS TRUE),
    CHECK (delete_limit IS NULL OR deleted IS NULL OR deleted <= delete_limit)
)
-- Each chunk's row is updated twice or more, never in an indexed column.
WITH (fillfactor = 50);
CREATE INDEX chunk_root ON stagemill.chunk (run_id, root_id);
COMMENT ON COLUMN stagemill.chunk.detail IS 'The server''s own words, which can hold values of the row.';

-- Rows that were set aside. They stay in the stage too.
CREATE TABLE stagemill.reject (
    run_id          bigint NOT NULL,
    reject_id       bigint GENERATED ALWAYS AS IDENTITY,
    -- The chunk that set it aside, and the one that took it again.
    chunk_id        integer NOT NULL,
    retried_in      integer,
    rejected_at     timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    -- The staged row, and its target key as the server wrote it; NULL where the key can't be computed.
    staged_row      jsonb NOT NULL,
    target_key      text[],
    error_class     text NOT NULL,
    sqlstate        text,
    constraint_name text,
    column_name     text,
    -- Why, without values of the row; and the server's own words.
    error           text NOT NULL,
    detail          text,
    PRIMARY KEY (run_id, reject_id),
    FOREIGN KEY (run_id, chunk_id) REFERENCES stagemill.chunk ON DELETE CASCADE
);
COMMENT ON TABLE stagemill.reject IS 'Staged rows that were set aside, with their values: grant reading as you would for the stage.';

-- How a run stands, while it runs and afterwards: counts come from the chunks, and so does the heartbeat.
CREATE VIEW stagemill.run_status AS
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
       -- A round that was opened is a sign of life as well: of a resumed run it is the first.
       GREATEST(r.started_at, r.planned_at, c.last_seen,
                (SELECT o.opened_at FROM stagemill.round o WHERE o.run_id = r.run_id AND o.round = r.round)) AS heartbeat_at
FROM stagemill.run r
LEFT JOIN LATERAL (
    SELECT count(*) FILTER (WHERE state <> 'SPLIT') AS chunks,
           count(*) FILTER (WHERE state = 'PROCESSED') AS processed,
           count(*) FILTER (WHERE state = 'PROCESSED_WITH_ERROR') AS failed,
           count(*) FILTER (WHERE state IN ('UNASSIGNED', 'ASSIGNED')) AS remaining,
           count(*) FILTER (WHERE state = 'ASSIGNED') AS assigned,
           sum(GREATEST(attempt - 1, 0))::bigint AS retries,
           sum(staged)::bigint AS staged, sum(inserted)::bigint AS inserted, sum(updated)::bigint AS updated,
           sum(deleted)::bigint AS deleted, sum(unchanged)::bigint AS unchanged, sum(skipped)::bigint AS skipped,
           sum(rejected)::bigint AS rejected, sum(handed)::bigint AS handed,
           GREATEST(max(assigned_at), max(ended_at)) AS last_seen
    FROM stagemill.chunk c WHERE c.run_id = r.run_id
) c ON true;

-- Shaped like Oracle's DBA_PARALLEL_EXECUTE_TASKS.
CREATE VIEW stagemill.dba_parallel_execute_tasks AS
SELECT started_by AS task_owner,
       job || '#' || run_id AS task_name,
       CASE WHEN spec #>> '{chunks,by}' = 'sql' THEN 'SQL' WHEN mapping -> 'cut' = '[]' THEN 'ROWID_RANGE' ELSE 'NUMBER_RANGE' END AS chunk_type,
       CASE status
           WHEN 'PLANNING' THEN 'CHUNKING'
           WHEN 'RUNNING' THEN CASE WHEN EXISTS (SELECT 1 FROM stagemill.chunk c WHERE c.run_id = r.run_id AND c.attempt > 0)
                                    THEN 'PROCESSING' ELSE 'CHUNKED' END
           WHEN 'COMPLETE' THEN 'FINISHED'
           WHEN 'COMPLETE_WITH_REJECTS' THEN 'FINISHED'
           WHEN 'INCOMPLETE' THEN 'FINISHED_WITH_ERROR'
           ELSE 'CRASHED' END AS status,
       stage_table AS table_name,
       spec #>> '{target,key}' AS number_column,
       parallelism AS parallel_level,
       run_id, started_at AS start_ts, ended_at AS end_ts
FROM stagemill.run r;

-- Shaped like Oracle's DBA_PARALLEL_EXECUTE_CHUNKS.
CREATE VIEW stagemill.dba_parallel_execute_chunks AS
SELECT c.chunk_id, r.started_by AS task_owner, r.job || '#' || r.run_id AS task_name, c.state AS status,
       c.low_tid::text AS start_rowid, c.high_tid::text AS end_rowid,
       pg_catalog.array_to_string(c.low_key, ', ') AS start_id, pg_catalog.array_to_string(c.high_key, ', ') AS end_id,
       c.worker AS job_name, c.assigned_at AS start_ts, c.ended_at AS end_ts, c.sqlstate AS error_code, COALESCE(c.detail, c.error) AS error_message,
       c.run_id
FROM stagemill.chunk c JOIN stagemill.run r USING (run_id);

-- Shaped like Oracle's V$SESSION_LONGOPS: the chunks that are being applied now, each with its session. sofar, totalwork and the times are
-- the run's, since its current round was opened: a resumed run starts to count anew. No row values.
CREATE VIEW stagemill.session_longops AS
SELECT c.run_id, c.chunk_id, c.attempt, a.pid AS sid, r.job AS opname, r.target_table AS target,
       w.sofar, w.totalwork, 'chunks' AS units,
       o.opened_at AS start_time, GREATEST(o.opened_at, w.last_seen) AS last_update_time, s.elapsed_seconds,
       (s.elapsed_seconds * w.remaining / NULLIF(w.done_since, 0))::bigint AS time_remaining,
       c.assigned_at AS chunk_start_time, EXTRACT(epoch FROM clock_timestamp() - c.assigned_at)::bigint AS chunk_seconds,
       a.state AS session_state, a.wait_event_type, a.wait_event, c.worker
FROM stagemill.run r
JOIN stagemill.round o ON o.run_id = r.run_id AND o.round = r.round
CROSS JOIN LATERAL (
    SELECT count(*) AS totalwork,
           count(*) FILTER (WHERE state = 'PROCESSED') AS sofar,
           count(*) FILTER (WHERE state = 'PROCESSED' AND ended_at >= o.opened_at) AS done_since,
           count(*) FILTER (WHERE state IN ('UNASSIGNED', 'ASSIGNED')) AS remaining,
           GREATEST(max(assigned_at), max(ended_at)) AS last_seen
    FROM stagemill.chunk c WHERE c.run_id = r.run_id
) w
CROSS JOIN LATERAL (SELECT EXTRACT(epoch FROM clock_timestamp() - o.opened_at)::bigint AS elapsed_seconds) s
JOIN stagemill.chunk c ON c.run_id = r.run_id AND c.state = 'ASSIGNED'
LEFT JOIN pg_catalog.pg_stat_activity a
       ON a.datname = current_database() AND a.application_name = pg_catalog.format('stagemill:%s:%s:%s', c.run_id, c.chunk_id, c.attempt)
WHERE r.ended_at IS NULL;
