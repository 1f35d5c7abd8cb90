//! The places in a statement of the user's own where a chunk's rows are named.

/// The chunk's condition over `stage`.
const CHUNK: &str = "{chunk}";
/// The first and the last value of a chunk that the job's own query gave.
const START: &str = "{start_id}";
const END: &str = "{end_id}";

/// Whether a statement names the chunk's rows.
pub fn is_in(statement: &str) -> bool {
    statement.contains(CHUNK) || names_ids(statement)
}

/// Whether a statement names a chunk's first and last value.
pub fn names_ids(statement: &str) -> bool {
    statement.contains(START) && statement.contains(END)
}

/// The statement for one chunk.
pub fn fill(statement: &str, condition: &str, ids: Option<(&str, &str)>) -> String {
    let filled = statement.replace(CHUNK, condition);
    match ids {
        Some((start, end)) => filled.replace(START, start).replace(END, end),
        None => filled,
    }
}
