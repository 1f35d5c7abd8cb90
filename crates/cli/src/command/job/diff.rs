//! `stagemill job diff`: what differs between two jobs, as they are understood.

use anstyle::AnsiColor;
use serde::Serialize;
use serde_json::{Value as Json, json};
use similar::{ChangeTag, TextDiff};
use stagemill_engine::{job::Job, ledger};

use crate::{
    args::Changes,
    exit::{CliError, Exit},
    jobfile, server,
    world::{Stream, World, styled},
};

pub(super) async fn run(named: &str, other: Option<&str>, json: bool, world: &World) -> Result<Exit, CliError> {
    if jobfile::is_file(named) {
        // What is wrong with it is said before the server is asked.
        jobfile::read(named.as_ref())?;
    } else if other.is_none() {
        return Err(CliError::Usage(format!(
            "{named:?} is no file, so it is a job of the job table, and there is nothing to compare it with: give a file, or a second name"
        )));
    }
    let (server, connection) = server::connect_with_ledger(&world.connect).await?;
    let new = jobfile::load(named, Changes::default(), &server).await?;
    let old = ledger::job::get(&connection, other.unwrap_or(&new.name)).await?;
    let differences = differences(&old.to_value(), &new.to_value());
    if json {
        world.print_json(&json!({ "job": old.name, "equal": differences.is_empty(), "differences": differences }))?;
    } else if differences.is_empty() {
        world.print(&format!("{named} is the job {} of the job table", old.name))?;
    } else {
        world.print(&unified(&old, &new, named)?)?;
    }
    Ok(if differences.is_empty() { Exit::Done } else { Exit::NotApplied })
}

/// A field in which two jobs differ.
#[derive(Debug, PartialEq, Serialize)]
struct Difference {
    /// Its path: `chunks.rows`.
    field: String,
    /// What the job table's says; null for nothing.
    stored: Json,
    /// What the other one says.
    given: Json,
}

fn differences(stored: &Json, given: &Json) -> Vec<Difference> {
    let mut found = Vec::new();
    compare("", stored, given, &mut found);
    found
}

fn compare(field: &str, stored: &Json, given: &Json, found: &mut Vec<Difference>) {
    let (Json::Object(one), Json::Object(other)) = (stored, given) else {
        if stored != given {
            found.push(Difference { field: field.to_owned(), stored: stored.clone(), given: given.clone() });
        }
        return;
    };
    let only_given = other.keys().filter(|name| !one.contains_key(*name));
    for name in one.keys().chain(only_given) {
        let below = if field.is_empty() { name.clone() } else { format!("{field}.{name}") };
        compare(&below, one.get(name).unwrap_or(&Json::Null), other.get(name).unwrap_or(&Json::Null), found);
    }
}

/// The lines of both, as `diff -u` shows them.
fn unified(old: &Job, new: &Job, named: &str) -> Result<String, CliError> {
    let text = |job: &Job| {
        serde_json::to_string_pretty(&job.to_value())
            .map(|text| text + "\n")
            .map_err(|error| CliError::Internal(format!("cannot write JSON: {error}")))
    };
    let (one, other) = (text(old)?, text(new)?);
    let diff = TextDiff::from_lines(&one, &other);
    let mut lines = vec![format!("--- job table: {}", old.name), format!("+++ {named}")];
    for hunk in diff.unified_diff().context_radius(3).iter_hunks() {
        lines.push(styled(Stream::Out, AnsiColor::Cyan, &hunk.header().to_string()));
        lines.extend(hunk.iter_changes().map(|change| {
            let line = format!("{}{}", change.tag(), change.value().trim_end_matches('\n'));
            match change.tag() {
                ChangeTag::Delete => styled(Stream::Out, AnsiColor::Red, &line),
                ChangeTag::Insert => styled(Stream::Out, AnsiColor::Green, &line),
                ChangeTag::Equal => line,
            }
        }));
    }
    Ok(lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_compared_by_their_path_wherever_they_stand() {
        let stored = json!({"a": 1, "chunks": {"rows": 5, "by": "key"}, "gone": true});
        let given = json!({"chunks": {"by": "key", "rows": 6}, "a": 1, "new": [1]});
        let found = differences(&stored, &given);
        let fields: Vec<&str> = found.iter().map(|difference| difference.field.as_str()).collect();
        assert_eq!(fields, ["chunks.rows", "gone", "new"]);
        assert_eq!((&found[1].given, &found[0].stored), (&Json::Null, &json!(5)));
        assert!(differences(&stored, &stored).is_empty());
    }
}
