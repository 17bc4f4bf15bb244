//! Merging of the sources of the configuration: defaults, file, environment, flags. Later ones win.
//!
//! All problems are collected, each with its origin, before any is reported.

mod routes;
mod upstreams;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use self::upstreams::Draft;
use super::access;
use super::keys::{KEYS, Key, SECTIONS, key};
use super::loaded::item_path;
use super::problem::nearest;
use super::raw::Raw;
use super::upstream_keys::{self, UPSTREAMS, upstream_key};
use super::upstreams::{DATABASES, ROUTES};
use super::{Config, ConfigError, Listen, Loaded, Origin, Problem};

/// The sources of a configuration. No `Debug`: they may contain a password.
#[derive(Clone, Default)]
pub struct Sources {
    /// The path of the file, if there is one.
    pub file: Option<PathBuf>,
    /// The environment: variables that begin with `SLOTWAY_`, and `CREDENTIALS_DIRECTORY`. Others
    /// are ignored.
    pub env: Vec<(OsString, OsString)>,
    /// The flags, in the order of the command line.
    pub flags: Vec<Flag>,
}

/// The variable in which systemd gives the folder of a service's credentials.
const CREDENTIALS_VARIABLE: &str = "CREDENTIALS_DIRECTORY";

/// A key set on the command line. No `Debug`: the value may be a password.
#[derive(Clone)]
pub enum Flag {
    /// A flag of its own, such as `--workers`: the flag, the key's path, the value.
    Named(&'static str, &'static str, String),
    /// The argument of `--set`: `path.to.key=value`.
    Set(String),
}

/// Reads all sources and checks the resulting configuration.
pub fn load(sources: &Sources) -> Result<Loaded, ConfigError> {
    let mut loading = Loading::default();
    if let Some(path) = &sources.file {
        loading.file(path);
    }
    loading.environment(&sources.env);
    loading.flags(&sources.flags);
    loading.credentials(&sources.env);
    loading.finish_upstreams();
    let Loading { mut loaded, mut problems, .. } = loading;
    if problems.is_empty() {
        problems = conflicts(&loaded);
        problems.extend(super::proxy_protocol::conflicts(&loaded));
        problems.extend(super::upstream_checks::conflicts(&loaded));
    }
    if problems.is_empty() {
        problems = access::problems(&mut loaded);
    }
    if problems.is_empty() { Ok(loaded) } else { Err(ConfigError { problems }) }
}

/// The state while sources are read.
struct Loading {
    loaded: Loaded,
    /// `[upstreams.NAME]`, by name.
    upstreams: BTreeMap<String, Draft>,
    problems: Vec<Problem>,
}

impl Default for Loading {
    fn default() -> Self {
        let (config, origins) = (Config::default(), BTreeMap::new());
        let loaded = Loaded { config, origins, main_is_named: false };
        Loading { loaded, upstreams: BTreeMap::new(), problems: Vec::new() }
    }
}

impl Loading {
    fn problem(&mut self, origin: Origin, key: &str, reason: impl Into<String>) {
        self.problems.push(Problem { origin, key: key.into(), reason: reason.into() });
    }

    /// Sets the key at `path`, or records a problem.
    fn set(&mut self, origin: Origin, path: &str, raw: &Raw) {
        match self.assign(&origin, path, raw) {
            Ok(()) => {
                // Of the list that was there before.
                self.loaded.origins.retain(|item, _| !is_item(item, path));
                self.loaded.origins.insert(path.into(), origin);
            }
            Err(reason) => self.problem(origin, path, reason),
        }
    }

    fn assign(&mut self, origin: &Origin, path: &str, raw: &Raw) -> Result<(), String> {
        match key(path) {
            Some(key) => (key.field)(&mut self.loaded.config).set(raw),
            None if is_in(path, UPSTREAMS) => self.set_of_upstream(origin, path, raw),
            None if is_in(path, DATABASES) => self.set_database(path, raw),
            None if path == ROUTES => self.set_routes(raw),
            None => Err(unknown_key(path)),
        }
    }

    /// Sets a key to a list, or records a problem for each wrong item, at the line of that item.
    fn set_list(
        &mut self,
        origin: Origin,
        path: &str,
        items: &toml::de::DeArray<'_>,
        at: &impl Fn(usize) -> Origin,
    ) {
        let before = self.problems.len();
        if let Some(key) = key_at(path) {
            for item in items {
                let one = Raw::List(vec![raw(item.get_ref())]);
                if let Err(reason) = (key.field)(&mut Config::default()).set(&one) {
                    self.problem(at(item.span().start), path, reason);
                }
            }
        }
        if self.problems.len() == before {
            let list = items.iter().map(|item| raw(item.get_ref())).collect();
            self.set(origin, path, &Raw::List(list));
            for (index, item) in items.iter().enumerate() {
                self.loaded.origins.insert(item_path(path, index), at(item.span().start));
            }
        }
    }

    fn file(&mut self, path: &Path) {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => {
                return self.problem(
                    Origin::File(path.into(), None),
                    "",
                    format!("cannot be read: {error}"),
                );
            }
        };
        let (table, errors) = DeTable::parse_recoverable(&text);
        let at = |start: usize| {
            let before = text.as_bytes().get(..start).unwrap_or(text.as_bytes());
            Origin::File(path.into(), Some(1 + before.iter().filter(|b| **b == b'\n').count()))
        };
        // With syntax errors, problems in the rest of the table would be consequences of these. The
        // parser's own rendering would quote the line, which may contain a password.
        for error in &errors {
            let start = error.span().map_or(text.len(), |span| span.start);
            let reason = format!("not valid TOML: {}", error.message().replace('\n', ", "));
            self.problem(at(start), "", reason);
        }
        if !errors.is_empty() {
            return;
        }
        let before = self.problems.len();
        self.table("", table.get_ref(), &at);
        // The table is sorted by name; report in the order of the lines.
        if let Some(from_file) = self.problems.get_mut(before..) {
            from_file.sort_by_key(|problem| match problem.origin {
                Origin::File(_, line) => line,
                _ => None,
            });
        }
    }

    fn table(&mut self, prefix: &str, table: &DeTable<'_>, at: &impl Fn(usize) -> Origin) {
        for (name, value) in table {
            let origin = at(name.span().start);
            // A quoted name with a dot in it is one name, not a path.
            let dotted = name.get_ref().contains('.');
            let name =
                if dotted { format!("\"{}\"", name.get_ref()) } else { name.get_ref().to_string() };
            let path = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
            // `downstream = { … }` in [tls] is another way to write the section [tls.downstream].
            let holds = |name: &str| {
                name.strip_prefix(&*path)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            };
            let is_section = SECTIONS.iter().any(|section| holds(section.name));
            match value.get_ref() {
                value if path == UPSTREAMS => self.upstreams_section(origin, value, at),
                value if path == DATABASES => self.databases_section(origin, value, at),
                value if path == ROUTES => self.routes_list(origin, value, at),
                DeValue::Table(inner) if is_section => self.table(&path, inner, at),
                _ if is_section => {
                    self.problem(origin, &path, format!("is a section; write [{path}]"));
                }
                DeValue::Table(inner) if key(&path).is_none() => {
                    self.unknown_section(origin, &path, inner, at);
                }
                DeValue::Array(items) => self.set_list(origin, &path, items, at),
                value => self.set(origin, &path, &raw(value)),
            }
        }
    }

    /// Records the problems of an unknown section: one if a known section has a similar name
    /// (`[timeout]` for `[timeouts]`), otherwise one for each of its keys, to suggest similar keys.
    fn unknown_section(
        &mut self,
        origin: Origin,
        path: &str,
        table: &DeTable<'_>,
        at: &impl Fn(usize) -> Origin,
    ) {
        // A section in [upstream] is meant as an upstream.
        let upstream = path.strip_prefix("upstream.").map(|name| format!("{UPSTREAMS}.{name}"));
        let sections = SECTIONS.iter().map(|section| section.name);
        let tables = [UPSTREAMS, DATABASES, ROUTES];
        let meant = upstream.as_deref().or_else(|| nearest(path, sections.chain(tables)));
        match meant {
            Some(ROUTES) => {
                self.problem(origin, path, "unknown section; the nearest is [[routes]]");
            }
            Some(section) => {
                self.problem(origin, path, format!("unknown section; the nearest is [{section}]"));
            }
            None if table.is_empty() => {
                let names: Vec<_> = SECTIONS.iter().map(|section| section.name).collect();
                let reason = format!("unknown section; there are {}", names.join(", "));
                self.problem(origin, path, reason);
            }
            None => {
                for name in table.keys() {
                    let path = format!("{path}.{}", name.get_ref());
                    self.problem(at(name.span().start), &path, unknown_key(&path));
                }
            }
        }
    }

    fn environment(&mut self, env: &[(OsString, OsString)]) {
        let mut ours: Vec<(String, &OsString)> = env
            .iter()
            .map(|(name, value)| (name.to_string_lossy().into_owned(), value))
            .filter(|(name, _)| name.starts_with("SLOTWAY_") && name != "SLOTWAY_CONFIG")
            .collect();
        ours.sort();
        let variables: Vec<(String, &str)> =
            KEYS.iter().map(|key| (key.variable(), key.path)).collect();
        for (name, value) in ours {
            let origin = Origin::Env(name.clone());
            let known = variables.iter().find(|(variable, _)| *variable == name);
            let path = known.map(|found| found.1.to_owned()).or_else(|| self.path_of(&name));
            match (path, value.to_str()) {
                (Some(path), Some(value)) => self.set(origin, &path, &Raw::Word(value.into())),
                (Some(path), None) => self.problem(origin, &path, "is not valid UTF-8"),
                (None, value) if is_service_link(&name, value.unwrap_or_default()) => {}
                (None, _) => {
                    let of_tables = self.variables_of_tables(&name);
                    let names = variables.iter().map(|(variable, _)| variable).chain(&of_tables);
                    let reason = match nearest(&name, names.map(String::as_str)) {
                        Some(variable) => format!("unknown variable; the nearest is {variable}"),
                        None => "unknown variable; docs/configuration.md has them all".into(),
                    };
                    self.problem(origin, "", reason);
                }
            }
        }
    }

    /// The path that a variable of a table stands for whose keys are not in [`KEYS`].
    fn path_of(&self, variable: &str) -> Option<String> {
        let rest = variable.strip_prefix("SLOTWAY_")?;
        if rest == "ROUTES" {
            return Some(ROUTES.into());
        }
        match rest.strip_prefix("DATABASES__") {
            Some(number) => Some(format!("{DATABASES}.{number}")),
            None => self.path_of_upstream(rest.strip_prefix("UPSTREAMS__")?),
        }
    }

    /// Variables of these tables, for suggestions in place of `variable`.
    fn variables_of_tables(&self, variable: &str) -> Vec<String> {
        let mut variables = self.variables_of_upstreams(variable);
        variables.push("SLOTWAY_ROUTES".into());
        variables
    }

    /// Expands `${CREDENTIALS_DIRECTORY}` in paths that begin with it.
    fn credentials(&mut self, env: &[(OsString, OsString)]) {
        let folder = env.iter().find(|(name, _)| name == CREDENTIALS_VARIABLE);
        let folder = folder.and_then(|(_, path)| path.to_str()).filter(|p| p.starts_with('/'));
        let mut unknown = Vec::new();
        for key in KEYS {
            let named = (key.field)(&mut self.loaded.config).credential(folder);
            if named && folder.is_none() {
                unknown.push(key.path.to_owned());
            }
        }
        for (name, draft) in &mut self.upstreams {
            for (key, own) in upstream_keys::upstream_keys() {
                let named = (key.field)(&mut draft.config).credential(folder);
                if named && folder.is_none() {
                    unknown.push(format!("{UPSTREAMS}.{name}.{own}"));
                }
            }
        }
        for key in &unknown {
            let origin = self.loaded.origin(key).clone();
            let reason = format!(
                "{CREDENTIALS_VARIABLE} is not set: systemd sets it for a service with \
                 LoadCredential=; elsewhere set it to the folder of the files, such as \
                 /run/credentials/slotway.service while the service runs"
            );
            self.problem(origin, key, reason);
        }
    }

    fn flags(&mut self, flags: &[Flag]) {
        let mut by_name: BTreeMap<&str, &str> = BTreeMap::new();
        for flag in flags {
            if let Flag::Named(flag, path, value) = flag {
                by_name.insert(path, flag);
                self.set(Origin::Flag((*flag).into()), path, &Raw::Word(value.clone()));
            }
        }
        for flag in flags {
            let Flag::Set(text) = flag else { continue };
            let Some((path, value)) = text.split_once('=') else {
                // Does not quote the text, which may be a misplaced password.
                let reason = "has no \"=\"; write --set path.to.key=value, such as \
                              --set limits.clients=1000";
                self.problem(Origin::Flag("--set".into()), "", reason);
                continue;
            };
            let path = path.trim();
            let origin = Origin::Flag(format!("--set {path}"));
            match by_name.get(path) {
                Some(flag) => self.problem(origin, path, format!("also given by {flag}; keep one")),
                None => self.set(origin, path, &Raw::Word(value.into())),
            }
        }
    }
}

/// Whether the path is that of the section, or of what is in it.
fn is_in(path: &str, section: &str) -> bool {
    path.strip_prefix(section).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Whether `item` is an [`item_path`] of the list at `path`.
fn is_item(item: &str, path: &str) -> bool {
    item.strip_prefix(path).is_some_and(|rest| rest.starts_with('['))
}

/// The key whose type a value at this path has.
fn key_at(path: &str) -> Option<&'static Key> {
    match upstream_keys::split_path(path) {
        Some((_, own)) => upstream_key(own),
        None => key(path),
    }
}

/// The reason against a key that does not exist.
fn unknown_key(path: &str) -> String {
    match nearest(path, KEYS.iter().map(|key| key.path).chain([ROUTES])) {
        Some(key) => format!("unknown key; the nearest is {key}"),
        None => "unknown key; docs/configuration.md has them all".into(),
    }
}

fn raw(value: &DeValue<'_>) -> Raw {
    match value {
        DeValue::String(text) => Raw::Text(text.to_string()),
        DeValue::Integer(number) => {
            Raw::Integer(i64::from_str_radix(number.as_str(), number.radix()).ok())
        }
        DeValue::Array(items) => Raw::List(items.iter().map(|item| raw(item.get_ref())).collect()),
        DeValue::Float(_) => Raw::Other("a number with a fraction"),
        DeValue::Boolean(on) => Raw::Boolean(*on),
        DeValue::Datetime(_) => Raw::Other("a date"),
        DeValue::Table(table) => Raw::Table(
            table
                .iter()
                .map(|(name, value)| (name.get_ref().to_string(), raw(value.get_ref())))
                .collect(),
        ),
    }
}

/// Whether Kubernetes has set the variable. It sets variables about each service of the namespace:
/// for one called "slotway" `SLOTWAY_SERVICE_HOST`, `SLOTWAY_PORT=tcp://…`, `SLOTWAY_PORT_6379_TCP`
/// and more, which must not be errors.
fn is_service_link(name: &str, value: &str) -> bool {
    let protocol = |text: &str| matches!(text.split('_').next(), Some("TCP" | "UDP" | "SCTP"));
    let numbered = |rest: &str| {
        rest.split_once('_')
            .is_some_and(|(port, rest)| port.parse::<u16>().is_ok() && protocol(rest))
    };
    name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || name.contains("_SERVICE_PORT_")
        || (name.ends_with("_PORT") && value.contains("://"))
        || name.split("_PORT_").skip(1).any(numbered)
}

/// The problems of values that are valid each, but not together.
fn conflicts(loaded: &Loaded) -> Vec<Problem> {
    let config = &loaded.config;
    let mut problems = Vec::new();
    let mut not_above = |low: &str, high: &str, reversed: bool| {
        if !reversed {
            return;
        }
        // Reported at the key that was set, not at one that has its default.
        let (at, other) = match loaded.origin(low) {
            Origin::Default => (high, low),
            _ => (low, high),
        };
        let show =
            |path: &str| key(path).map(|key| key.show(config).to_string()).unwrap_or_default();
        let word = if at == low { "more" } else { "less" };
        let reason = format!(
            "{} is {word} than {other}, which is {} ({})",
            show(at),
            show(other),
            loaded.origin(other)
        );
        problems.push(Problem { origin: loaded.origin(at).clone(), key: at.into(), reason });
    };
    not_above("reconnect.min", "reconnect.max", config.reconnect.min > config.reconnect.max);
    let soft_above = config.pubsub.output_soft > config.pubsub.output_hard;
    not_above("pubsub.output_soft", "pubsub.output_hard", soft_above);
    not_above(
        "topology.min_interval",
        "topology.refresh",
        config.topology.min_interval > config.topology.refresh,
    );

    let of_main = (loaded.key_name("read_from"), config.read_from);
    let of_named = config
        .upstreams
        .iter()
        .map(|named| (loaded.upstream_key_name(Some(&named.name), "read_from"), named.read_from));
    let mut places: Vec<&Origin> = Vec::new();
    for (key, read_from) in std::iter::once(of_main).chain(of_named) {
        let origin = loaded.origin(&key);
        // Where it is inherited, one place is wrong for all.
        let is_wrong = read_from == super::ReadFrom::Zone && config.zone.is_empty();
        if is_wrong && !places.contains(&origin) {
            places.push(origin);
            let reason = "\"zone\" needs to know which zone slotway itself is in; set `zone`, or \
                          SLOTWAY_ZONE";
            problems.push(Problem { origin: origin.clone(), key, reason: reason.into() });
        }
    }

    if let Err(reason) = crate::observe::Endpoint::parse(&config.tracing.endpoint) {
        let (origin, key) = (loaded.origin("tracing.endpoint").clone(), "tracing.endpoint".into());
        problems.push(Problem { origin, key, reason });
    }

    problems.extend(super::tls::conflicts(loaded));

    // Port 0 stands for a different port each time, so it does not conflict.
    let fixed = |listen: &Listen| !matches!(listen, Listen::Tcp(address) if address.port == 0);
    let secured = config.tls.downstream.listen.iter().cloned().map(Listen::Tcp);
    for listen in secured.filter(|l| fixed(l) && config.listen.contains(l)) {
        let key = "tls.downstream.listen";
        problems.push(Problem {
            origin: loaded.origin(key).clone(),
            key: key.into(),
            reason: format!("\"{listen}\" is given for listen, too, which is without TLS"),
        });
    }
    for (index, listen) in config.listen.iter().enumerate() {
        let twice = config.listen.iter().take(index).any(|earlier| earlier == listen);
        if twice && fixed(listen) {
            let (origin, key) = (loaded.origin("listen").clone(), "listen".into());
            problems.push(Problem { origin, key, reason: format!("\"{listen}\" is given twice") });
        }
        let admin = config.admin.clone().map(Listen::Tcp);
        if admin.is_some_and(|admin| admin == *listen) && fixed(listen) {
            let at = match loaded.origin("admin") {
                Origin::Default => "listen",
                _ => "admin",
            };
            problems.push(Problem {
                origin: loaded.origin(at).clone(),
                key: at.into(),
                reason: format!("\"{listen}\" is given for both listen and admin"),
            });
        }
    }
    problems
}
