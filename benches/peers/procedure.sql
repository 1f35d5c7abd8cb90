-- A procedure that walks along the key in chunks of :rows rows, and commits after each: one session, as people write it who come from PL/SQL.
CREATE PROCEDURE apply_in_chunks(chunk_rows int) LANGUAGE plpgsql AS $$
DECLARE
    low bigint;
    high bigint;
BEGIN
    SELECT min(id) - 1 INTO low FROM stage;
    LOOP
        SELECT max(id) INTO high FROM (SELECT id FROM stage WHERE id > low ORDER BY id LIMIT chunk_rows) AS chunk;
        EXIT WHEN high IS NULL;
        UPDATE target SET status = s.status, amount = s.amount, note = s.note, changed_at = s.changed_at
        FROM stage AS s WHERE target.id = s.id AND s.id > low AND s.id <= high;
        COMMIT;
        low := high;
    END LOOP;
END $$;
CALL apply_in_chunks(:rows);
