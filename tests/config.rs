//! The configuration as a user meets it: the real binary, its output and its exit codes.

use std::path::PathBuf;
use std::process::{Command, Output};

use tempfile::TempDir;

/// A command line about to be run, in a folder of its own and with nothing in its environment.
struct Slotway {
    folder: TempDir,
    command: Command,
}

impl Slotway {
    fn new(args: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_slotway"));
        command.args(args).env_clear().current_dir(folder.path());
        Slotway { folder, command }
    }

    /// Writes `proxy.toml` into the folder and names it on the command line.
    fn file(mut self, text: &str) -> Self {
        std::fs::write(self.folder.path().join("proxy.toml"), text).unwrap();
        self.command.args(["--config", "proxy.toml"]);
        self
    }

    fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// Runs it: exit code, standard output, standard error.
    fn outcome(mut self) -> (i32, String, String) {
        let Output { status, stdout, stderr } = self.command.output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (status.code().unwrap(), text(stdout), text(stderr))
    }

    /// Runs it, which has to succeed: standard output without the comments.
    #[track_caller]
    fn values(self) -> Vec<String> {
        let (code, stdout, stderr) = self.outcome();
        assert_eq!(code, 0, "{stderr}");
        stdout.lines().map(|line| line.split("  # ").next().unwrap().to_owned()).collect()
    }

    /// Runs it, which has to end with exit code 2: the problems, one per line.
    #[track_caller]
    fn problems(self) -> Vec<String> {
        let (code, stdout, stderr) = self.outcome();
        assert_eq!((code, stdout.as_str()), (2, ""), "{stderr}");
        let (heading, problems) = stderr.split_once('\n').unwrap();
        assert_eq!(heading, "error: the configuration is not valid");
        problems.lines().map(|line| line.trim_start().to_owned()).collect()
    }
}

#[track_caller]
fn assert_has(lines: &[String], wanted: &str) {
    assert!(lines.iter().any(|line| line == wanted), "no line {wanted:?} in {lines:#?}");
}

/// One problem, which starts so and mentions all of that.
#[track_caller]
fn assert_problem(problems: &[String], start: &str, mentions: &[&str]) {
    let found = problems.iter().any(|problem| {
        problem.starts_with(start) && mentions.iter().all(|mention| problem.contains(mention))
    });
    assert!(found, "no problem {start:?} that mentions {mentions:?} in {problems:#?}");
}

#[test]
fn check_prints_the_effective_configuration_and_where_it_comes_from() {
    let (code, stdout, stderr) = Slotway::new(&["check", "--workers", "2"])
        .file("seeds = ['10.0.0.1:7000']\n\n[timeouts]\ncommand = '1500ms'\n")
        .env("SLOTWAY_LIMITS__CLIENT_OUTPUT", "64MiB")
        .outcome();
    assert_eq!((code, stderr.as_str()), (0, ""));
    for line in [
        "listen = [\"127.0.0.1:6379\"]",
        "seeds = [\"10.0.0.1:7000\"]  # proxy.toml:1",
        "workers = 2  # --workers",
        "[timeouts]",
        "command = \"1500ms\"  # proxy.toml:4",
        "client_output = \"64MiB\"  # SLOTWAY_LIMITS__CLIENT_OUTPUT",
    ] {
        assert!(stdout.lines().any(|l| l == line), "no line {line:?} in\n{stdout}");
    }
}

#[test]
fn what_check_prints_is_a_file_that_means_the_same() {
    let first =
        Slotway::new(&["check", "--seeds", "a:1,b:2", "--set", "reconnect.max=3s"]).values();
    let again = Slotway::new(&["check"]).file(&first.join("\n")).values();
    assert_eq!(first, again);
}

#[test]
fn the_reference_in_the_repository_is_valid() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/proxy.toml");
    let defaults = Slotway::new(&["check"]).values();
    assert_eq!(Slotway::new(&["check", "--config", file]).values(), defaults);
}

#[test]
fn flags_win_over_the_environment_and_the_environment_over_the_file() {
    let file = "workers = 1\nadmin = 'file:1'\nlisten = ['file:1']\n[log]\nlevel = 'error'\n";
    let args = ["check", "--workers", "3", "--set", "log.level=debug"];
    let values = Slotway::new(&args)
        .file(file)
        .env("SLOTWAY_WORKERS", "2")
        .env("SLOTWAY_ADMIN", "env:2")
        .env("SLOTWAY_LOG__LEVEL", "warn")
        .values();
    assert_has(&values, "workers = 3");
    assert_has(&values, "admin = \"env:2\"");
    assert_has(&values, "listen = [\"file:1\"]");
    assert_has(&values, "level = \"debug\"");
}

#[test]
fn lists_are_separated_by_commas_and_flags_may_repeat() {
    let args = ["check", "--listen", "a:1,unix:/run/s.sock", "--listen", "[::1]:2"];
    let values = Slotway::new(&args).env("SLOTWAY_SEEDS", "b:1, c:2").values();
    assert_has(&values, "listen = [\"a:1\", \"unix:/run/s.sock\", \"[::1]:2\"]");
    assert_has(&values, "seeds = [\"b:1\", \"c:2\"]");
}

#[test]
fn the_file_may_be_named_by_a_variable() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "workers = 5\n").unwrap();
    let path = file.path().to_str().unwrap();
    assert_has(&Slotway::new(&["check"]).env("SLOTWAY_CONFIG", path).values(), "workers = 5");
}

#[test]
fn an_entry_of_a_list_that_names_nothing_has_its_line() {
    let problems = Slotway::new(&["check"])
        .file(
            "[commands]\ndeny = [\n  \"keys\",\n  \"flushal\",\n  \"@dangerus\",\n]\n\
             allow = [\"json.get\", \"config set\"]\n",
        )
        .problems();
    assert_eq!(problems.len(), 3, "{problems:#?}");
    assert_problem(&problems, "proxy.toml:4: commands.deny: ", &["\"flushal\"", "\"flushall\""]);
    assert_problem(&problems, "proxy.toml:5: commands.deny: ", &["\"@dangerous\""]);
    assert_problem(&problems, "proxy.toml:7: commands.allow: ", &["\"config|set\""]);
}

#[test]
fn rules_for_commands_are_shown() {
    let values = Slotway::new(&["check", "--seeds", "10.0.0.1:7000"])
        .file("[commands]\ndeny = [\"@Dangerous\", \"JSON.SET\"]\n")
        .env("SLOTWAY_COMMANDS__ALLOW", "keys,config|get")
        .values();
    assert_has(&values, "deny = [\"@dangerous\", \"json.set\"]");
    assert_has(&values, "allow = [\"keys\", \"config|get\"]");
}

#[test]
fn an_unknown_key_names_file_line_key_and_the_nearest() {
    let problems = Slotway::new(&["check"])
        .file("workers = 2\n\n[limits]\nclients = 5\nclint_output = '1GiB'\n")
        .problems();
    assert_eq!(
        problems,
        ["proxy.toml:5: limits.clint_output: unknown key; the nearest is limits.client_output"]
    );
}

#[test]
fn a_wrong_unit_says_which_units_there_are() {
    let problems = Slotway::new(&["check"])
        .file("[limits]\nbulk = '64MB'\nheld = '64'\n[timeouts]\ncommand = '5sec'\nidle = '5'\n")
        .problems();
    assert_problem(&problems, "proxy.toml:2: limits.bulk: ", &["\"MB\"", "\"64MiB\""]);
    assert_problem(&problems, "proxy.toml:3: limits.held: ", &["no unit"]);
    assert_problem(&problems, "proxy.toml:5: timeouts.command: ", &["\"sec\"", "\"5s\""]);
    assert_problem(&problems, "proxy.toml:6: timeouts.idle: ", &["no unit"]);
    assert_eq!(problems.len(), 4);
}

#[test]
fn a_wrong_type_says_what_to_write() {
    let problems = Slotway::new(&["check"])
        .file(
            "listen = '127.0.0.1:6379'\nworkers = '2'\nadmin = false\nlimits = 5\n\
             [timeouts]\ncommand = 5\n[upstream]\npassword = 12345\n[upstream.user]\n",
        )
        .problems();
    assert_problem(&problems, "proxy.toml:1: listen: ", &["a list"]);
    assert_problem(&problems, "proxy.toml:2: workers: ", &["without quotes: 2"]);
    assert_problem(&problems, "proxy.toml:3: admin: ", &["true or false"]);
    assert_problem(&problems, "proxy.toml:4: limits: ", &["[limits]"]);
    assert_problem(&problems, "proxy.toml:6: timeouts.command: ", &["a number", "\"500ms\""]);
    assert_problem(&problems, "proxy.toml:8: upstream.password: ", &["a number", "quotes"]);
    assert_problem(&problems, "proxy.toml:9: upstream.user: ", &["a section"]);
    assert_eq!(problems.len(), 7);
    assert!(!problems.concat().contains("12345"), "a password was shown");
}

#[test]
fn contradictions_are_reported_at_what_was_set() {
    let file = "[reconnect]\nmin = '2s'\n";
    assert_eq!(
        Slotway::new(&["check"]).file(file).problems(),
        [
            "proxy.toml:2: reconnect.min: \"2s\" is more than reconnect.max, which is \"1s\" (default)"
        ]
    );
    let problems = Slotway::new(&["check"]).env("SLOTWAY_TOPOLOGY__REFRESH", "50ms").problems();
    assert_problem(
        &problems,
        "SLOTWAY_TOPOLOGY__REFRESH: topology.refresh: \"50ms\" is less than topology.min_interval",
        &["\"100ms\""],
    );
    let problems = Slotway::new(&["check", "--admin", "127.0.0.1:6379"]).problems();
    assert_problem(&problems, "--admin: admin: ", &["listen"]);
    let problems = Slotway::new(&["check", "--listen", "a:1,a:1"]).problems();
    assert_problem(&problems, "--listen: listen: ", &["\"a:1\"", "twice"]);
    let problems = Slotway::new(&["check", "--workers", "1", "--set", "workers=1"]).problems();
    assert_problem(&problems, "--set workers: ", &["--workers"]);
}

#[test]
fn variables_and_flags_are_named_in_errors() {
    let problems = Slotway::new(&[
        "check",
        "--workers=0",
        "--seeds=10.0.0.1",
        "--set=limits.cleints=5",
        "--set=clients",
        "--log-level=inof",
    ])
    .env("SLOTWAY_LIMITS_CLIENTS", "5")
    .env("SLOTWAY_LIMITS__BULK", "3GiB")
    .problems();
    assert_problem(&problems, "SLOTWAY_LIMITS_CLIENTS: ", &["SLOTWAY_LIMITS__CLIENTS"]);
    assert_problem(&problems, "SLOTWAY_LIMITS__BULK: limits.bulk: ", &["\"2GiB\""]);
    assert_problem(&problems, "--workers: workers: 0 ", &["from 1"]);
    assert_problem(&problems, "--seeds: seeds: \"10.0.0.1\" has no port", &["host:port"]);
    assert_problem(&problems, "--set limits.cleints: unknown key", &["limits.clients"]);
    assert_problem(&problems, "--set: ", &["--set limits.clients=1000"]);
    assert_problem(&problems, "--log-level: log.level: \"inof\"", &["\"info\""]);
    assert_eq!(problems.len(), 7);
}

#[test]
fn everything_wrong_is_reported_from_top_to_bottom() {
    let problems = Slotway::new(&["check"])
        .file("zzz = 1\n[timeout]\ncommand = '5s'\n[log]\nformat = 'xml'\n[[limits]]\n")
        .problems();
    let places: Vec<_> = problems.iter().map(|p| p.split(": ").next().unwrap()).collect();
    assert_eq!(places, ["proxy.toml:1", "proxy.toml:2", "proxy.toml:5", "proxy.toml:6"]);
    assert_problem(&problems, "proxy.toml:2: timeout: ", &["unknown section", "[timeouts]"]);
}

#[test]
fn a_file_that_is_not_toml_names_the_line_and_does_not_show_it() {
    for (file, line) in [
        ("workers = 2\n[upstream]\npassword = 'hunter2\n", 3),
        ("workers = 2\npassword hunter2\n", 2),
        ("workers = 1\nworkers = 2\n", 2),
        ("[limits\nclients = 1\n", 1),
    ] {
        let problems = Slotway::new(&["check"]).file(file).problems();
        assert_problem(&problems, &format!("proxy.toml:{line}: not valid TOML: "), &[]);
        assert!(!problems.concat().contains("hunter2"), "{problems:?}");
    }
    let problems = Slotway::new(&["check", "--config", "missing.toml"]).problems();
    assert_problem(&problems, "missing.toml: cannot be read: ", &["No such file"]);
}

#[test]
fn secrets_are_shown_as_stars() {
    let (code, stdout, stderr) =
        Slotway::new(&["check"]).env("SLOTWAY_UPSTREAM__PASSWORD", "hunter2").outcome();
    assert_eq!(code, 0);
    assert!(stdout.contains("\npassword = \"***\""), "{stdout}");
    assert!(!(stdout + &stderr).contains("hunter2"));
}

#[test]
fn what_kubernetes_adds_for_a_service_called_slotway_is_no_error() {
    Slotway::new(&["check"])
        .env("SLOTWAY_SERVICE_HOST", "10.96.0.7")
        .env("SLOTWAY_SERVICE_PORT", "6379")
        .env("SLOTWAY_SERVICE_PORT_REDIS", "6379")
        .env("SLOTWAY_PORT", "tcp://10.96.0.7:6379")
        .env("SLOTWAY_PORT_6379_TCP", "tcp://10.96.0.7:6379")
        .env("SLOTWAY_PORT_6379_TCP_ADDR", "10.96.0.7")
        .env("SLOTWAY_PORT_6379_TCP_PORT", "6379")
        .env("SLOTWAY_PORT_6379_TCP_PROTO", "tcp")
        .env("SLOTWAY_METRICS_SERVICE_HOST", "10.96.0.8")
        .env("SLOTWAY_METRICS_PORT_9121_TCP", "tcp://10.96.0.8:9121")
        .values();
    let problems = Slotway::new(&["check"]).env("SLOTWAY_PORT", "6379").problems();
    assert_problem(&problems, "SLOTWAY_PORT: unknown variable", &[]);
}

#[test]
fn run_without_seeds_says_how_to_give_them() {
    let problems = Slotway::new(&["run"]).problems();
    assert_problem(&problems, "seeds: none given", &["--seeds ", "SLOTWAY_SEEDS=", "seeds = ["]);
    // `check` says so too, but the file is valid: the seeds may be given elsewhere.
    let (code, stdout, stderr) = Slotway::new(&["check"]).outcome();
    assert_eq!(code, 0);
    assert!(stdout.contains("seeds = []") && stderr.contains("--seeds "), "{stderr}");
}

#[test]
fn a_failure_while_running_ends_with_1_and_is_logged_in_the_configured_format() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap().to_string();
    let run = |format: &str| {
        let format = format!("log.format={format}");
        let args = ["run", "--listen", &listen, "--seeds", "127.0.0.1:1", "--admin", ""];
        let (code, stdout, stderr) =
            Slotway::new(&[&args[..], &["--set", &format]].concat()).outcome();
        assert_eq!((code, stdout.as_str()), (1, ""), "{stderr}");
        stderr
    };
    let json = run("json");
    assert!(json.lines().all(|line| line.starts_with('{') && line.ends_with('}')), "{json}");
    assert!(json.contains("\"level\":\"ERROR\""), "{json}");
    let text = run("text");
    assert!(text.contains("ERROR") && !text.contains(['{', '\u{1b}']), "{text}");
}

#[test]
fn a_memory_limit_that_the_machine_does_not_have_is_warned_of() {
    const WARNING: &str = "limits.memory = 1048576 MiB and the 64 MiB that slotway takes beside it \
                           exceed the ";
    let (code, stdout, stderr) =
        Slotway::new(&["check", "--set", "limits.memory=1024GiB"]).outcome();
    assert_eq!(code, 0);
    assert!(stderr.contains(&format!("warning: {WARNING}")), "{stderr}");
    assert!(stderr.contains("set limits.memory to "), "{stderr}");
    assert!(!stdout.contains("# limits.memory"), "{stdout}");
    let (code, stdout, stderr) = Slotway::new(&["check"]).outcome();
    assert_eq!(code, 0);
    assert!(!stderr.contains("limits.memory"), "{stderr}");
    assert!(stdout.contains("\n# limits.memory: \"auto\" is "), "{stdout}");
    // At the start it is in the log.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap().to_string();
    let args = ["run", "--listen", &listen, "--seeds", "127.0.0.1:1", "--admin", ""];
    let run = |memory: &str| {
        Slotway::new(&[&args[..], &["--set", &format!("limits.memory={memory}")]].concat())
            .outcome()
    };
    let (_, _, stderr) = run("1024GiB");
    assert!(stderr.contains(&format!(" {WARNING}")) && stderr.contains("WARN"), "{stderr}");
    let (_, _, stderr) = run("auto");
    assert!(!stderr.contains("limits.memory"), "{stderr}");
}

#[test]
fn help_and_version_are_there() {
    let (code, help, _) = Slotway::new(&["--help"]).outcome();
    assert_eq!(code, 0);
    for subcommand in ["run", "check", "sandbox"] {
        assert!(help.lines().any(|line| line.trim_start().starts_with(subcommand)), "{help}");
        let (code, its_help, _) = Slotway::new(&[subcommand, "--help"]).outcome();
        assert_eq!(code, 0);
        for flag in ["--config", "--listen", "--admin", "--workers", "--log-level", "--set"] {
            assert!(its_help.contains(flag), "{subcommand} --help has no {flag}");
        }
    }
    let (code, version, _) = Slotway::new(&["--version"]).outcome();
    assert_eq!((code, version), (0, format!("slotway {}\n", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn a_wrong_command_line_ends_with_2() {
    for args in [&[][..], &["walk"], &["run", "--wrokers", "2"], &["sandbox", "--primaries", "0"]] {
        let (code, stdout, stderr) = Slotway::new(args).outcome();
        assert_eq!((code, stdout.as_str()), (2, ""), "{args:?}");
        assert!(!stderr.is_empty());
    }
}

#[test]
fn the_generated_documents_are_printed() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    for (name, file) in [
        ("commands", "docs/commands.md"),
        ("configuration", "docs/configuration.md"),
        ("errors", "docs/errors.md"),
        ("metrics", "docs/metrics.md"),
        ("proxy-toml", "proxy.toml"),
    ] {
        let (code, stdout, _) = Slotway::new(&["docs", name]).outcome();
        assert_eq!(code, 0);
        assert!(stdout == std::fs::read_to_string(root.join(file)).unwrap(), "{file}");
    }
}
