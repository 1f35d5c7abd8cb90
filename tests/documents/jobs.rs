//! The jobs that the README shows are run, in their order, and their rows become what it says.

use stagemill_engine::outcome::{Counts, Status};

use super::{source, sql::section};
use crate::database::{Database, job};

/// The fenced blocks of a Markdown text: language, content, and what follows up to the next one.
fn fenced(markdown: &str) -> Vec<(&str, &str, &str)> {
    let parts: Vec<&str> = markdown.split("```").collect();
    // Outside, inside, outside, and so on.
    let blocks = parts.get(1..).unwrap_or_default().chunks_exact(2);
    blocks.filter_map(|pair| pair[0].split_once('\n').map(|(language, content)| (language, content, pair[1]))).collect()
}

/// `1,000`.
fn thousands(n: i64) -> String {
    if n < 1_000 { n.to_string() } else { format!("{},{:03}", n / 1_000, n % 1_000) }
}

/// Rows by what became of them, in the words of the command line.
fn words(counts: &Counts) -> String {
    let kinds = [
        (counts.inserted, "inserted"),
        (counts.updated, "updated"),
        (counts.deleted, "deleted"),
        (counts.unchanged, "unchanged"),
        (counts.skipped, "skipped"),
        (counts.rejected, "set aside"),
        (counts.handed, "handed to the job's statements"),
    ];
    let parts: Vec<String> =
        kinds.iter().filter(|(n, _)| *n > 0).map(|(n, kind)| format!("{} {kind}", thousands(*n))).collect();
    format!("{} staged = {}", thousands(counts.staged), parts.join(" + "))
}

#[tokio::test]
async fn every_job_in_the_readme_runs_and_its_rows_become_what_it_says() {
    let readme = source("README.md");
    let database = Database::with(&section(&readme, "## Quick start")).await;
    database.execute(&source("jobs/examples.sql")).await;
    let from = readme.find("\n## Jobs\n").unwrap();
    let to = readme.find("\n## How the stage is cut\n").unwrap();
    let mut runs = Vec::new();
    for (language, content, after) in fenced(&readme[from..to]) {
        match language {
            "sql" => database.execute(content).await,
            "json" if content.contains("\"name\"") => {
                let job = job(content);
                let summary = database.run(&job).await;
                let said = after.split('`').nth(1).filter(|said| said.contains(" staged = "));
                assert_eq!(Some(words(&summary.tally.counts).as_str()), said, "{}: {:?}", job.name, summary.error);
                let status =
                    if summary.tally.counts.rejected > 0 { Status::CompleteWithRejects } else { Status::Complete };
                assert_eq!(summary.status, status, "{}", job.name);
                runs.push(job.operation.as_str());
            }
            _ => {}
        }
    }
    for operation in ["insert", "update", "upsert", "delete", "changes", "sql"] {
        assert!(runs.contains(&operation), "no {operation} among {runs:?}");
    }
    // The guard's tombstones: what was deleted is there, and says so.
    let kept = "SELECT count(*) FILTER (WHERE deleted) || ' ' || count(DISTINCT last_change) FROM shop.orders WHERE order_id BETWEEN 201 AND 300";
    assert_eq!(database.value(kept).await, "100 1");
    database
        .execute(
            "TRUNCATE shop_stg.order_changes; INSERT INTO shop_stg.order_changes VALUES ('U', '9', 201, 'late', 1)",
        )
        .await;
    let orders_kept =
        fenced(&readme).into_iter().find(|(_, content, _)| content.contains("\"orders_kept\"")).unwrap().1;
    assert_eq!(words(&database.run(&job(orders_kept)).await.tally.counts), "1 staged = 1 skipped");
    let order_changes =
        fenced(&readme).into_iter().find(|(_, content, _)| content.contains("\"order_changes\"")).unwrap().1;
    database.execute("DELETE FROM shop.orders WHERE order_id = 201").await;
    assert_eq!(words(&database.run(&job(order_changes)).await.tally.counts), "1 staged = 1 inserted", "no tombstone");
}

/// What stands in a row of the README's table of fields is in the schema, and the other way round.
#[test]
fn the_table_of_fields_is_complete() {
    let readme = source("README.md");
    let section = readme.split("\n## Jobs\n").nth(1).unwrap().split("**Columns.**").next().unwrap();
    let rows: Vec<&str> = section.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    let schema: serde_json::Value = serde_json::from_str(&source("jobs/job.schema.json")).unwrap();
    for field in schema["properties"].as_object().unwrap().keys() {
        let there = rows.iter().any(|row| row == field || row.starts_with(&format!("{field}.")));
        assert!(there, "{field} is not in the table");
    }
    for field in schema["$defs"]["Chunks"]["properties"].as_object().unwrap().keys() {
        assert!(rows.contains(&format!("chunks.{field}").as_str()), "chunks.{field} is not in the table");
    }
    for row in rows {
        let field = row.split('.').next().unwrap();
        assert!(schema["properties"].get(field).is_some(), "{row} is no field");
    }
}
