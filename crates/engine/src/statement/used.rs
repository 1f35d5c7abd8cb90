//! Which of the stage's columns a statement has to carry along: those that its expressions may mention.
//!
//! Nothing is parsed: a column too many costs a little time, so whatever could be a mention is one.

use crate::{ident::Ident, mapping::Mapping};

/// The used columns, each with its place among the stage's.
pub(super) fn columns(mapping: &Mapping) -> Vec<(usize, &Ident)> {
    let expressions = mapping.assignments.iter().flat_map(|a| a.insert.iter().chain(&a.update));
    // As the server folds names that are not quoted.
    let expressions: Vec<String> = expressions.map(|text| text.to_ascii_lowercase()).collect();
    let all = expressions.iter().any(|text| may_take_all(text));
    let is_used = |column: &Ident| all || expressions.iter().any(|text| may_mention(text, column));
    mapping.stage_columns.iter().enumerate().filter(|(_, column)| is_used(column)).collect()
}

/// Whether the text may take the staged row as a whole, or may write a name in escapes.
fn may_take_all(text: &str) -> bool {
    let of_a_name = |c: char| c.is_alphanumeric() || c == '_' || c == '$';
    let taken = text.match_indices("stage").any(|(at, word)| {
        let (before, after) = (&text[..at], &text[at + word.len()..]);
        let inside = before.ends_with(of_a_name) || after.starts_with(of_a_name);
        let column = after.strip_prefix('.').is_some_and(|name| name.starts_with(|c| of_a_name(c) || c == '"'));
        !inside && !column
    });
    taken || text.contains("u&")
}

fn may_mention(text: &str, column: &Ident) -> bool {
    let name = column.as_str();
    // Quotes are written twice, and how letters beyond ASCII are folded depends on the encoding.
    !name.is_ascii() || name.contains('"') || text.contains(&name.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ident::TableName, job::Operation, mapping::Assignment};

    fn used(expression: &str) -> Vec<&'static str> {
        const COLUMNS: [&str; 5] = ["id", "amount", "Mixed", "say \"so\"", "gr\u{f6}\u{df}e"];
        let table = TableName { schema: None, name: Ident::exact("t") };
        let value = Some(expression.to_owned());
        let column = Ident::exact("c");
        let mapping = Mapping {
            stage_columns: COLUMNS.map(Ident::exact).to_vec(),
            assignments: vec![Assignment { column, insert: None, update: value, compare: None }],
            ..Mapping::new(table.clone(), table, Operation::Update)
        };
        columns(&mapping).into_iter().map(|(n, _)| COLUMNS[n]).take(3).collect()
    }

    #[test]
    fn a_column_is_carried_when_an_expression_may_mention_it() {
        for (expression, expected) in [
            ("1", &[][..]),
            ("stage.id", &["id"]),
            ("STAGE.ID + 1", &["id"]),
            ("AMOUNT", &["amount"]),
            ("stage.\"Mixed\"", &["Mixed"]),
            ("(SELECT x FROM stage_rates r WHERE r.id = stage.id AND r.backstage)", &["id"]),
        ] {
            assert_eq!(used(expression)[..expected.len().min(used(expression).len())], *expected, "{expression}");
        }
        // What is not plain to see is always carried.
        assert_eq!(used("1"), ["say \"so\"", "gr\u{f6}\u{df}e"]);
    }

    #[test]
    fn all_are_carried_when_an_expression_may_take_the_row() {
        for expression in [
            "to_jsonb(stage)",
            "(stage).id",
            "(stage.*)::text",
            "row(Stage.*)",
            "\"stage\".id",
            "stage /* */ .id",
            "U&\"\\0069d\"",
        ] {
            assert_eq!(used(expression), ["id", "amount", "Mixed"], "{expression}");
        }
    }
}
