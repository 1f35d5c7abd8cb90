//! What stands below each command's help: what may be typed, and what becomes of it.

pub(super) const ALL: &str = "\
Examples:
  stagemill demo                            see it work on a throw-away server
  export DATABASE_URL=postgres://etl@db.example.com/edw PGPASSWORD=...
  stagemill init                            create the ledger, once a database
  stagemill check jobs/sm_account.json      everything that is wrong with a job
  stagemill plan jobs/sm_account.json       the chunks and the SQL, nothing written
  stagemill run jobs/sm_account.json        apply it
  stagemill status                          the log table
  stagemill chunks 12 --open                what of run 12 was not applied, and why
  stagemill resume 12                       apply that, and nothing twice
  stagemill pause 12                        hold a run back that is under way
  stagemill set-parallelism 12 8            or make it slower, or faster
  stagemill rejects 12                      the rows that run 12 set aside
  stagemill report 12                       one HTML page about it
  stagemill prune --older-than 90d          delete old runs from the log table

Exit codes:
  0 done, or complete but for rows that were set aside   1 run failed, or rows not applied
  2 bad job or arguments   3 cannot connect   4 ledger missing or of another version
  5 another run is open   70 defect   130 interrupted";

pub(super) const INIT: &str = r#"Examples:
  stagemill init                                                          once a database
  stagemill init --grants --role etl orders.json | psql "$DATABASE_URL"   as the owner of the tables"#;

pub(super) const CHECK: &str = "\
Examples:
  stagemill check jobs/sm_account.json
  stagemill check sm_account --json       a job of the job table, for a deployment's pipeline

Exit code 0 when the job can run, with or without warnings, and 2 when it can't. Nothing is written.";

pub(super) const PLAN: &str = "\
Examples:
  stagemill plan jobs/sm_account.json
  stagemill plan sm_account --rows 20000                  with other chunks
  stagemill plan sm_account --json | jq -r .sql           the statement of a chunk

Nothing is written, and no run is opened.";

pub(super) const RUN: &str = "\
Examples:
  stagemill run jobs/sm_account.json
  stagemill run sm_account --parallelism 16          a job of the job table, with more sessions
  stagemill run sm_account --quiet --json            for cron: JSON on stdout, errors on stderr

Ctrl-C lets the chunks in flight finish and leaves a run that `stagemill resume` completes; a second
Ctrl-C ends at once, and the server rolls back what was in flight. Neither loses or repeats a row.";

pub(super) const STATUS: &str = "\
Examples:
  stagemill status                              the newest runs
  stagemill status --job sm_account --limit 5
  stagemill status 12                           one run: rows, chunks, rate, what holds it back
  stagemill status 12 --json | jq -r .status
  watch stagemill status 12                     as it goes";

pub(super) const CHUNKS: &str = "\
Examples:
  stagemill chunks 12                    every chunk: its rows, state, time, tries
  stagemill chunks 12 --open             those that were not applied, and why
  stagemill chunks 12 --open --detail    with the server's own words, which can hold values of rows";

pub(super) const RESUME: &str = "\
Examples:
  stagemill resume 12                    goes on with what is left, and nothing twice
  stagemill resume 12 --quiet --json     for cron

It works after Ctrl-C, a crash, a failed chunk that was mended, and on runs of a state machine too.";

pub(super) const REJECTS: &str = "\
Examples:
  stagemill rejects 12           what run 12 set aside, and why
  stagemill rejects 12 --rows    with the rows' values
  stagemill rejects 12 --retry   applies them, as they are in the stage now";

pub(super) const SKIP: &str = "\
Examples:
  stagemill chunks 12 --open     what was not applied, and why
  stagemill skip 12 5 7          chunks 5 and 7 of run 12 will not be applied, or were by hand
  stagemill resume 12            applies the others, and completes the run

It can't be taken back: a new run applies every staged row.";

pub(super) const PAUSE: &str = "\
Examples:
  stagemill pause 12                              until `stagemill unpause 12`
  stagemill pause 12 --for 30m --reason payroll   goes on by itself after half an hour

It works from anywhere with access to the ledger, on runs of a command line and of a state machine alike, within seconds.";

pub(super) const UNPAUSE: &str = "\
Examples:
  stagemill unpause 12           lifts what a person set
  stagemill unpause 12 --all     and what limits and alarms set";

pub(super) const STOP: &str = "\
Examples:
  stagemill stop 12              waits until it is closed
  stagemill stop 12 --no-wait    only asks for it

What was applied stays, and `stagemill resume 12` goes on with the rest.";

pub(super) const SPEED: &str = "\
Examples:
  stagemill set-parallelism 12 4     at most four chunks at a time, from the next one on

It ends `\"parallelism\": \"auto\"` for this run. Of an execution, more than its round began with comes with its next round.";

pub(super) const REPORT: &str = "\
Examples:
  stagemill report 12                       writes JOB_run_12.html, and says so
  stagemill report 12 -o today.html --force
  stagemill report 12 -o - | ssh web 'cat > /srv/www/run.html'
  stagemill report 12 --json                what it is made of, for programs

The page needs no network and no script, and holds no row's value. A run may still be under way.";

pub(super) const PRUNE: &str = "\
Examples:
  stagemill prune --older-than 90d --dry-run         what would go
  stagemill prune --older-than 4w --job sm_account   of one job

A run goes with its rounds and chunks. What stays: open runs, the newest run of each job (it may be
resumed), and the last one of each job that was complete.";

pub(super) const JOB: &str = "\
Examples:
  stagemill job put orders.json      stores it, in the place of one of the same name
  stagemill job diff orders.json     what that would change
  stagemill job list
  stagemill job show orders > orders.json
  stagemill run orders               runs it by its name
  stagemill job rm orders";

pub(super) const DIFF: &str = "\
Examples:
  stagemill job diff orders.json             the job table's `orders` (-) and this file (+)
  stagemill job diff orders orders_v2        two jobs of the job table
  stagemill job diff orders.json --json      field by field

Both are compared as they are understood: the order of fields and what is left to its default make no difference.
Exit code 0 when they are equal and 1 when they differ, as of diff.";

pub(super) const SCHEMA: &str = "\
Example:
  stagemill schema > job.schema.json     for an editor that completes and checks job files";

pub(super) const DEMO: &str = "\
Examples:
  stagemill demo
  stagemill demo --rows 20000 --target-rows 100000 --keep    small, and kept: a place to try things

It needs PostgreSQL's programs on this machine, no server. Nothing is left behind.";

pub(super) const COMPLETIONS: &str = "\
Examples:
  stagemill completions bash > /etc/bash_completion.d/stagemill
  stagemill completions zsh > ~/.zfunc/_stagemill
  stagemill completions fish > ~/.config/fish/completions/stagemill.fish";

pub(super) const MAN: &str = "\
Examples:
  stagemill man | man -l -                 reads it
  stagemill man /usr/local/share/man/man1  a page for each command as well";
