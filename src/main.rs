//! The `slotway` command.
#![forbid(unsafe_code)]

mod cli;
mod logging;
mod man;
mod probe;
mod top;

use std::error::Error;
use std::fmt::Display;
use std::io::Write;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, Parser};
use slotway::command::CommandTable;
use slotway::config::{
    self, Address, Config, ConfigError, CrossSlot, Listen, Loaded, Problem, Sources, UpstreamKind,
};
use slotway::errors;
use slotway::process::Reload;
use slotway::tls::{Fault, Tls};
use slotway::{docs, metrics, process, sandbox};

use cli::{Cli, Command, Document, TopArgs};

/// Returns freed memory to the system. Its settings are in `.cargo/config.toml`; workers have a
/// rule of their own.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Exit code of a failure other than an invalid configuration.
const FAILED: u8 = 1;
/// Exit code for an invalid configuration. clap exits with the same one if the command line is.
const MISCONFIGURED: u8 = 2;

fn main() -> ExitCode {
    let env = std::env::vars_os().collect();
    let outcome = match Cli::parse().command {
        Command::Run(args) => {
            let sources = args.sources(env);
            config::load(&sources).and_then(|loaded| {
                loaded.require_seeds()?;
                certificates(&loaded)?;
                Ok(run(loaded.config, sources))
            })
        }
        Command::Check(args) => config::load(&args.sources(env)).and_then(|loaded| {
            let tls = certificates(&loaded)?;
            if let Err(error) = loaded.require_seeds() {
                eprintln!("note: `slotway run` would not start like this\n  {error}");
            }
            for warning in
                slotway::config::files::users(&loaded.config).unwrap_or_default().warnings()
            {
                eprintln!("warning: {warning}");
            }
            let memory = loaded.config.limits.memory;
            if let Some(warning) = memory.warning() {
                eprintln!("warning: {warning}");
            }
            Ok(print(&(config::effective_toml(&loaded) + &tls + &memory.describe())))
        }),
        Command::Sandbox(args) => {
            let size =
                SandboxSize { primaries: args.primaries.into(), replicas: args.replicas.into() };
            config::load(&args.sources(env)).map(|loaded| run_sandbox(size, loaded.config))
        }
        Command::Probe(args) => {
            let (page, limit) = (args.page.path(), Duration::from_secs(args.timeout));
            config::load(&args.sources(env)).map(|loaded| run_probe(&loaded.config, page, limit))
        }
        Command::Top(args) => Ok(run_top(args)),
        Command::Docs { document: Document::Man, dir } => Ok(write_man(&dir.unwrap_or_default())),
        Command::Docs { document, .. } => Ok(print(&match document {
            Document::Man => String::new(),
            Document::Commands => docs::commands_markdown(&CommandTable::builtin()),
            Document::Configuration => config::docs_markdown(),
            Document::Errors => errors::reference(),
            Document::Metrics => metrics::docs_markdown(),
            Document::ProxyToml => config::proxy_toml(),
        })),
    };
    outcome.unwrap_or_else(|error| misconfigured(&error))
}

/// A description of the TLS files that the configuration names.
fn certificates(loaded: &Loaded) -> Result<String, ConfigError> {
    let problem = |fault: Fault| Problem {
        origin: loaded.origin(&fault.key).clone(),
        key: fault.key,
        reason: fault.reason,
    };
    match Tls::load(&loaded.config) {
        Ok(tls) => Ok(tls.describe()),
        Err(faults) => Err(ConfigError { problems: faults.into_iter().map(problem).collect() }),
    }
}

fn run(config: Config, sources: Sources) -> ExitCode {
    let log_level = logging::init(&config);
    match process::run_reloading(config, Reload { sources, log_level }) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "slotway failed");
            ExitCode::from(FAILED)
        }
    }
}

/// Prints the page. The exit code says whether slotway is well.
fn run_probe(config: &Config, page: &str, limit: Duration) -> ExitCode {
    let Some(admin) = &config.admin else {
        eprintln!("error: the admin listener is off (admin = \"\"), so there is nobody to ask");
        return ExitCode::from(FAILED);
    };
    match probe::get_as_configured(admin, config, page, limit) {
        Ok((is_well, text)) => {
            print(&format_args!("{text}\n"));
            ExitCode::from(if is_well { 0 } else { FAILED })
        }
        Err(error) => {
            eprintln!("error: no answer from the admin listener {admin}: {error}");
            ExitCode::from(FAILED)
        }
    }
}

fn run_top(args: TopArgs) -> ExitCode {
    let TopArgs { url: admin, token_file, cert, once, interval } = args;
    let shown = top::read_token(token_file.as_deref())
        .and_then(|token| top::run(&top::Options { admin, token, cert, interval, once }));
    match shown {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(FAILED)
        }
    }
}

/// Writes the manual pages of slotway and its subcommands to `dir`.
fn write_man(dir: &Path) -> ExitCode {
    match man::write(Cli::command(), dir) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: the manual pages cannot be written to {}: {error}", dir.display());
            ExitCode::from(FAILED)
        }
    }
}

fn run_sandbox(size: SandboxSize, config: Config) -> ExitCode {
    let _ = logging::init(&config);
    match serve_sandbox(size, config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(FAILED)
        }
    }
}

/// The number of nodes of the sandbox.
struct SandboxSize {
    primaries: usize,
    replicas: usize,
}

/// Starts a local cluster, and slotway in front of it with the rest of the configuration.
fn serve_sandbox(args: SandboxSize, config: Config) -> Result<(), Box<dyn Error + Send + Sync>> {
    let listen = match config.listen.as_slice() {
        [Listen::Tcp(address)] => resolve(address)?,
        _ => return Err("the sandbox listens on one TCP address: see --port and --listen".into()),
    };
    let admin = config.admin.as_ref().map(resolve).transpose()?;
    let notes = match config.transactions.cross_slot {
        CrossSlot::Reject => Vec::new(),
        _ if config.upstream.kind != UpstreamKind::Cluster => Vec::new(),
        CrossSlot::Split => vec![
            "transactions.cross_slot = \"split\": a transaction over several slots is one per slot"
                .to_owned(),
        ],
    };
    let kind = match config.upstream.kind {
        UpstreamKind::Cluster => sandbox::SandboxKind::Cluster,
        UpstreamKind::Standalone => sandbox::SandboxKind::Standalone,
        UpstreamKind::Sentinel => sandbox::SandboxKind::Sentinel,
    };
    // By the name that the sandbox's Sentinels know.
    let mut config = config;
    config.upstream.master = sandbox::MASTER.into();
    let options = sandbox::Options {
        kind,
        primaries: args.primaries,
        replicas: args.replicas,
        listen,
        admin,
        notes,
        ..sandbox::Options::default()
    };
    let address = |a: SocketAddr| Address { host: a.ip().to_string(), port: a.port() };
    sandbox::run(options, |addrs| {
        process::run(Config {
            listen: vec![Listen::Tcp(address(addrs.listen))],
            admin: addrs.admin.map(address),
            seeds: addrs.seeds.into_iter().map(address).collect(),
            // The real ones are not for trying out.
            upstreams: Vec::new(),
            listener_upstreams: Vec::new(),
            routes: Vec::new(),
            databases: Vec::new(),
            ..config
        })
    })?;
    Ok(())
}

fn resolve(address: &Address) -> Result<SocketAddr, Box<dyn Error + Send + Sync>> {
    let mut all = (address.host.as_str(), address.port)
        .to_socket_addrs()
        .map_err(|e| format!("{address} cannot be resolved: {e}"))?;
    all.next().ok_or_else(|| format!("{address} has no address").into())
}

/// Writes to standard output. A reader that has gone away (`slotway check | head`) is not a
/// failure.
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
