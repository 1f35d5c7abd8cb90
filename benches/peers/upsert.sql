-- The statement that a person would write. :staged is the stage, or a part of it.
INSERT INTO target (id, customer_id, status, amount, note, changed_at)
SELECT id, customer_id, status, amount, note, changed_at FROM :staged AS stage
ON CONFLICT (id) DO UPDATE SET status = excluded.status, amount = excluded.amount, note = excluded.note, changed_at = excluded.changed_at;
