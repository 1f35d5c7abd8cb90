-- Jobs that one start runs one after the other, and starts that an open run takes over.

ALTER TABLE stagemill.run
    -- The jobs that its execution starts after this one, in order: a start that wants others can't leave them to it.
    ADD COLUMN followed_by text[] NOT NULL DEFAULT '{}',
    -- The triggers of the starts that asked for one more run: delivered again, they are known.
    ADD COLUMN coalesced_triggers text[] NOT NULL DEFAULT '{}';
