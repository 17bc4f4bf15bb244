//! The `slotway` command.
#![forbid(unsafe_code)]

mod cli;
mod logging;

use std::fmt::Display;
use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use slotway::config::{self, Config, ConfigError};

use cli::{Cli, Command, Document};

/// The command ran into something that is not the configuration's fault.
const FAILED: u8 = 1;
/// The configuration is wrong. clap ends with the same code when the command line is.
const MISCONFIGURED: u8 = 2;

fn main() -> ExitCode {
    let env = std::env::vars_os().collect();
    let outcome = match Cli::parse().command {
        Command::Run(args) => config::load(&args.sources(env)).and_then(|loaded| {
            loaded.need_seeds()?;
            Ok(run(loaded.config))
        }),
        Command::Check(args) => config::load(&args.sources(env)).map(|loaded| {
            if let Err(error) = loaded.need_seeds() {
                eprintln!("note: `slotway run` would not start like this\n  {error}");
            }
            print(&config::effective_toml(&loaded))
        }),
        Command::Sandbox(args) => {
            let options = SandboxOptions { primaries: args.primaries, replicas: args.replicas };
            config::load(&args.sources(env)).map(|loaded| sandbox(options, loaded.config))
        }
        Command::Docs { document } => Ok(print(&match document {
            Document::Configuration => config::docs_markdown(),
            Document::ProxyToml => config::proxy_toml(),
        })),
    };
    outcome.unwrap_or_else(|error| misconfigured(&error))
}

fn run(config: Config) -> ExitCode {
    logging::init(&config);
    match serve(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "slotway failed");
            ExitCode::from(FAILED)
        }
    }
}

fn sandbox(options: SandboxOptions, config: Config) -> ExitCode {
    logging::init(&config);
    match serve_sandbox(options, config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(FAILED)
        }
    }
}

/// What the sandbox starts.
// TODO(integrator): use slotway::sandbox::SandboxOptions.
#[allow(dead_code)]
#[derive(Debug)]
struct SandboxOptions {
    primaries: u16,
    replicas: u16,
}

// TODO(integrator): slotway::control::run(config)
fn serve(_config: Config) -> Result<(), &'static str> {
    Err("not wired yet")
}

// TODO(integrator): slotway::sandbox::run(options, config)
fn serve_sandbox(_options: SandboxOptions, _config: Config) -> Result<(), &'static str> {
    Err("not wired yet")
}

/// Writes to standard output. A reader that went away (`slotway check | head`) is no failure.
fn print(text: &impl Display) -> ExitCode {
    let mut out = std::io::stdout().lock();
    let _ = write!(out, "{text}").and_then(|()| out.flush());
    ExitCode::SUCCESS
}

fn misconfigured(error: &ConfigError) -> ExitCode {
    eprintln!("error: the configuration is not valid");
    for problem in &error.problems {
        eprintln!("  {problem}");
    }
    ExitCode::from(MISCONFIGURED)
}
