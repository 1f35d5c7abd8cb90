-- The statement that a person would write. :staged is the stage, or a part of it.
UPDATE target SET status = stage.status, amount = stage.amount, note = stage.note, changed_at = stage.changed_at
FROM :staged AS stage WHERE target.id = stage.id;
