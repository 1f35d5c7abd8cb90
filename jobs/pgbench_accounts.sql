-- The stage table of pgbench_accounts.json, for a database that `pgbench -i` filled: a booking for every other account.
--
--   pgbench -i -s 10 && psql -f jobs/pgbench_accounts.sql
--   stagemill init && stagemill run jobs/pgbench_accounts.json
--
-- Afterwards sum(abalance) has grown by exactly sum(delta). Each run adds it once more: an increment shows any row that is applied twice.

DROP TABLE IF EXISTS public.pgbench_accounts_stage;

-- The key is unique: two bookings of one account have to be added up before they are staged.
CREATE TABLE public.pgbench_accounts_stage (
    aid   integer NOT NULL,
    delta integer NOT NULL
);

INSERT INTO public.pgbench_accounts_stage (aid, delta)
SELECT aid, aid % 2003 - 900
FROM public.pgbench_accounts
WHERE aid % 2 = 0
ORDER BY pg_catalog.hashint4(aid);

ALTER TABLE public.pgbench_accounts_stage ADD PRIMARY KEY (aid);

ANALYZE public.pgbench_accounts_stage;
