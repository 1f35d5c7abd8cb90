-- The statement that a person would write: of each key the newest change. :staged is the stage, or a part of it.
WITH newest AS MATERIALIZED (
    SELECT DISTINCT ON (id) * FROM :staged AS stage ORDER BY id, seq DESC
), gone AS (
    DELETE FROM target USING newest WHERE target.id = newest.id AND newest.op = 'D'
)
INSERT INTO target (id, customer_id, status, amount, note, changed_at)
SELECT id, customer_id, status, amount, note, changed_at FROM newest WHERE op <> 'D'
ON CONFLICT (id) DO UPDATE SET status = excluded.status, amount = excluded.amount, note = excluded.note, changed_at = excluded.changed_at;
