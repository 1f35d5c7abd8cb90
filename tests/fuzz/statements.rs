//! A chunk's SQL is the same code whatever its names and values hold.

use proptest::{prelude::*, sample::select, test_runner::TestCaseError};
use stagemill_engine::{
    chunk::{CutColumn, Range, Tid},
    ident::{Ident, TableName},
    job::{Existing, Operation, StageRows},
    mapping::{Assignment, Bounds, ChangeRules, KeyColumn, Mapping, Ordered, Window},
    statement::{self, Source},
    table::Leaf,
};
use stagemill_fuzz::{
    run,
    sql::skeleton,
    text::{name, storable},
};

/// What a statement is made of, beside the job's own SQL.
#[derive(Debug, Clone)]
struct Words {
    names: [String; 8],
    values: [String; 8],
}

fn words() -> impl Strategy<Value = Words> {
    let (names, values) = (prop::array::uniform8(name()), prop::array::uniform8(storable()));
    (names, values).prop_map(|(names, values)| Words { names, values })
}

const OPERATIONS: [Operation; 6] =
    [Operation::Insert, Operation::Update, Operation::Upsert, Operation::Delete, Operation::Changes, Operation::Sql];

fn harmless() -> Words {
    Words { names: ["a", "b", "c", "d", "e", "f", "g", "h"].map(str::to_owned), values: ["1"; 8].map(str::to_owned) }
}

fn mapping(words: &Words, operation: Operation, stage_rows: StageRows) -> Mapping {
    let [schema, stage, target, key, column, indicator, order, guard] = words.names.clone().map(Ident::exact);
    let [delete, insert, update, low, high, ..] = words.values.clone();
    let table = |name: Ident| TableName { schema: Some(schema.clone()), name };
    let mut mapping = Mapping::new(table(stage), table(target), operation);
    mapping.stage_columns = vec![key.clone(), column.clone(), indicator.clone(), order.clone()];
    mapping.stage_rows = stage_rows;
    mapping.existing = Existing::Skip;
    mapping.window = Some(Window {
        column: Ordered { column: order.clone(), is_text: true },
        type_name: "numeric".into(),
        overlap: None,
        bounds: Some(Bounds { low: Some(low), high: Some(high) }),
    });
    mapping.key = vec![KeyColumn {
        column: key.clone(),
        expression: format!("stage.{key}"),
        collation: Some(format!("pg_catalog.{}", Ident::exact("C"))),
    }];
    // The row as a whole: then all columns are carried, whatever they are called.
    let value = Some(format!("(stage).{column}"));
    mapping.assignments = vec![Assignment { column, insert: value.clone(), update: value, compare: None }];
    mapping.cut = vec![CutColumn { column: key, type_name: "text".into(), collation: None, nullable: true }];
    if operation == Operation::Changes {
        mapping.changes = Some(ChangeRules {
            indicator,
            writes: [insert, update],
            delete,
            order: Ordered { column: order, is_text: true },
            guard: Some(Ordered { column: guard, is_text: false }),
        });
    }
    mapping.statements = vec![
        "DELETE FROM x AS stage WHERE {chunk}".into(),
        "SELECT f({start_id}, {end_id}) FROM x AS stage WHERE {chunk} AND id BETWEEN {start_id} AND {end_id}".into(),
    ];
    mapping
}

fn ranges(words: &Words) -> Vec<Range> {
    let [.., a, b, c] = words.values.clone();
    let leaf =
        Leaf { oid: 7, filenode: 8, name: TableName { schema: None, name: Ident::exact(words.names[0].clone()) } };
    vec![
        Range::Keys { low: Some(vec![a.clone()]), high: Some(vec![b.clone()]) },
        Range::Keys { low: None, high: Some(vec![c]) },
        Range::Ids { low: a, high: b },
        Range::NullKeys,
        Range::Blocks { leaf, low: Tid::block(1), high: None },
        Range::Rejects { run: 1, chunk: 2 },
    ]
}

/// Each statement that a run of this kind can send for its chunks.
fn code(words: &Words, operation: Operation, stage_rows: StageRows) -> Result<Vec<String>, TestCaseError> {
    let mapping = mapping(words, operation, stage_rows);
    let ranges = ranges(words);
    let mut all = Vec::new();
    for range in &ranges {
        all.extend(statement::of_chunk(&mapping, range));
        all.push(statement::freeze(&mapping, range));
        all.push(statement::count_rows(&mapping, range));
    }
    all.push(statement::apply(&mapping, Source::AllFrozen));
    all.push(statement::count_outside(&mapping, &ranges));
    all.push(statement::count_new(&mapping, &words.values[0], &ranges));
    all.push(statement::count_deletes(&mapping, (0..).zip(&ranges)));
    all.push(statement::keys_of_rejects(&mapping, "true"));
    all.push(statement::count_untaken(&mapping));
    all.push(statement::lock(&mapping, &ranges[0]));
    all.iter().map(|sql| skeleton(sql).map_err(TestCaseError::fail)).collect()
}

#[test]
fn a_column_that_an_expression_names_is_carried_whatever_it_is_called() {
    let inputs = (words(), select(&[Operation::Insert, Operation::Update, Operation::Upsert, Operation::Changes][..]));
    run("columns that are used", 300, inputs, |(words, operation)| {
        let mut mapping = mapping(&words, operation, StageRows::Keep);
        let column = mapping.stage_columns[1].clone();
        let value = Some(format!("COALESCE(stage.{column}, 1)"));
        mapping.assignments[0] = Assignment { insert: value.clone(), update: value, ..mapping.assignments[0].clone() };
        let sql = statement::apply(&mapping, Source::Frozen(1, 2));
        prop_assert!(sql.contains(&format!("stage.{column} AS \"stagemill column 2\"")), "{sql}");
        Ok(true)
    });
}

#[test]
fn no_name_and_no_value_changes_what_a_statement_does() {
    let inputs = (words(), select(&OPERATIONS[..]), select(&[StageRows::Keep, StageRows::Delete][..]));
    run("statements of chunks", 300, inputs, |(words, operation, stage_rows)| {
        prop_assert_eq!(code(&words, operation, stage_rows)?, code(&harmless(), operation, stage_rows)?);
        Ok(true)
    });
}
