//! What an expression depends on beside the staged row, asked from the server.

use std::collections::BTreeSet;

use tokio_postgres::types::Type;

use super::tree::{self, Uses};
use crate::{
    failure::Failure,
    finding::Finding,
    ident::{Ident, TableName},
    mapping::Mapping,
    pg::Connection,
    settings::{self, Settings},
};

/// As for every question of the planner's.
const LONGEST: std::time::Duration = std::time::Duration::from_secs(600);

const FORGET: &str = "ROLLBACK TO expression; RELEASE expression";

/// An expression of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expression {
    /// The field of the job that holds it.
    pub at: String,
    /// Its SQL.
    pub text: String,
    /// Whether it may read the target's row, as `target`: the update branch.
    pub with_target: bool,
}

impl Expression {
    /// Every expression of a job: its condition, its key, and both branches of its columns.
    pub fn all_of(mapping: &Mapping) -> Vec<Self> {
        let one = |column: &Ident, text: &str, with_target| Self {
            at: format!("columns.{}", column.as_str()),
            text: text.to_owned(),
            with_target,
        };
        let filter =
            mapping.filter.iter().map(|text| Self { at: "stage.where".into(), text: text.clone(), with_target: false });
        let key = mapping.key.iter().map(|key| one(&key.column, &key.expression, false));
        let is_key = |column: &Ident| mapping.key.iter().any(|key| key.column == *column);
        let values = mapping.assignments.iter().flat_map(|a| {
            let insert = a.insert.iter().filter(|_| !is_key(&a.column)).map(|text| one(&a.column, text, false));
            let update = a.update.iter().filter(|_| a.update != a.insert).map(|text| one(&a.column, text, true));
            insert.chain(update).collect::<Vec<_>>()
        });
        filter.chain(key).chain(values).collect()
    }
}

/// What an expression depends on beside the staged row. What a function does inside is not seen: its own word (VOLATILE, STABLE) is taken.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// The volatile functions that it calls, as SQL names them; those that only tell the time (`clock_timestamp`) are in `clock`.
    pub volatile: Vec<String>,
    /// Whether it asks for the time, the user or the session: `now()`, `CURRENT_DATE`, `CURRENT_USER`, `current_setting(…)`, and any stable
    /// function without arguments.
    pub clock: bool,
    /// Whether it reads the target's old row.
    pub reads_target_row: bool,
    /// The tables and views that its subqueries name.
    pub tables: Vec<TableName>,
    /// Whether one of these is the target, a partition of it, or a view over it.
    pub reads_target: bool,
    /// The schemas of the functions that it calls, `pg_catalog` aside.
    pub schemas: BTreeSet<Ident>,
}

/// Learns what expressions depend on. `None` where this role, or this server, lets nobody create temporary views; an expression that the
/// server does not accept is `None` in the list. Everything is rolled back.
///
/// # Errors
/// What the server or the connection says.
pub async fn facts(
    connection: &Connection,
    settings: &Settings,
    stage: &TableName,
    target: &TableName,
    expressions: &[Expression],
) -> Result<Option<Vec<Option<Facts>>>, Failure> {
    let begin = format!("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;\n{}", settings::set_local(settings, LONGEST));
    let found = match connection.batch(&begin).await {
        Ok(_) => in_transaction(connection, stage, target, expressions).await,
        Err(refused) => Err(refused),
    };
    match connection.batch("ROLLBACK").await {
        Ok(_) => found,
        Err(lost) => found.and(Err(lost)),
    }
}

/// What is said where [`facts`] has none.
pub fn unknown() -> Finding {
    Finding::warning(
        "columns",
        "can't be searched for volatile functions and subqueries: this role may not create temporary views here",
        "GRANT TEMPORARY ON DATABASE, or read the expressions yourself",
    )
}

async fn in_transaction(
    connection: &Connection,
    stage: &TableName,
    target: &TableName,
    expressions: &[Expression],
) -> Result<Option<Vec<Option<Facts>>>, Failure> {
    if let Err(refused) = connection.batch("CREATE TEMPORARY VIEW \"stagemill try\" AS SELECT 1 AS one").await {
        // No privilege, or a server that only reads.
        let may_not = matches!(refused.sqlstate.as_deref(), Some("42501" | "25006"));
        return if may_not { Ok(None) } else { Err(refused) };
    }
    let mut all = Vec::new();
    for expression in expressions {
        all.push(uses(connection, stage, target, expression).await?);
    }
    let known = Known::of(connection, target, all.iter().flatten()).await?;
    Ok(Some(all.iter().map(|uses| uses.as_ref().map(|uses| known.facts(uses))).collect()))
}

async fn uses(
    connection: &Connection,
    stage: &TableName,
    target: &TableName,
    expression: &Expression,
) -> Result<Option<Uses>, Failure> {
    let also = if expression.with_target { format!(", {target} AS target") } else { String::new() };
    // In a WHERE any type will do, that of a whole row too.
    let sql = format!(
        "SAVEPOINT expression;
         CREATE TEMPORARY VIEW \"stagemill expression\" AS SELECT 1 AS one FROM {stage} AS stage{also} WHERE (\n{}\n) IS NULL",
        expression.text
    );
    if let Err(refused) = connection.batch(&sql).await {
        if refused.class.is_retryable() {
            return Err(refused);
        }
        connection.batch(FORGET).await?;
        return Ok(None);
    }
    let sql = "SELECT ev_action::text FROM pg_catalog.pg_rewrite WHERE ev_class = 'pg_temp.\"stagemill expression\"'::pg_catalog.regclass";
    let tree: String = connection.query_one(sql, &[]).await?.get(0);
    connection.batch(FORGET).await?;
    Ok(Some(tree::read(&tree)))
}

struct Function {
    oid: u32,
    schema: String,
    name: String,
    volatile: bool,
    clock: bool,
}

struct Relation {
    oid: u32,
    name: TableName,
    reads_target: bool,
}

/// What the catalog says of the functions and tables that were found.
struct Known {
    functions: Vec<Function>,
    relations: Vec<Relation>,
}

const FUNCTIONS: &str = "
SELECT p.oid, n.nspname::text, CASE n.nspname WHEN 'pg_catalog' THEN p.proname::text ELSE pg_catalog.format('%s.%s', n.nspname, p.proname) END,
       p.provolatile = 'v', p.provolatile = 's' AND p.pronargs = 0 OR n.nspname = 'pg_catalog'
       AND (p.proname IN ('current_setting', 'clock_timestamp', 'timeofday') OR p.proname = 'age' AND p.pronargs = 1)
FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
WHERE p.oid = ANY ($1)";

const RELATIONS: &str = "
WITH RECURSIVE reads(top, oid) AS (
    SELECT o, o FROM pg_catalog.unnest($1) AS o
    UNION
    SELECT r.top, d.refobjid FROM reads r JOIN pg_catalog.pg_rewrite w ON w.ev_class = r.oid AND w.rulename = '_RETURN'
    JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND d.objid = w.oid
         AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid <> r.oid
), target(oid) AS (
    SELECT pg_catalog.to_regclass($2)::oid
    UNION SELECT relid FROM pg_catalog.pg_partition_tree(pg_catalog.to_regclass($2))
    UNION SELECT relid FROM pg_catalog.pg_partition_ancestors(pg_catalog.to_regclass($2))
)
SELECT c.oid, n.nspname::text, c.relname::text, EXISTS (SELECT FROM reads JOIN target USING (oid) WHERE reads.top = c.oid)
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid = ANY ($1) ORDER BY 2, 3";

impl Known {
    async fn of<'a>(
        connection: &Connection,
        target: &TableName,
        all: impl Iterator<Item = &'a Uses>,
    ) -> Result<Self, Failure> {
        let (mut functions, mut tables) = (BTreeSet::new(), BTreeSet::new());
        for uses in all {
            functions.extend(&uses.functions);
            tables.extend(&uses.tables);
        }
        let functions: Vec<u32> = functions.into_iter().collect();
        let tables: Vec<u32> = tables.into_iter().collect();
        let functions = connection.query(FUNCTIONS, &[(&functions, Type::OID_ARRAY)]).await?;
        let relations =
            connection.query(RELATIONS, &[(&tables, Type::OID_ARRAY), (&target.to_string(), Type::TEXT)]).await?;
        Ok(Self {
            functions: functions
                .iter()
                .map(|row| Function {
                    oid: row.get(0),
                    schema: row.get(1),
                    name: row.get(2),
                    volatile: row.get(3),
                    clock: row.get(4),
                })
                .collect(),
            relations: relations
                .iter()
                .map(|row| Relation {
                    oid: row.get(0),
                    name: TableName {
                        schema: Some(Ident::exact(row.get::<_, String>(1))),
                        name: Ident::exact(row.get::<_, String>(2)),
                    },
                    reads_target: row.get(3),
                })
                .collect(),
        })
    }

    fn facts(&self, uses: &Uses) -> Facts {
        let functions = || self.functions.iter().filter(|function| uses.functions.contains(&function.oid));
        let relations = || self.relations.iter().filter(|relation| uses.tables.contains(&relation.oid));
        let mut volatile: Vec<String> =
            functions().filter(|f| f.volatile && !f.clock).map(|f| format!("{}()", f.name)).collect();
        volatile.sort();
        volatile.dedup();
        Facts {
            volatile,
            clock: uses.key_word || functions().any(|function| function.clock),
            reads_target_row: uses.target_row,
            tables: relations().map(|relation| relation.name.clone()).collect(),
            reads_target: relations().any(|relation| relation.reads_target),
            schemas: functions().filter(|f| f.schema != "pg_catalog").map(|f| Ident::exact(&f.schema)).collect(),
        }
    }
}
