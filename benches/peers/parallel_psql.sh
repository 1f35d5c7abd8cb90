#!/bin/sh
# The limit: ranges that were cut by hand beforehand, through as many sessions of psql as there are files, and nothing else around.
# usage: parallel_psql.sh FOLDER, with DATABASE_URL; each file of the folder holds one session's statements.
set -eu
sessions=
for file in "$1"/*.sql; do
    psql "$DATABASE_URL" -Xq -v ON_ERROR_STOP=1 -f "$file" &
    sessions="$sessions $!"
done
for session in $sessions; do
    wait "$session"
done
