"""The replaced program's way: threads take ranges of a dense number column, each over a new connection.

usage: threads.py THREADS ROWS, with DATABASE_URL; as published it has 20 threads and 50,000 rows.
"""

import os
import sys
from concurrent.futures import ThreadPoolExecutor

import psycopg

UPDATE = """
UPDATE target SET status = stage.status, amount = stage.amount, note = stage.note, changed_at = stage.changed_at
FROM stage WHERE target.id = stage.id AND stage.seq_row_id BETWEEN {} AND {}"""

threads, rows = int(sys.argv[1]), int(sys.argv[2])
url = os.environ["DATABASE_URL"]


def apply(low: int) -> None:
    """Applies one range in a transaction of its own."""
    with psycopg.connect(url) as connection:
        connection.execute(UPDATE.format(low, low + rows - 1))


with psycopg.connect(url) as connection:
    last = connection.execute("SELECT max(seq_row_id) FROM stage").fetchone()[0]
with ThreadPoolExecutor(threads) as pool:
    list(pool.map(apply, range(1, last + 1, rows)))
