//! `stagemill init --grants`: what a role needs, as SQL to pipe into psql. Nothing is changed.

use stagemill_engine::{
    check,
    finding::{Finding, Severity},
    grants,
    ident::Ident,
};

use crate::{
    args::{Changes, InitArgs},
    exit::{CliError, Exit},
    jobfile, server, table,
    world::{Stream, World},
};

pub(crate) async fn run(args: InitArgs, world: &World) -> Result<Exit, CliError> {
    let role = named(args.role)?;
    let mut sql = block("The ledger, for whoever runs jobs.", &grants::ledger(&role));
    if let Some(reader) = args.reader {
        sql += &block("The ledger, for whoever looks at runs.", &grants::reader(&named(reader)?));
    }
    for named in &args.jobs {
        sql += &of_job(named, &role, world).await?;
    }
    world.print(sql.trim_end())?;
    Ok(Exit::Done)
}

async fn of_job(named: &str, role: &Ident, world: &World) -> Result<String, CliError> {
    if jobfile::is_file(named) {
        jobfile::read(named.as_ref())?;
    }
    let server = server::server(&world.connect)?;
    let job = jobfile::load(named, Changes::default(), &server).await?;
    let connection = server::connect(&server).await?;
    let checked = check::job(&connection, &job).await?;
    let (Some(mapping), Some(stage)) = (&checked.mapping, &checked.stage) else {
        return Err(CliError::Findings { what: format!("job {named}"), findings: checked.findings });
    };
    // What this role lacks itself is no fault of the job's, but everything else is worth a word.
    let errors: Vec<Finding> = checked.findings.into_iter().filter(|f| f.severity == Severity::Error).collect();
    if !errors.is_empty() {
        world.say(&format!("job {named} can't run for this role:\n{}", table::findings(&errors, Stream::Err)));
    }
    let grants = grants::job(&connection, role, mapping, stage).await?;
    Ok(block(&format!("Job {}.", job.name), &grants))
}

/// A longer name would be cut by the server, and be another role's.
fn named(name: String) -> Result<Ident, CliError> {
    Ident::given(&name).map_err(|fault| CliError::Usage(format!("{name:?} can't be a role: {fault}")))
}

fn block(what: &str, grants: &[String]) -> String {
    format!("-- {what}\n{}\n", grants.join("\n"))
}
