//! `slotway docs man`: the manual pages, generated from the definition of the command line.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use clap::Command;
use clap_mangen::Man;

/// Writes slotway(1) and a page for each subcommand to `dir`, which is created.
///
/// # Errors
/// A page cannot be written.
pub fn write(command: Command, dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    let mut command = command.disable_help_subcommand(true);
    command.build();
    for subcommand in command.get_subcommands().filter(|s| !s.is_hide_set()) {
        write_page(subcommand.clone(), dir)?;
    }
    write_page(command, dir)
}

fn write_page(command: Command, dir: &Path) -> io::Result<()> {
    let name = command.get_display_name().unwrap_or(command.get_name()).to_owned();
    let text = command.get_after_long_help().map(ToString::to_string).unwrap_or_default();
    let version = command.get_version().unwrap_or(env!("CARGO_PKG_VERSION")).to_owned();
    let subcommands = command.has_subcommands();
    let man = Man::new(command)
        .title(name.to_uppercase())
        .source(format!("slotway {version}"))
        .manual("Slotway");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if subcommands {
        man.render_subcommands_section(&mut page)?;
    }
    write_sections(&text, &mut page)?;
    fs::write(dir.join(format!("{name}.1")), page)
}

/// Writes `text` as sections: a paragraph whose first line ends in a colon becomes a section of
/// this title, its lines unfilled.
fn write_sections(text: &str, page: &mut Vec<u8>) -> io::Result<()> {
    for paragraph in text.split("\n\n").filter(|p| !p.is_empty()) {
        let (head, body) = paragraph.split_once('\n').unwrap_or(("", paragraph));
        match head.strip_suffix(':') {
            Some(head) => writeln!(page, ".SH {}\n.nf", head.to_uppercase())?,
            None => writeln!(page, ".SH NOTES\n.nf\n{}", escaped(head))?,
        }
        for line in body.lines() {
            writeln!(page, "{}", escaped(line.strip_prefix("  ").unwrap_or(line)))?;
        }
        writeln!(page, ".fi")?;
    }
    Ok(())
}

/// A line of text, escaped for roff.
fn escaped(line: &str) -> String {
    let line = line.replace('\\', "\\e").replace('-', "\\-").replace('…', "...");
    if line.starts_with(['.', '\'']) { format!("\\&{line}") } else { line }
}
