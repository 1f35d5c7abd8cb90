//! The window of a job with a watermark: above what the last complete run took, up to the highest there is now.

use tokio_postgres::types::Type;

use crate::{
    failure::{Class, Failure},
    job::Job,
    ledger,
    mapping::{Bounds, Mapping, Window},
    pg::Connection,
    probe,
};

/// Fixes the bounds of the window, where the job has one.
///
/// # Errors
/// When rows have no value to go by, or the server can't be asked.
pub(super) async fn fix(connection: &Connection, mapping: &mut Mapping, job: &Job) -> Result<(), Failure> {
    let Some(mut window) = mapping.window.clone() else { return Ok(()) };
    let stage = mapping.stage.to_string();
    let before = ledger::run::last_high(connection, &job.name, &stage, window.column.column.as_str()).await?;
    let low = match &before {
        Some(high) => Some(low(connection, mapping, &window, high).await?),
        None => None,
    };
    let high = high(connection, mapping, &window, before.as_deref()).await?;
    window.bounds = Some(Bounds { low, high });
    mapping.window = Some(window);
    Ok(())
}

fn is_time(window: &Window) -> bool {
    ["date", "timestamp without time zone", "timestamp with time zone"].contains(&window.type_name.as_str())
}

/// The values of its type that no other exceeds, or that exceed no other.
fn endless(window: &Window) -> &'static [&'static str] {
    match window.type_name.as_str() {
        _ if is_time(window) => &["infinity", "-infinity"],
        "numeric" | "pg_catalog.numeric" => &["NaN", "Infinity", "-Infinity"],
        _ => &[],
    }
}

async fn low(connection: &Connection, mapping: &Mapping, window: &Window, high: &str) -> Result<String, Failure> {
    let Some(overlap) = &window.overlap else { return Ok(high.to_owned()) };
    // An interval is taken off a time, a number off a number.
    let overlap_type = if is_time(window) { "pg_catalog.interval" } else { &window.type_name };
    let sql = format!(
        "SELECT low::text, low > CAST($1::text AS {0}) FROM (SELECT CAST(CAST($1::text AS {0}) - CAST($2::text AS {overlap_type}) AS {0}) AS low) AS l",
        window.type_name
    );
    let params: [crate::pg::Param<'_>; 2] = [(&high, Type::TEXT), (overlap, Type::TEXT)];
    let row =
        probe::ask_one(connection, &mapping.settings, &sql, &params).await.map_err(|failure| match failure.class {
            Class::BadData => Failure::new(
                Class::BadJob,
                format!("watermark.overlap {overlap:?} can't be taken off a {}: {failure}", window.type_name),
            ),
            _ => failure,
        })?;
    if row.get(1) {
        let text = format!(
            "watermark.overlap {overlap:?} is negative: rows just above what the last run took would never be taken"
        );
        return Err(Failure::new(Class::BadJob, text));
    }
    Ok(row.get(0))
}

/// The highest value, never below what was taken `before`: where there is nothing new, what is known is not lost. A NULL is no value to go by,
/// and its row would never be taken.
async fn high(
    connection: &Connection,
    mapping: &Mapping,
    window: &Window,
    before: Option<&str>,
) -> Result<Option<String>, Failure> {
    let value = window.column.value("stage");
    let endless: Vec<String> =
        endless(window).iter().map(|value| format!("CAST('{value}' AS {})", window.type_name)).collect();
    let filter = mapping.filter.as_ref().map(|filter| format!(" WHERE (\n{filter}\n)")).unwrap_or_default();
    let sql = format!(
        "SELECT GREATEST(pg_catalog.max({value}), CAST($1::text AS {}))::text, pg_catalog.count(*) FILTER (WHERE {value} IS NULL), pg_catalog.count(*) FILTER (WHERE {value} IN ({})) FROM {} AS stage{filter}",
        window.type_name,
        if endless.is_empty() { "NULL".to_owned() } else { endless.join(", ") },
        mapping.stage
    );
    let row = probe::ask_one(connection, &mapping.settings, &sql, &[(&before, Type::TEXT)]).await?;
    let (without, endless): (i64, i64) = (row.get(1), row.get(2));
    let column = &window.column.column;
    if endless > 0 {
        let text = format!(
            "{endless} staged row(s) have infinity or NaN as {column}: after them no run would ever take another row: correct it, or leave them out with stage.where"
        );
        return Err(Failure::new(Class::BadData, text));
    }
    if without == 0 {
        return Ok(row.get(0));
    }
    let text = format!(
        "{without} staged row(s) have no {column}, so that no run would ever take them: fill it, or leave them out with stage.where. Find them with: SELECT * FROM {} AS stage WHERE {column} IS NULL",
        mapping.stage
    );
    Err(Failure::new(Class::BadData, text))
}
