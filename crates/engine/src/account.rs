//! From what a chunk's statement found to what became of each row: every staged row is accounted for, or the chunk is rolled back.

use crate::{
    failure::{Class, Failure},
    job::{Existing, Operation},
    mapping::Mapping,
    outcome::Counts,
};

/// What a chunk's statement found and did. What an operation does not have is 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Found {
    /// Rows read from the stage.
    pub staged: i64,
    /// Changes that are not the newest of their key.
    pub superseded: i64,
    /// Changes that can't be applied: an unknown indicator, a NULL in the key, an order that is no number.
    pub unusable: i64,
    /// Keys with two different changes of one order.
    pub ties: i64,
    /// Keys staged more than once.
    pub duplicates: i64,
    /// Newest changes that are deletes.
    pub deletes: i64,
    /// Rows to write whose key the target did not have, where that is counted.
    pub missing: i64,
    /// Rows to write that the target has and that are not to be updated, where that is counted: refused by the guard, or unchanged.
    pub kept: i64,
    /// Rows to write that the guard refused as older than what the target has.
    pub stale: i64,
    /// Deletes that the guard refused because the target has just this change.
    pub same: i64,
    /// Rows inserted.
    pub inserted: i64,
    /// Rows updated.
    pub updated: i64,
    /// Rows deleted.
    pub deleted: i64,
}

/// Accounts for every staged row.
///
/// # Errors
/// When staged rows contradict each other, can't be used, or the numbers don't add up.
pub fn account(mapping: &Mapping, found: &Found) -> Result<Counts, Failure> {
    if let Some(failure) = contradiction(mapping, found) {
        return Err(failure);
    }
    if found.unusable > 0 {
        return Err(unusable(mapping, found.unusable));
    }
    let counts = count(mapping, found);
    let all_there = [counts.skipped, counts.unchanged].iter().all(|count| *count >= 0);
    if counts.add_up() && all_there {
        return Ok(counts);
    }
    let text = format!(
        "{} rows staged, {} inserted, {} updated and {} deleted do not add up: another session wrote the same keys, a trigger suppressed rows, or a key changes when it is stored",
        found.staged, found.inserted, found.updated, found.deleted
    );
    Err(Failure::new(Class::Contention, text))
}

/// Staged rows that contradict each other, so that no single one is to blame.
pub fn contradiction(mapping: &Mapping, found: &Found) -> Option<Failure> {
    match found {
        Found { duplicates: 1.., .. } => Some(duplicate_keys(mapping, found.duplicates)),
        Found { ties: 1.., .. } => Some(ties(mapping, found.ties)),
        _ => None,
    }
}

fn count(mapping: &Mapping, found: &Found) -> Counts {
    let Found { staged, inserted, updated, deleted, .. } = *found;
    let counts = Counts { staged, inserted, updated, deleted, ..Counts::default() };
    let counted = mapping.skip_unchanged || mapping.changes.as_ref().is_some_and(|rules| rules.guard.is_some());
    match mapping.operation {
        Operation::Insert if mapping.existing == Existing::Skip => Counts { skipped: staged - inserted, ..counts },
        Operation::Insert | Operation::Sql => counts,
        Operation::Update if counted => Counts { skipped: found.missing, unchanged: found.kept, ..counts },
        Operation::Update => Counts { skipped: staged - updated, ..counts },
        Operation::Upsert => Counts { unchanged: found.kept, ..counts },
        Operation::Delete => Counts { skipped: staged - deleted, ..counts },
        Operation::Changes => Counts {
            skipped: found.superseded + found.stale + (found.deletes - deleted - found.same),
            unchanged: found.kept - found.stale + found.same,
            ..counts
        },
    }
}

/// The failure of staged rows that share a target key.
pub fn duplicate_keys(mapping: &Mapping, duplicates: i64) -> Failure {
    Failure::new(
        Class::DuplicateKeys,
        format!(
            "{duplicates} target key(s) are staged more than once; only one row may change a target row. Find them with: {}",
            duplicates_query(mapping),
        ),
    )
}

/// The query that finds keys which are staged more than once, for a person.
pub fn duplicates_query(mapping: &Mapping) -> String {
    repeated(mapping, &keys(mapping))
}

fn repeated(mapping: &Mapping, columns: &str) -> String {
    let filter = filter(mapping);
    format!("SELECT {columns}, count(*) FROM {} AS stage{filter} GROUP BY {columns} HAVING count(*) > 1", mapping.stage)
}

fn ties(mapping: &Mapping, ties: i64) -> Failure {
    let order = mapping.changes.as_ref().map(|rules| rules.order.value("stage")).unwrap_or_default();
    Failure::new(
        Class::DuplicateKeys,
        format!(
            "{ties} key(s) have two different changes of the same order, so that there is no telling which is the newest. Find them with: {}",
            repeated(mapping, &format!("{}, {order}", keys(mapping))),
        ),
    )
}

fn unusable(mapping: &Mapping, unusable: i64) -> Failure {
    let Some(rules) = &mapping.changes else { return Failure::new(Class::Internal, "only changes can be unusable") };
    Failure::new(
        Class::BadData,
        format!(
            "{unusable} staged change(s) can't be used: column {} holds none of the job's indicators, the key is NULL, or column {} is no number",
            rules.indicator, rules.order.column
        ),
    )
}

fn keys(mapping: &Mapping) -> String {
    mapping.key.iter().map(|key| own_line(&key.expression)).collect::<Vec<_>>().join(", ")
}

/// Without the bounds of a window, which are values of rows.
fn filter(mapping: &Mapping) -> String {
    mapping.filter.as_ref().map(|filter| format!(" WHERE {}", own_line(filter))).unwrap_or_default()
}

/// An expression may end in a comment.
fn own_line(text: &str) -> String {
    if text.contains("--") { format!("\n{text}\n") } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mapping::{ChangeRules, Ordered};

    fn mapping(operation: Operation) -> Mapping {
        use crate::ident::{Ident, TableName};
        let table = TableName { schema: None, name: Ident::exact("t") };
        Mapping::new(table.clone(), table, operation)
    }

    fn changes(guarded: bool) -> Mapping {
        use crate::ident::Ident;
        let order = Ordered { column: Ident::exact("seq"), is_text: false };
        let rules = ChangeRules {
            indicator: Ident::exact("op"),
            writes: ["I".into(), "U".into()],
            delete: "D".into(),
            order: order.clone(),
            guard: guarded.then_some(order),
        };
        Mapping { changes: Some(rules), ..mapping(Operation::Changes) }
    }

    #[test]
    fn every_staged_row_is_accounted_for_or_the_chunk_is_rolled_back() {
        let skipping = |operation| Mapping { skip_unchanged: true, ..mapping(operation) };
        let strict = Mapping { existing: Existing::Error, ..mapping(Operation::Insert) };
        let found = Found { staged: 5, ..Found::default() };
        for (mapping, found, expected) in [
            (mapping(Operation::Upsert), Found { inserted: 2, updated: 3, ..found }, Ok((0, 0))),
            (mapping(Operation::Upsert), Found { inserted: 2, updated: 2, ..found }, Err(Class::Contention)),
            (
                mapping(Operation::Upsert),
                Found { inserted: 2, updated: 3, duplicates: 1, ..found },
                Err(Class::DuplicateKeys),
            ),
            (skipping(Operation::Upsert), Found { inserted: 2, missing: 2, updated: 1, kept: 2, ..found }, Ok((0, 2))),
            // A row that was there, and was deleted meanwhile.
            (
                skipping(Operation::Upsert),
                Found { inserted: 2, missing: 2, updated: 1, kept: 1, ..found },
                Err(Class::Contention),
            ),
            (
                skipping(Operation::Upsert),
                Found { inserted: 1, missing: 2, updated: 1, kept: 2, ..found },
                Err(Class::Contention),
            ),
            (mapping(Operation::Update), Found { updated: 3, ..found }, Ok((2, 0))),
            (mapping(Operation::Update), Found { updated: 6, ..found }, Err(Class::Contention)),
            (skipping(Operation::Update), Found { updated: 1, missing: 3, kept: 1, ..found }, Ok((3, 1))),
            (mapping(Operation::Insert), Found { inserted: 4, ..found }, Ok((1, 0))),
            (strict.clone(), Found { inserted: 5, ..found }, Ok((0, 0))),
            (strict, Found { inserted: 4, ..found }, Err(Class::Contention)),
            (mapping(Operation::Delete), Found { deleted: 2, ..found }, Ok((3, 0))),
            (mapping(Operation::Delete), Found { deleted: 6, ..found }, Err(Class::Contention)),
        ] {
            let counted =
                account(&mapping, &found).map(|counts| (counts.skipped, counts.unchanged)).map_err(|f| f.class);
            assert_eq!(counted, expected, "{:?} {found:?}", mapping.operation);
        }
    }

    #[test]
    fn changes_are_applied_superseded_refused_or_find_nothing_to_delete() {
        // Ten changes: three superseded, two deletes (one finds its row), five writes.
        let found =
            Found { staged: 10, superseded: 3, deletes: 2, deleted: 1, inserted: 2, updated: 3, ..Found::default() };
        let counts = account(&changes(false), &found).unwrap();
        assert_eq!((counts.skipped, counts.unchanged, counts.written()), (4, 0, 6));
        // With a guard: of three target rows one is newer than its change, one has just this change.
        let guarded = Found { missing: 2, updated: 1, kept: 2, stale: 1, ..found };
        let counts = account(&changes(true), &guarded).unwrap();
        assert_eq!((counts.skipped, counts.unchanged, counts.written()), (5, 1, 4));
        let same_delete = Found { deleted: 0, same: 1, ..guarded };
        let counts = account(&changes(true), &same_delete).unwrap();
        assert_eq!((counts.skipped, counts.unchanged), (5, 2));
        assert_eq!(account(&changes(false), &Found { ties: 1, ..found }).unwrap_err().class, Class::DuplicateKeys);
        assert_eq!(account(&changes(false), &Found { unusable: 1, ..found }).unwrap_err().class, Class::BadData);
    }
}
