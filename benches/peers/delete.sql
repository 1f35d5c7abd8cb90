-- The statement that a person would write. :staged is the stage, or a part of it.
DELETE FROM target USING :staged AS stage WHERE target.id = stage.id;
