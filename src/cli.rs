//! The command line: subcommands and flags, and the configuration sources that they become.
//!
//! Types that hold flags do not implement `Debug`: a flag may be a secret
//! (`--set upstream.password=…`).

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use slotway::config::{Address, Flag, Sources};

/// A cluster-aware Redis proxy: plain Redis clients on one side, a Redis Cluster on the other.
///
/// Applications connect to one address with any Redis client and need not know about slots and
/// nodes. Slotway sends each command to the node that owns its key, splits commands with keys on
/// several nodes and merges their replies, and follows the cluster when slots move, nodes come and
/// go or a primary fails over.
#[derive(Parser)]
#[command(name = "slotway", version, subcommand_required = true, arg_required_else_help = true)]
#[command(after_help = EXAMPLES, after_long_help = MANUAL)]
pub struct Cli {
    /// The subcommand.
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "\
Examples:
  slotway sandbox                              try it: a local cluster with slotway in front
  slotway run --config proxy.toml              production
  slotway run --listen 127.0.0.1:6379 --seeds 10.0.0.1:7000,10.0.0.2:7000
  slotway check --config proxy.toml            validate a file, print the effective configuration
  slotway top                                  watch the slotway that runs on this machine

Every configuration key can be set in the file, by an environment variable
(SLOTWAY_LIMITS__CLIENTS=1000) and by a flag (--set limits.clients=1000). Flags override
variables, variables override the file. docs/configuration.md explains every key.

Exit codes: 0 success, 1 failed while running, 2 invalid configuration or command line.";

const MANUAL: &str = "\
Examples:
  slotway sandbox                              try it: a local cluster with slotway in front
  slotway run --config proxy.toml              production
  slotway run --listen 0.0.0.0:6379 --seeds 10.0.0.1:7000,10.0.0.2:7000
  slotway check --config proxy.toml            validate a file, print the effective configuration
  slotway probe ready --config proxy.toml      does the running slotway reach every slot?
  slotway top                                  watch the slotway that runs on this machine

Configuration:
  Every key can be set in the file, by an environment variable
  (SLOTWAY_LIMITS__CLIENTS=1000: the key's path in capitals, two underscores
  for each dot) and by a flag (--set limits.clients=1000). Flags override
  variables, variables override the file. docs/configuration.md explains every
  key, proxy.toml is the same as a file to copy from.

Environment:
  SLOTWAY_CONFIG   the configuration file, as --config
  SLOTWAY_…        any configuration key
  NOTIFY_SOCKET    set by systemd, with WATCHDOG_USEC: slotway reports when it
                   is ready, when it stops, and, while all workers respond,
                   that it is alive
  NO_COLOR         no colours in log lines and in slotway top

Signals:
  SIGTERM, SIGINT  stop: report not ready, accept no more clients, answer what
                   is in flight, and exit with 0, at the latest after
                   timeouts.drain; a second signal exits at once

Exit codes:
  0  success
  1  failed while running, or cannot listen; of probe: not well, or no answer
  2  invalid configuration or command line; every mistake is listed with its
     place

Output:
  Log lines go to standard error. Metrics and health are pages of the admin
  listener: /metrics, /healthz, /readyz; / in a browser is the status page.";

/// The subcommands.
#[derive(Subcommand)]
pub enum Command {
    /// Serve clients in front of a cluster, until SIGTERM or Ctrl-C
    Run(RunArgs),
    /// Validate the configuration and print the effective one, as TOML
    Check(RunArgs),
    /// Start a local Redis Cluster in a temporary folder and serve clients in front of it
    ///
    /// Needs `redis-server`. Ctrl-C or SIGTERM stops everything and leaves no process and no
    /// folder behind.
    Sandbox(SandboxArgs),
    /// Ask a slotway that runs on this machine whether it is alive or ready
    ///
    /// Reads the address of the admin listener from the same sources as `slotway run`, prints the
    /// page, and exits with 0 if slotway is well, with 1 if it is not or does not answer. For
    /// probes in containers, whose image has no shell and no HTTP client.
    Probe(ProbeArgs),
    /// Watch a running slotway: nodes, load, latency, hot keys, slow commands
    ///
    /// Shows the figures of the status page in a terminal. `q` quits. If the output is not a
    /// terminal, the figures are written once, as a plain table.
    Top(TopArgs),
    /// Print a generated document
    #[command(hide = true)]
    Docs {
        /// The document
        document: Document,
        /// The folder for the manual pages
        #[arg(required_if_eq("document", "man"))]
        dir: Option<PathBuf>,
    },
}

/// A document that is generated from slotway's own tables.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Document {
    /// docs/commands.md
    Commands,
    /// docs/configuration.md
    Configuration,
    /// docs/errors.md
    Errors,
    /// docs/metrics.md
    Metrics,
    /// proxy.toml
    ProxyToml,
    /// slotway(1), slotway-run(1) and so on
    Man,
}

/// A health page of the admin listener.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Page {
    /// The process runs and its workers respond (/healthz)
    Live,
    /// Every slot has a primary that can be reached (/readyz)
    Ready,
}

impl Page {
    /// The path of the page.
    pub fn path(self) -> &'static str {
        match self {
            Page::Live => "/healthz",
            Page::Ready => "/readyz",
        }
    }
}

/// The flags of `probe`.
#[derive(Args)]
pub struct ProbeArgs {
    /// The page to ask for
    pub page: Page,

    /// Time limit in seconds for the connection, and again for the answer
    #[arg(long, value_name = "SECONDS", default_value_t = 3)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub timeout: u64,

    #[command(flatten)]
    common: CommonArgs,
}

impl ProbeArgs {
    /// The configuration sources: this command line's, and the environment.
    pub fn sources(self, env: Vec<(OsString, OsString)>) -> Sources {
        self.common.sources(env)
    }
}

/// The flags of `top`.
#[derive(Args)]
pub struct TopArgs {
    /// The admin listener
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9121")]
    #[arg(value_parser = crate::top::parse_admin_url)]
    pub url: Address,

    /// A file with the admin listener's token [default: the variable SLOTWAY_ADMIN_TOKEN]
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,

    /// The admin listener's certificate (tls.admin.cert), if it speaks HTTPS
    #[arg(long, value_name = "FILE")]
    pub cert: Option<PathBuf>,

    /// Write the figures once, as a plain table
    #[arg(long)]
    pub once: bool,

    /// Time between two refreshes: 500ms, 2s
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = crate::top::parse_interval)]
    pub interval: Duration,
}

/// The flags of `run` and `check`.
#[derive(Args)]
pub struct RunArgs {
    #[command(flatten)]
    common: CommonArgs,

    /// Nodes from which the cluster is discovered, "host:port", separated by commas or repeated
    #[arg(long, value_name = "NODE,…", help_heading = "Configuration")]
    seeds: Vec<String>,
}

impl RunArgs {
    /// The configuration sources: this command line's, and the environment.
    pub fn sources(self, env: Vec<(OsString, OsString)>) -> Sources {
        let mut sources = self.common.sources(env);
        sources.flags.extend(listed("--seeds", "seeds", &self.seeds));
        sources
    }
}

/// The flags of `sandbox`.
#[derive(Args)]
pub struct SandboxArgs {
    /// Primaries of the cluster
    #[arg(long, value_name = "N", default_value_t = 3)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=100))]
    pub primaries: u16,

    /// Replicas of the cluster, in total
    #[arg(long, value_name = "N", default_value_t = 3)]
    #[arg(value_parser = clap::value_parser!(u16).range(0..=100))]
    pub replicas: u16,

    /// What to start: cluster, standalone (a server with replicas), sentinel (and Sentinels)
    /// [default: cluster]
    #[arg(long, value_name = "KIND")]
    pub kind: Option<String>,

    /// Port on 127.0.0.1 where slotway serves clients; 0 picks a free one [default: 6380]
    #[arg(long, value_name = "PORT", conflicts_with = "listen")]
    pub port: Option<u16>,

    #[command(flatten)]
    common: CommonArgs,
}

impl SandboxArgs {
    /// The configuration sources: this command line's, and the environment.
    ///
    /// A configuration file is written for production and listens on the usual port, so its
    /// `listen` does not apply to the sandbox: `--port` does, unless `listen` is set outside of the
    /// file.
    pub fn sources(self, env: Vec<(OsString, OsString)>) -> Sources {
        let mut sources = self.common.sources(env);
        let listen_is_set = sources.flags.iter().any(|flag| match flag {
            Flag::Named(_, key, _) => *key == "listen",
            Flag::Set(text) => text.split('=').next().is_some_and(|key| key.trim() == "listen"),
        }) || sources.env.iter().any(|(name, _)| name == "SLOTWAY_LISTEN");
        if self.port.is_some() || !listen_is_set {
            let listen = format!("127.0.0.1:{}", self.port.unwrap_or(6380));
            sources.flags.push(Flag::Named("--port", "listen", listen));
        }
        sources.flags.extend(self.kind.map(|kind| Flag::Named("--kind", "upstream.kind", kind)));
        sources
    }
}

/// The flags of all subcommands that read a configuration.
#[derive(Args)]
#[command(next_help_heading = "Configuration")]
struct CommonArgs {
    /// The configuration file
    #[arg(long, short, value_name = "FILE", env = "SLOTWAY_CONFIG", hide_env_values = true)]
    config: Option<PathBuf>,

    /// Addresses for clients: "host:port" or "unix:/path", separated by commas or repeated
    #[arg(long, value_name = "ADDR,…")]
    listen: Vec<String>,

    /// Address of the admin HTTP listener (metrics, health), "host:port"; "" turns it off
    #[arg(long, value_name = "ADDR")]
    admin: Option<String>,

    /// Number of threads that serve clients, or "auto" for one per core
    #[arg(long, value_name = "N")]
    workers: Option<String>,

    /// Log level: error, warn, info, debug or trace; also per module: info,slotway::upstream=debug
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,

    /// Any other key: --set limits.clients=1000; repeatable
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

impl CommonArgs {
    fn sources(self, env: Vec<(OsString, OsString)>) -> Sources {
        let mut flags = Vec::new();
        flags.extend(listed("--listen", "listen", &self.listen));
        let single = [
            ("--admin", "admin", self.admin),
            ("--workers", "workers", self.workers),
            ("--log-level", "log.level", self.log_level),
        ];
        for (flag, key, value) in single {
            flags.extend(value.map(|value| Flag::Named(flag, key, value)));
        }
        flags.extend(self.set.into_iter().map(Flag::Set));
        Sources { file: self.config, env, flags }
    }
}

/// The values of a repeated flag as one list; none if it is not given.
fn listed(flag: &'static str, key: &'static str, values: &[String]) -> Option<Flag> {
    (!values.is_empty()).then(|| Flag::Named(flag, key, values.join(",")))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use slotway::config::{ConfigError, load};

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    /// The listen addresses of a sandbox with this command line and environment.
    fn sandbox_listens(args: &[&str], env: &[(&str, &str)]) -> Result<String, ConfigError> {
        let args = ["slotway", "sandbox"].iter().chain(args);
        let Ok(Cli { command: Command::Sandbox(args) }) = Cli::try_parse_from(args) else {
            panic!("not a sandbox");
        };
        let env = env.iter().map(|(name, value)| (name.into(), value.into())).collect();
        let listen = load(&args.sources(env))?.config.listen;
        Ok(listen.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn the_sandbox_listens_where_port_says_unless_told_otherwise_outside_of_the_file() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/proxy.toml");
        let listens = |args: &[&str], env| sandbox_listens(args, env).unwrap();
        assert_eq!(listens(&[], &[]), "127.0.0.1:6380");
        assert_eq!(listens(&["--config", file], &[]), "127.0.0.1:6380");
        assert_eq!(listens(&["--port", "7"], &[]), "127.0.0.1:7");
        assert_eq!(listens(&["--listen", "a:1,unix:/b"], &[]), "a:1 unix:/b");
        assert_eq!(listens(&["--set", "listen=a:1"], &[]), "a:1");
        assert_eq!(listens(&[], &[("SLOTWAY_LISTEN", "a:1")]), "a:1");
        assert_eq!(listens(&["--port", "7"], &[("SLOTWAY_LISTEN", "a:1")]), "127.0.0.1:7");
        let both = sandbox_listens(&["--port", "7", "--set", "listen=a:1"], &[]).unwrap_err();
        assert!(both.to_string().contains("also given by --port"), "{both}");
    }
}
