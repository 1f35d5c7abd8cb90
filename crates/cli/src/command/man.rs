//! `stagemill man`: the manual.

use std::{fs, io, path::Path};

use clap::CommandFactory;
use clap_mangen::{
    Man,
    roff::{Roff, roman},
};

use crate::{
    args::{Args, ManArgs},
    exit::{CliError, Exit},
    world::World,
};

pub(crate) fn run(args: ManArgs, world: &World) -> Result<Exit, CliError> {
    let mut program = Args::command().disable_help_subcommand(true);
    program.build();
    match args.folder {
        Some(folder) => write(&program, &folder)
            .map_err(|error| CliError::Usage(format!("cannot write the manual to {}: {error}", folder.display())))?,
        None => {
            let page =
                page(&program).map_err(|error| CliError::Internal(format!("the manual can't be made: {error}")))?;
            world.print(&String::from_utf8_lossy(&page))?;
        }
    }
    Ok(Exit::Done)
}

/// Writes a page for the command and for each below it.
fn write(command: &clap::Command, folder: &Path) -> io::Result<()> {
    fs::write(folder.join(Man::new(command.clone()).get_filename()), page(command)?)?;
    command.get_subcommands().try_for_each(|below| write(below, folder))
}

fn page(command: &clap::Command) -> io::Result<Vec<u8>> {
    let man = Man::new(command.clone()).manual("stagemill").source(concat!("stagemill ", env!("CARGO_PKG_VERSION")));
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    // Line by line: what stands below itself is no longer so when it is filled.
    if let Some(after) = command.get_after_help() {
        let mut examples = Roff::new();
        examples.control("SH", ["EXAMPLES"]).control("nf", []);
        for line in after.to_string().lines().filter(|line| *line != "Examples:" && *line != "Example:") {
            examples.text([roman(line)]);
        }
        examples.control("fi", []);
        examples.to_writer(&mut page)?;
    }
    Ok(page)
}
