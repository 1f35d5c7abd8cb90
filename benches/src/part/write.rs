//! All operations with everything in the cache: processors are what there is too little of.

use anyhow::Result;

use super::{Effort, cores};
use crate::{
    contestant::Contestant,
    goal::LARGE,
    race::{Course, Race},
    server::Server,
    workload::{Operation, Secondary, Size, make_target, make_template},
};

/// Beside the published setting; the best of these is the Python program's best.
const PYTHON: [(u32, u32); 5] = [(2, 5_000), (4, 5_000), (8, 5_000), (2, 20_000), (4, 20_000)];

pub(crate) fn run(effort: Effort, races: &mut Vec<Race>) -> Result<()> {
    // Everything fits: two copies of the larger tables.
    let server = Server::start("6GB", &[])?;
    let size = if effort.quick {
        Size { staged: 20_000, target: 200_000 }
    } else {
        Size { staged: 400_000, target: 4_000_000 }
    };
    eprintln!("write: filling {} target rows", size.target);
    make_target(&server, "base", size, Secondary::Near)?;
    let mut templates = Vec::new();
    for operation in Operation::ALL {
        templates.push((operation, make_template(&server, "base", operation, size)?));
    }
    for page_images in [false, true] {
        server.set_page_images(page_images)?;
        // The second time is to see that nothing is otherwise: fewer laps will do.
        let repetitions = if page_images { effort.repetitions.div_ceil(2) } else { effort.repetitions };
        for (operation, template) in &templates {
            let course =
                Course { server: &server, template, operation: *operation, size, warm: true, slow: &|_| Ok(()) };
            races.push(match (operation, page_images) {
                (Operation::Update, false) => everybody(&course, effort)?,
                _ => main_three(&course, page_images, repetitions)?,
            });
        }
    }
    server.set_page_images(false)?;
    for (_, template) in &templates {
        server.drop_database(template)?;
    }
    large(&server, effort, races)
}

/// The one race in which all take part.
fn everybody(course: &Course<'_>, effort: Effort) -> Result<Race> {
    let (best, tried) = course.best(&PYTHON.map(|(threads, rows)| Contestant::Threads { threads, rows }))?;
    let contestants = [
        Contestant::Single,
        Contestant::Sorted,
        Contestant::Procedure,
        Contestant::Threads { threads: 20, rows: 50_000 },
        best,
        Contestant::Limit { sessions: cores() },
        Contestant::Stagemill { parallelism: Some(cores()) },
        Contestant::Stagemill { parallelism: None },
    ];
    let once: Vec<_> = [1, 4, 8]
        .into_iter()
        .filter(|n| *n != cores())
        .map(|n| Contestant::Stagemill { parallelism: Some(n) })
        .collect();
    let race = course.race("update, page images off", &contestants, &once, effort.repetitions)?;
    Ok(Race { tried, ..race })
}

fn main_three(course: &Course<'_>, page_images: bool, repetitions: u32) -> Result<Race> {
    let name = format!("{}, page images {}", course.operation.as_str(), if page_images { "on" } else { "off" });
    let contestants = [
        Contestant::Single,
        Contestant::Limit { sessions: cores() },
        Contestant::Stagemill { parallelism: Some(cores()) },
    ];
    course.race(&name, &contestants, &[], repetitions)
}

/// Five times as many rows, once.
fn large(server: &Server, effort: Effort, races: &mut Vec<Race>) -> Result<()> {
    let size = if effort.quick {
        Size { staged: 40_000, target: 400_000 }
    } else {
        Size { staged: 2_000_000, target: 20_000_000 }
    };
    eprintln!("write: filling {} target rows", size.target);
    make_target(server, "large", size, Secondary::Near)?;
    let template = make_template(server, "large", Operation::Update, size)?;
    server.drop_database("large")?;
    let course =
        Course { server, template: &template, operation: Operation::Update, size, warm: true, slow: &|_| Ok(()) };
    let contestants = [
        Contestant::Single,
        Contestant::Limit { sessions: cores() },
        Contestant::Stagemill { parallelism: Some(cores()) },
        Contestant::Stagemill { parallelism: None },
    ];
    races.push(course.race(LARGE, &contestants, &[], 1)?);
    Ok(())
}
