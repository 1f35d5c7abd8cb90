//! Jobs that are right, whatever their names are.

use proptest::{collection::vec, option, prelude::*, sample::select};
use serde_json::{Map, Value, json};
use stagemill_fuzz::text::{name, storable};

/// A column or table as a job writes it.
fn written() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => "[a-zA-Zé_][a-zA-Z0-9_$]{0,20}",
        2 => name().prop_map(|name| format!("\"{}\"", name.replace('"', "\"\""))),
    ]
}

fn table() -> impl Strategy<Value = String> {
    (option::of(written()), written())
        .prop_map(|(schema, name)| schema.map_or(name.clone(), |schema| format!("{schema}.{name}")))
}

fn expression() -> impl Strategy<Value = String> {
    storable().prop_map(|text| if text.trim().is_empty() || text.len() > 90_000 { "stage.id".into() } else { text })
}

fn limit() -> impl Strategy<Value = Value> {
    prop_oneof![any::<u32>().prop_map(Value::from), "[0-9]{1,2}([.][0-9]{1,2})? ?%".prop_map(Value::from)]
}

/// Columns without two that mean one.
fn distinct(names: Vec<String>) -> Vec<String> {
    let mut seen = std::collections::BTreeSet::new();
    let folded = |name: &String| {
        stagemill_engine::ident::Ident::parse(name).map(|ident| ident.as_str().to_owned()).unwrap_or_default()
    };
    names.into_iter().filter(|name| seen.insert(folded(name))).collect()
}

/// Fields that every operation takes.
fn common() -> impl Strategy<Value = Map<String, Value>> {
    let session = prop_oneof![
        Just(json!({})),
        storable().prop_map(|value| json!({"work_mem": value, "search_path": "a, \"b\"", "lock_timeout": "5s"})),
    ];
    (
        "[A-Za-z0-9][A-Za-z0-9_.-]{0,62}",
        (table(), option::of(expression()), table()),
        (1..=1_000_u32, 1..=100_u32, 1..=100_u32, 1..=10_000_000_u32, any::<bool>()),
        (session, select(&["new_rows", "count", "off"][..]), option::of((written(), option::of(storable())))),
    )
        .prop_map(|(name, (stage, filter, target), (parallelism, attempts, rounds, rows, share), (session, verify, watermark))| {
            let mut job = json!({
                "name": name, "stage": {"table": stage}, "target": {"table": target}, "parallelism": parallelism, "share_tables": share,
                "retry": {"attempts": attempts, "rounds": rounds}, "chunks": {"rows": rows}, "session": session, "verify": verify,
            });
            if let Some(filter) = filter {
                job["stage"]["where"] = filter.into();
            }
            if let Some((column, overlap)) = watermark {
                job["watermark"] = json!({"column": column});
                if let Some(overlap) = overlap {
                    job["watermark"]["overlap"] = overlap.into();
                }
            }
            job.as_object().cloned().unwrap_or_default()
        })
}

fn columns() -> impl Strategy<Value = Value> {
    let value = prop_oneof![
        expression().prop_map(Value::from),
        expression().prop_map(|text| json!({"insert": text})),
        (expression(), expression()).prop_map(|(insert, update)| json!({"insert": insert, "update": update})),
    ];
    prop_oneof![
        vec(written(), 1..4).prop_map(|names| json!(distinct(names))),
        vec((written(), value), 1..4).prop_map(|pairs| {
            let names = distinct(pairs.iter().map(|(name, _)| name.clone()).collect());
            let value = |name: &String| {
                pairs.iter().find(|(n, _)| n == name).map(|(_, value)| value.clone()).unwrap_or_default()
            };
            Value::Object(names.iter().map(|name| (name.clone(), value(name))).collect())
        }),
    ]
}

/// A job that is right in every field.
pub(super) fn right() -> BoxedStrategy<Value> {
    let operation = select(&["insert", "update", "upsert", "delete", "changes", "sql"][..]);
    let cut = prop_oneof![
        Just(json!({"by": "auto"})),
        Just(json!({"by": "key"})),
        Just(json!({"by": "ctid"})),
        (written(), expression()).prop_map(|(column, query)| json!({"by": "sql", "column": column, "query": query})),
    ];
    let extras = (
        option::of(columns()),
        option::of(limit()),
        option::of(limit()),
        any::<bool>(),
        select(&["keep", "delete", "truncate"][..]),
    );
    let changes = (written(), written(), option::of(written()), storable());
    (common(), operation, vec(written(), 1..4), cut, extras, changes, vec(expression(), 1..3))
        .prop_map(
            |(mut job, operation, key, cut, (columns, deletes, rejects, skip, stage_rows), changes, statements)| {
                let rows = job["chunks"]["rows"].clone();
                job.insert("operation".into(), operation.into());
                job.insert("chunks".into(), cut);
                job["chunks"]["rows"] = rows;
                if operation == "sql" {
                    let statements: Vec<String> = statements.iter().map(|text| format!("{{chunk}} {text}")).collect();
                    job.insert("sql".into(), json!(statements));
                    if job["chunks"]["by"] == "key" {
                        job["chunks"]["column"] = "id".into();
                    }
                    return Value::Object(job);
                }
                job["target"]["key"] = json!(distinct(key));
                job.insert("stage_rows".into(), stage_rows.into());
                if let Some(columns) = columns {
                    job.insert("columns".into(), columns);
                }
                if operation == "changes" {
                    let (indicator, order, guard, delete) = changes;
                    let delete = if ["I", "U"].contains(&delete.as_str()) { "D".to_owned() } else { delete };
                    job.insert("changes".into(), json!({"operation": indicator, "order": order, "delete": delete}));
                    if let Some(guard) = guard {
                        job["changes"]["guard"] = guard.into();
                    }
                }
                if let Some(deletes) = deletes.filter(|_| ["delete", "changes"].contains(&operation)) {
                    job.insert("max_deletes".into(), deletes);
                }
                if let Some(rejects) = rejects {
                    job.insert("on_bad_row".into(), "quarantine".into());
                    job.insert("max_rejects".into(), rejects);
                }
                if ["update", "upsert", "changes"].contains(&operation) {
                    job.insert("skip_unchanged".into(), skip.into());
                }
                if operation == "insert" && skip {
                    job.insert("existing".into(), "error".into());
                }
                Value::Object(job)
            },
        )
        .boxed()
}
