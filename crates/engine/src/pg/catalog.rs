//! Reads tables from the catalog.

use tokio_postgres::{Row, types::Type};

use super::Connection;
use crate::{
    failure::Failure,
    ident::{Ident, TableName},
    table::{Column, Index, Kind, Leaf, Table},
};

const TABLE: &str = "
SELECT c.oid, n.nspname::text, c.relname::text, c.relkind::text, c.reltuples::float8
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid = pg_catalog.to_regclass($1) AND c.relkind IN ('r', 'p', 'v', 'm', 'f')";

const COLUMNS: &str = "
WITH RECURSIVE base(attnum, typ) AS (
    SELECT attnum, atttypid FROM pg_catalog.pg_attribute WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped
    UNION ALL
    SELECT b.attnum, t.typbasetype FROM base b JOIN pg_catalog.pg_type t ON t.oid = b.typ WHERE t.typbasetype <> 0
)
SELECT a.attname::text, pg_catalog.format_type(a.atttypid, a.atttypmod), pg_catalog.format_type(b.typ, NULL),
       (SELECT pg_catalog.format('%I.%I', n.nspname, co.collname) FROM pg_catalog.pg_collation co
        JOIN pg_catalog.pg_namespace n ON n.oid = co.collnamespace WHERE co.oid = a.attcollation),
       a.attnotnull, a.attgenerated <> '', a.attidentity = 'a', pg_catalog.format_type(b.typ, -1),
       -- 1.0 and 1.00 are equal, and two values, where the column declares no scale.
       (t.typtype = 'e' OR (b.typ = 'numeric'::regtype AND a.atttypmod <> -1)
        OR b.typ IN ('bool'::regtype, 'int2'::regtype, 'int4'::regtype, 'int8'::regtype, 'float4'::regtype, 'float8'::regtype, 'text'::regtype, 'varchar'::regtype, 'bpchar'::regtype, 'name'::regtype, 'bytea'::regtype, 'date'::regtype,
            'time'::regtype, 'timestamp'::regtype, 'timestamptz'::regtype, 'uuid'::regtype, 'inet'::regtype, 'oid'::regtype, 'money'::regtype,
            'bit'::regtype, 'varbit'::regtype))
       AND COALESCE((SELECT co.collisdeterministic FROM pg_catalog.pg_collation co WHERE co.oid = a.attcollation), true)
FROM pg_catalog.pg_attribute a
JOIN base b ON b.attnum = a.attnum JOIN pg_catalog.pg_type t ON t.oid = b.typ AND t.typbasetype = 0
WHERE a.attrelid = $1
ORDER BY a.attnum";

// nulls_not_distinct is a column of PostgreSQL 15 and newer: read through jsonb, which knows what is there.
const INDEXES: &str = "
SELECT (SELECT pg_catalog.array_agg(a.attname::text ORDER BY k.n)
        FROM pg_catalog.unnest(i.indkey::int2[]) WITH ORDINALITY k(attnum, n)
        LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum AND k.attnum > 0
        WHERE k.n <= i.indnkeyatts),
       i.indisunique, i.indimmediate, i.indpred IS NOT NULL,
       am.amname = 'btree'
       AND NOT EXISTS (SELECT 1 FROM pg_catalog.unnest(i.indoption::int2[]) o(flags) WHERE flags & 1 = 1)
       AND NOT EXISTS (SELECT 1 FROM pg_catalog.unnest(i.indclass::oid[]) c(id)
                       JOIN pg_catalog.pg_opclass oc ON oc.oid = c.id WHERE NOT oc.opcdefault)
       AND NOT EXISTS (SELECT 1 FROM ROWS FROM (pg_catalog.unnest(i.indkey::int2[]), pg_catalog.unnest(i.indcollation::oid[])) k(attnum, coll)
                       JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
                       WHERE k.coll IS NOT NULL AND a.attcollation <> k.coll),
       COALESCE((pg_catalog.to_jsonb(i) ->> 'indnullsnotdistinct')::boolean, false)
FROM pg_catalog.pg_index i
JOIN pg_catalog.pg_class ic ON ic.oid = i.indexrelid JOIN pg_catalog.pg_am am ON am.oid = ic.relam
WHERE i.indrelid = $1 AND i.indisvalid AND i.indislive
ORDER BY i.indisprimary DESC, i.indexrelid";

const LEAVES: &str = "
WITH RECURSIVE tree(oid) AS (
    SELECT $1::oid
    UNION
    SELECT i.inhrelid FROM pg_catalog.pg_inherits i JOIN tree ON i.inhparent = tree.oid
)
SELECT c.oid, n.nspname::text, c.relname::text, pg_catalog.pg_relation_filenode(c.oid), c.relkind = 'f'
FROM tree JOIN pg_catalog.pg_class c ON c.oid = tree.oid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'm', 'f')
ORDER BY c.oid";

/// Reads a table; `None` where there is none of that name.
///
/// # Errors
/// What the server or the connection says.
pub async fn table(connection: &Connection, name: &TableName) -> Result<Option<Table>, Failure> {
    let Some(row) = connection.query_opt(TABLE, &[(&name.to_string(), Type::TEXT)]).await? else {
        return Ok(None);
    };
    let oid: u32 = row.get(0);
    let of_table = [(&oid as &(dyn tokio_postgres::types::ToSql + Sync), Type::OID)];
    let leaves = connection.query(LEAVES, &of_table).await?;
    // A foreign partition holds rows that no block range reaches.
    let foreign = leaves.iter().any(|leaf| leaf.get(4));
    let mut table = Table {
        oid,
        name: table_name(&row, 1),
        kind: match row.get::<_, &str>(3) {
            _ if foreign => Kind::NoHeap,
            "r" | "m" => Kind::Table,
            "p" => Kind::Partitioned,
            _ => Kind::NoHeap,
        },
        columns: connection.query(COLUMNS, &of_table).await?.iter().map(column).collect(),
        indexes: connection.query(INDEXES, &of_table).await?.iter().map(index).collect(),
        leaves: if foreign { Vec::new() } else { leaves.iter().map(leaf).collect() },
        estimated_rows: row.get(4),
    };
    if table.kind == Kind::Table && table.leaves.len() > 1 {
        // Tables that inherit from it have neither its indexes nor, for certain, its NOT NULL.
        table.indexes.iter_mut().for_each(|index| index.unique = false);
        table.columns.iter_mut().for_each(|column| column.not_null = false);
    }
    Ok(Some(table))
}

fn table_name(row: &Row, at: usize) -> TableName {
    TableName { schema: Some(Ident::exact(row.get::<_, String>(at))), name: Ident::exact(row.get::<_, String>(at + 1)) }
}

fn column(row: &Row) -> Column {
    Column {
        name: Ident::exact(row.get::<_, String>(0)),
        type_name: row.get(1),
        base_type: row.get(2),
        collation: row.get(3),
        not_null: row.get(4),
        generated: row.get(5),
        identity_always: row.get(6),
        bare_type: row.get(7),
        exact_equality: row.get(8),
    }
}

fn index(row: &Row) -> Index {
    let columns: Vec<Option<String>> = row.get(0);
    Index {
        columns: columns.into_iter().map(|name| name.map(Ident::exact)).collect(),
        unique: row.get(1),
        immediate: row.get(2),
        partial: row.get(3),
        ordered: row.get(4),
        nulls_not_distinct: row.get(5),
    }
}

fn leaf(row: &Row) -> Leaf {
    Leaf { oid: row.get(0), name: table_name(row, 1), filenode: row.get::<_, Option<u32>>(3).unwrap_or_default() }
}
