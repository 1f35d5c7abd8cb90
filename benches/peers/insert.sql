-- The statement that a person would write. :staged is the stage, or a part of it.
INSERT INTO target (id, customer_id, status, amount, note, changed_at)
SELECT id, customer_id, status, amount, note, changed_at FROM :staged AS stage
ON CONFLICT (id) DO NOTHING;
