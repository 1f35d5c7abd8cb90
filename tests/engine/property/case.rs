//! A random case: what the tables are like, what is in them, and what the job says.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::json;

use super::tables::{KEY_TYPES, KeyType, Layout, ORDER_TYPES};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Insert,
    Update,
    Upsert,
    Delete,
    Changes,
    Sql,
}

impl Operation {
    pub fn updates(self) -> bool {
        matches!(self, Self::Update | Self::Upsert | Self::Changes)
    }

    pub fn inserts(self) -> bool {
        matches!(self, Self::Insert | Self::Upsert | Self::Changes)
    }

    pub fn deletes(self) -> bool {
        matches!(self, Self::Delete | Self::Changes)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    Auto,
    Ctid,
    Key,
    /// The job's own ranges, some of which are left out.
    Sql,
}

/// Why a row can't be applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bad {
    Check,
    Null,
    NoNumber,
    NoParent,
    /// A deferred constraint trigger raises.
    Trigger,
    /// Another target row holds a value that a secondary unique index allows once.
    Twin,
    /// For `changes`: neither insert, update nor delete.
    Indicator,
    /// For `changes`: an order that is no number.
    Order,
}

const BAD: [Bad; 8] =
    [Bad::Check, Bad::Null, Bad::NoNumber, Bad::NoParent, Bad::Trigger, Bad::Twin, Bad::Indicator, Bad::Order];

#[derive(Debug, Clone)]
pub struct Staged {
    /// Which key it has.
    pub id: u8,
    /// Which of its key columns is NULL, counted round.
    pub null: Option<u8>,
    pub n: i8,
    pub op: char,
    /// `None` is a row of a full load.
    pub seq: Option<u8>,
    /// Staged once more, the very same.
    pub twice: bool,
    pub bad: Option<Bad>,
}

/// A target row.
#[derive(Debug, Clone)]
pub struct There {
    pub n: i8,
    /// The order of the newest change that it took.
    pub last: Option<u8>,
    /// Another table refers to it.
    pub pinned: bool,
}

#[derive(Debug, Clone)]
pub struct Case {
    pub key: Vec<KeyType>,
    /// Whether key columns can be NULL in the stage and, with a unique index in place of a primary key, in the target.
    pub nullable: bool,
    /// Whether the stage has an index on the key.
    pub indexed: bool,
    pub stage: Layout,
    pub target: Layout,
    /// The types of the change's order and of the guard.
    pub order: [&'static str; 2],
    pub deferred: bool,

    pub operation: Operation,
    /// Whether an update adds to what the target has.
    pub adds: bool,
    pub skip_unchanged: bool,
    pub guard: bool,
    pub filter: bool,
    pub empties: bool,
    pub quarantine: bool,
    pub by: By,
    pub chunk_rows: u32,
    pub parallelism: u32,

    pub staged: Vec<Staged>,
    pub there: BTreeMap<u8, There>,
}

/// Random cases, all of whose rows can be applied.
pub fn good() -> impl Strategy<Value = Case> {
    cases(Just(None), 0..160, false)
}

/// Random cases in which some rows can't be applied.
pub fn with_bad_rows() -> impl Strategy<Value = Case> {
    cases(prop::option::weighted(0.12, prop::sample::select(&BAD[..])), 1..70, true)
}

fn cases(
    bad: impl Strategy<Value = Option<Bad>>,
    rows: std::ops::Range<usize>,
    quarantine: bool,
) -> impl Strategy<Value = Case> {
    use Operation::{Changes, Delete, Insert, Sql, Update, Upsert};
    let operations: &[Operation] = if quarantine {
        &[Insert, Update, Upsert, Delete, Changes, Changes]
    } else {
        &[Insert, Update, Upsert, Delete, Changes, Changes, Changes, Sql]
    };
    let layout =
        || prop::sample::select(&[Layout::Plain, Layout::Plain, Layout::Hash, Layout::Range, Layout::Nested][..]);
    let order = || prop::sample::select(&ORDER_TYPES[..]);
    let tables = (
        prop::collection::vec(prop::sample::select(&KEY_TYPES[..]), 1..=3),
        (any::<bool>(), any::<bool>(), layout(), layout()),
        [order(), order()],
        any::<bool>(),
    );
    let job = (
        prop::sample::select(operations),
        any::<[bool; 5]>(),
        prop::sample::select(&[By::Auto, By::Key, By::Ctid, By::Sql][..]),
        (prop_oneof![1 => 1..4_u32, 3 => 4..60_u32], 1..=6_u32),
    );
    let staged = (
        0..40_u8,
        prop::option::weighted(0.1, 0..3_u8),
        -2..=2_i8,
        prop::sample::select(&['I', 'U', 'D'][..]),
        prop::option::weighted(0.9, 0..120_u8),
        prop::bool::weighted(0.1),
        bad,
    )
        .prop_map(|(id, null, n, op, seq, twice, bad)| Staged { id, null, n, op, seq, twice, bad });
    let there = (-2..=2_i8, prop::option::weighted(0.8, 0..120_u8), prop::bool::weighted(0.1))
        .prop_map(|(n, last, pinned)| There { n, last, pinned });
    (tables, job, prop::collection::vec(staged, rows), prop::collection::btree_map(0..40_u8, there, 0..40)).prop_map(
        move |(tables, job, staged, there)| {
            let (key, (nullable, indexed, stage, target), order, deferred) = tables;
            let (operation, [adds, skip_unchanged, guard, filter, empties], by, (chunk_rows, parallelism)) = job;
            let case = Case {
                key,
                nullable,
                indexed,
                stage,
                target,
                order,
                deferred,
                operation,
                adds,
                skip_unchanged,
                guard,
                filter,
                empties,
                quarantine,
                by,
                chunk_rows,
                parallelism,
                staged,
                there,
            };
            case.settled()
        },
    )
}

impl Case {
    /// Takes out what does not go together.
    fn settled(mut self) -> Self {
        let changes = self.operation == Operation::Changes;
        self.skip_unchanged &= self.operation.updates();
        self.guard &= changes;
        self.empties &= self.operation != Operation::Sql;
        if changes && self.by == By::Ctid {
            self.by = By::Key;
        }
        let mut seen = BTreeSet::new();
        let null_allowed = self.nullable && (!changes || self.quarantine);
        let text_order = self.order[0] != "numeric(38)";
        self.staged.retain_mut(|row| {
            row.twice &= changes;
            if !changes && matches!(row.bad, Some(Bad::Indicator | Bad::Order)) {
                row.bad = None;
            }
            if row.bad == Some(Bad::Order) && !text_order {
                row.bad = Some(Bad::Indicator);
            }
            // NULL keys are equal to none; the newest of a key's changes must be the only one of its order.
            match row.null {
                Some(_) => null_allowed,
                None => seen.insert((row.id, row.seq.filter(|_| changes))),
            }
        });
        self
    }

    /// Whether a job that empties its stage wants it to prove that keys are unique: their rows can lie in two chunks, whose order matters.
    pub fn wants_unique_keys(&self) -> bool {
        let apart = self.by == By::Ctid || (self.by == By::Auto && !self.indexed);
        self.empties && apart && !matches!(self.operation, Operation::Changes | Operation::Delete)
    }

    /// Whether changes are staged that can't be used. They are not tried again: of their key others may have been applied.
    pub fn has_unusable_changes(&self) -> bool {
        let unusable = |row: &Staged| matches!(row.bad, Some(Bad::Indicator | Bad::Order)) || row.null.is_some();
        self.operation == Operation::Changes && self.staged.iter().any(unusable)
    }

    pub fn keys(&self) -> Vec<String> {
        (1..=self.key.len()).map(|n| format!("k{n}")).collect()
    }

    /// The job, on the tables of a schema.
    pub fn job(&self, schema: &str) -> String {
        let keys = self.keys();
        let mut job = json!({
            "name": schema,
            "stage": { "table": format!("{schema}.stage") },
            "target": { "table": format!("{schema}.target"), "key": keys },
            "operation": format!("{:?}", self.operation).to_lowercase(),
            "chunks": { "by": format!("{:?}", self.by).to_lowercase(), "rows": self.chunk_rows },
            "parallelism": self.parallelism,
        });
        let mut set = |field: &str, value: serde_json::Value| job[field] = value;
        if self.by == By::Sql {
            set(
                "chunks",
                json!({ "by": "sql", "column": "k1", "query": format!("SELECT lo, hi FROM {schema}.ranges") }),
            );
        }
        if self.filter {
            set("stage", json!({ "table": format!("{schema}.stage"), "where": "stage.nr % 4 <> 1 -- most" }));
        }
        if self.skip_unchanged {
            set("skip_unchanged", json!(true));
        }
        if self.empties {
            set("stage_rows", json!("delete"));
        }
        if self.quarantine {
            set("on_bad_row", json!("quarantine"));
            set("max_rejects", json!("100%"));
        }
        match self.operation {
            Operation::Delete => {}
            Operation::Sql => {
                set("target", json!({ "table": format!("{schema}.target") }));
                set(
                    "sql",
                    json!(self.statements(&format!("{schema}.stage AS stage"), &format!("{schema}.target"), "{chunk}")),
                );
                if self.by == By::Key {
                    set("chunks", json!({ "by": "key", "column": "k1", "rows": self.chunk_rows }));
                }
            }
            _ => {
                let mut columns: BTreeMap<String, serde_json::Value> =
                    keys.iter().map(|key| (key.clone(), json!(format!("stage.{key}")))).collect();
                let update = if self.adds { "target.n + stage.n" } else { "stage.n" };
                columns.insert("n".into(), json!({ "insert": "stage.n", "update": update }));
                columns.insert("v".into(), json!("CAST(stage.v AS integer)"));
                set("columns", json!(columns));
            }
        }
        if self.operation == Operation::Changes {
            set("changes", json!({ "operation": "op", "order": "seq" }));
            if self.guard {
                set("changes", json!({ "operation": "op", "order": "seq", "guard": "last" }));
            }
        }
        job.to_string()
    }
}
