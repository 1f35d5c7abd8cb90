//! What stands on the target beside its rows: triggers, rules, foreign keys, columns that must have a value.

use tokio_postgres::types::Type;

use super::subject::{Events, Subject, heaps, oid, oids};
use crate::{
    failure::Failure,
    finding::Finding,
    ident::{self, Ident, TableName},
    mapping::Assignment,
    pg::Connection,
    table::Table,
};

/// Warns of triggers, rules and foreign keys.
pub(super) async fn examine(subject: &Subject<'_>, findings: &mut Vec<Finding>) -> Result<(), Failure> {
    triggers(subject, findings).await?;
    rules(subject, findings).await?;
    foreign_keys(subject, findings).await
}

// Bits of tgtype: 1 row, 2 before, 4 insert, 8 delete, 16 update. A clone on a partition has a parent.
const TRIGGERS: &str = "
SELECT DISTINCT t.tgname::text, pg_catalog.format('%s.%s', n.nspname, p.proname), t.tgtype & 1 = 1, t.tgtype & 2 = 2
FROM pg_catalog.pg_trigger t
JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
WHERE NOT t.tgisinternal AND t.tgparentid = 0 AND (t.tgrelid = $1 OR t.tgtype & 1 = 1 AND t.tgrelid = ANY ($2))
  AND t.tgenabled IN ('A', CASE pg_catalog.current_setting('session_replication_role') WHEN 'replica' THEN 'R' ELSE 'O' END)
  AND (t.tgtype & $3 <> 0 OR t.tgtype & $4 <> 0 AND (pg_catalog.cardinality(t.tgattr::int2[]) = 0 OR EXISTS (
       SELECT FROM pg_catalog.unnest(t.tgattr::int2[]) k(attnum)
       JOIN pg_catalog.pg_attribute a ON a.attrelid = t.tgrelid AND a.attnum = k.attnum WHERE a.attname::text = ANY ($5))))
ORDER BY 3, 1";

async fn triggers(subject: &Subject<'_>, findings: &mut Vec<Finding>) -> Result<(), Failure> {
    let Events { inserts, updates, deletes } = subject.events;
    let (whole_rows, columns) = (i16::from(inserts) * 4 + i16::from(deletes) * 8, i16::from(updates) * 16);
    let (leaves, updated) = (heaps(subject.target), subject.updated());
    let params = [
        oid(&subject.target.oid),
        oids(&leaves),
        (&whole_rows, Type::INT2),
        (&columns, Type::INT2),
        (&updated, Type::TEXT_ARRAY),
    ];
    for row in subject.ask(TRIGGERS, &params).await? {
        let (name, function): (String, String) = (row.get(0), row.get(1));
        let fault = match (row.get(2), row.get(3)) {
            (false, _) => {
                format!("has the statement trigger {name} ({function}): it fires once a chunk, not once a run")
            }
            (true, true) => format!(
                "has the row trigger {name} ({function}), called for every row: where it returns NULL the counts do not add up, and the chunk fails"
            ),
            (true, false) => format!("has the row trigger {name} ({function}), called for every row: it costs time"),
        };
        let remedy = format!(
            "look at {function}; if it can be left out: ALTER TABLE {} DISABLE TRIGGER {} (and ENABLE it after the run)",
            subject.target.name,
            Ident::exact(name)
        );
        findings.push(Finding::warning("target.table", fault, remedy));
    }
    Ok(())
}

async fn rules(subject: &Subject<'_>, findings: &mut Vec<Finding>) -> Result<(), Failure> {
    let sql = "SELECT rulename::text FROM pg_catalog.pg_rewrite WHERE ev_class = $1 AND rulename <> '_RETURN' AND ev_enabled <> 'D'";
    for row in subject.ask(sql, &[oid(&subject.target.oid)]).await? {
        let rule: String = row.get(0);
        findings.push(Finding::warning(
            "target.table",
            format!("has the rule {rule}: it rewrites what a chunk does, and the counts are of what was rewritten"),
            format!("ALTER TABLE {} DISABLE RULE {}, or make a trigger of it", subject.target.name, Ident::exact(rule)),
        ));
    }
    Ok(())
}

const FOREIGN_KEYS: &str = "
SELECT con.conname::text, con.conrelid = con.confrelid, n.nspname::text, c.relname::text, referencing.names, referencing.names && $2,
       referenced.names && $2,
       EXISTS (SELECT FROM pg_catalog.pg_index i
               WHERE i.indrelid = con.conrelid AND i.indisvalid AND i.indpred IS NULL AND i.indnkeyatts >= pg_catalog.cardinality(con.conkey)
                 AND (i.indkey::int2[])[0:pg_catalog.cardinality(con.conkey) - 1] @> con.conkey)
FROM pg_catalog.pg_constraint con
JOIN pg_catalog.pg_class c ON c.oid = con.conrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace,
LATERAL (SELECT pg_catalog.array_agg(a.attname::text ORDER BY k.n) AS names
         FROM pg_catalog.unnest(con.conkey) WITH ORDINALITY k(attnum, n)
         JOIN pg_catalog.pg_attribute a ON a.attrelid = con.conrelid AND a.attnum = k.attnum) referencing,
LATERAL (SELECT pg_catalog.array_agg(a.attname::text) AS names
         FROM pg_catalog.pg_attribute a WHERE a.attrelid = con.confrelid AND a.attnum = ANY (con.confkey)) referenced
WHERE con.contype = 'f' AND con.confrelid = $1 AND con.conparentid = 0
ORDER BY con.conname";

/// Foreign keys *to* the target. Its own to other tables are what they always are.
async fn foreign_keys(subject: &Subject<'_>, findings: &mut Vec<Finding>) -> Result<(), Failure> {
    let updated = subject.updated();
    let Events { inserts, deletes, .. } = subject.events;
    for row in subject.ask(FOREIGN_KEYS, &[oid(&subject.target.oid), (&updated, Type::TEXT_ARRAY)]).await? {
        let (name, to_itself): (String, bool) = (row.get(0), row.get(1));
        let child = TableName {
            schema: Some(Ident::exact(row.get::<_, String>(2))),
            name: Ident::exact(row.get::<_, String>(3)),
        };
        let columns: Vec<Ident> = row.get::<_, Vec<String>>(4).into_iter().map(Ident::exact).collect();
        let (sets_reference, sets_key, indexed): (bool, bool, bool) = (row.get(5), row.get(6), row.get(7));
        if to_itself && (inserts || sets_reference) {
            findings.push(Finding::warning(
                "target.table",
                format!("has the foreign key {name} to itself: a row whose parent lies in another chunk is tried once more after all others, and may fail then"),
                "stage parents and children in two jobs, each with its \"where\"",
            ));
        }
        if (deletes || sets_key) && !indexed {
            findings.push(Finding::warning(
                "target.table",
                format!("is referenced by {child} ({name}) without an index: each row whose key goes or changes scans {child}"),
                format!("CREATE INDEX CONCURRENTLY ON {child} ({})", ident::list(&columns)),
            ));
        }
    }
    Ok(())
}

// A domain can have the default, or the NOT NULL.
const NEEDED: &str = "
SELECT a.attname::text, EXISTS (SELECT FROM pg_catalog.pg_trigger t WHERE t.tgrelid = ANY ($2) AND t.tgtype & 7 = 7 AND t.tgenabled <> 'D')
FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped AND (a.attnotnull OR t.typnotnull)
  AND NOT a.atthasdef AND a.attidentity = '' AND a.attgenerated = '' AND t.typdefault IS NULL
ORDER BY a.attnum";

/// Columns that an inserted row leaves NULL although they may not be: each such row fails. Where rows may all exist already (`may_exist`),
/// or a trigger may give the value, it is a warning.
pub(super) async fn unfilled(
    connection: &Connection,
    target: &Table,
    assignments: &[Assignment],
    may_exist: bool,
    findings: &mut Vec<Finding>,
) -> Result<(), Failure> {
    let leaves = heaps(target);
    for row in connection.query(NEEDED, &[oid(&target.oid), oids(&leaves)]).await? {
        let (column, by_trigger): (String, bool) = (row.get(0), row.get(1));
        if assignments.iter().any(|a| a.column.as_str() == column && a.insert.is_some()) {
            continue;
        }
        let at = format!("columns.{column}");
        let column = Ident::exact(column);
        let remedy = format!(
            "give the column a value for \"insert\", or ALTER TABLE {} ALTER {column} SET DEFAULT ...",
            target.name
        );
        findings.push(if by_trigger {
            Finding::warning(
                at,
                "is NOT NULL and gets no value when a row is inserted, unless a trigger gives it one",
                remedy,
            )
        } else if may_exist {
            Finding::warning(at, "is NOT NULL and gets no value: a chunk that has to insert a row fails", remedy)
        } else {
            Finding::error(at, "is NOT NULL and gets no value: no row can be inserted", remedy)
        });
    }
    Ok(())
}
