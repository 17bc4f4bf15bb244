//! Documents generated from the table of keys: `proxy.toml`, `docs/configuration.md`, and the
//! effective configuration that `slotway check` prints.

use std::fmt::Write;

use super::keys::Change;
use super::keys::{KEYS, Key, SECTIONS};
use super::upstream_keys::{UPSTREAMS, upstream_key};
use super::upstreams::{DATABASES, ROUTES, describe_routes};
use super::upstreams_doc::{self, DATABASES_DOC, OPTIONAL_DOC, ROUTES_DOC};
use super::{Config, Loaded, NamedUpstream, Origin};

/// `proxy.toml`: every key at its default, with its meaning.
pub fn proxy_toml() -> String {
    let mut out = String::new();
    comment(
        &mut out,
        "The reference of slotway's configuration: every key, at its default. A key that is left \
         out has its default, so a file of your own needs only what differs; `slotway check \
         --config FILE` says whether it is right.",
    );
    out.push_str("#\n");
    comment(
        &mut out,
        "Each key can also be set by an environment variable (SLOTWAY_LISTEN, \
         SLOTWAY_LIMITS__CLIENTS: two underscores for each dot) or by --set limits.clients=1000. \
         Flags win over the environment, the environment over this file.",
    );
    out.push_str("#\n");
    comment(
        &mut out,
        "A running slotway reloads a changed file within two seconds, or at once at SIGHUP; keys \
         that need a restart say so here.",
    );
    out.push_str("#\n");
    comment(&mut out, "Written by `slotway docs proxy-toml` from src/config/keys.rs.");
    let config = Config::default();
    each(|section, key| match key {
        None => {
            out.push('\n');
            if let Some((name, doc)) = section {
                comment(&mut out, doc);
                let _ = writeln!(out, "[{name}]");
            }
        }
        Some(key) => {
            comment(&mut out, key.doc);
            let restart = match key.change {
                Change::Restart => " Needs a restart.",
                _ => "",
            };
            comment(&mut out, &format!("Takes: {}.{restart}", key.accepts()));
            let _ = writeln!(out, "{} = {}", key.section_and_name().1, key.show(&config));
            out.push('\n');
        }
    });
    for (index, (doc, example)) in upstreams_doc::SECTIONS.iter().enumerate() {
        if index > 0 {
            out.push('\n');
        }
        comment(&mut out, doc);
        for line in example.lines() {
            let _ = writeln!(out, "{}", format!("#   {line}").trim_end());
        }
    }
    // One empty line between entries, none at the end.
    let mut tidy = out.replace("\n\n\n", "\n\n");
    tidy.truncate(tidy.trim_end().len());
    tidy.push('\n');
    tidy
}

/// The effective configuration as TOML, with secrets masked and the origin of each value that is
/// not a default.
pub fn effective_toml(loaded: &Loaded) -> String {
    let mut out = String::new();
    each(|section, key| match key {
        None => {
            if let Some((name, _)) = section {
                let _ = writeln!(out, "\n[{name}]");
            }
        }
        Some(key) => {
            let value = key.show(&loaded.config);
            line(&mut out, key.section_and_name().1, &value, loaded.origin(key.path));
        }
    });
    tables(loaded, &mut out);
    out
}

/// Writes the tables whose keys are not in [`KEYS`]: the upstreams, and what names them.
fn tables(loaded: &Loaded, out: &mut String) {
    let config = &loaded.config;
    for named in &config.upstreams {
        let path = format!("{UPSTREAMS}.{}", named.name);
        let _ = writeln!(out, "\n[{path}]");
        let is_tls = |key: &str| key.starts_with("tls.");
        let (tls, own): (Vec<_>, Vec<_>) =
            named.values().into_iter().partition(|(key, _)| is_tls(key));
        for (key, value) in &own {
            line(out, key, value, loaded.origin(&format!("{path}.{key}")));
        }
        let _ = writeln!(out, "\n[{path}.tls]");
        for (key, value) in &tls {
            line(
                out,
                key.trim_start_matches("tls."),
                value,
                loaded.origin(&format!("{path}.{key}")),
            );
        }
    }
    if !config.databases.is_empty() {
        let _ = writeln!(out, "\n[{DATABASES}]");
    }
    for route in &config.databases {
        let (number, target) = (route.number.to_string(), route.target().into());
        line(out, &number, &target, loaded.origin(&format!("{DATABASES}.{number}")));
    }
    for (at, route) in config.routes.iter().enumerate() {
        let (key, prefix) = route.key_and_prefix();
        let _ = writeln!(out, "\n[[{ROUTES}]]");
        line(out, key, &prefix.into(), loaded.origin_of_item(ROUTES, at));
        line(out, "upstream", &route.upstream.as_str().into(), &Origin::Default);
    }
}

/// Writes a key, its value, and where it comes from.
fn line(out: &mut String, key: &str, value: &toml::Value, origin: &Origin) {
    let _ = write!(out, "{key} = {value}");
    match origin {
        Origin::Default => out.push('\n'),
        origin => {
            let _ = writeln!(out, "  # {origin}");
        }
    }
}

/// A key and its value, for display.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyEntry {
    /// The path of the key.
    pub key: String,
    /// The value as TOML; a secret is masked.
    pub value: String,
    /// Whether the value is the default.
    pub is_default: bool,
    /// The meaning of the key.
    pub doc: &'static str,
}

/// All keys of `config` in the order of the file.
pub fn key_entries(config: &Config) -> Vec<KeyEntry> {
    let (default, mut all) = (Config::default(), Vec::new());
    each(|_, key| {
        all.extend(key.map(|key| {
            let (is, by_default) = (key.show(config), key.show(&default));
            KeyEntry {
                key: key.path.into(),
                value: is.to_string(),
                is_default: is == by_default,
                doc: key.doc,
            }
        }));
    });
    all.extend(config.upstreams.iter().flat_map(entries_of_upstream));
    let one = |key: String, value: String, doc| KeyEntry { key, value, is_default: false, doc };
    let databases = config.databases.iter().map(|route| {
        let value = toml::Value::String(route.target()).to_string();
        one(format!("{DATABASES}.{}", route.number), value, DATABASES_DOC)
    });
    all.extend(databases);
    if !config.routes.is_empty() {
        all.push(one(ROUTES.into(), describe_routes(&config.routes), ROUTES_DOC));
    }
    all
}

fn entries_of_upstream(named: &NamedUpstream) -> Vec<KeyEntry> {
    let default = NamedUpstream::new(&named.name).values();
    let values = named.values().into_iter().zip(default);
    values
        .map(|((key, value), (_, default))| KeyEntry {
            doc: upstream_key(&key).map_or(OPTIONAL_DOC, |key| key.doc),
            key: format!("{UPSTREAMS}.{}.{key}", named.name),
            is_default: value == default,
            value: value.to_string(),
        })
        .collect()
}

/// `docs/configuration.md`.
pub fn docs_markdown() -> String {
    let mut out = String::from(INTRODUCTION);
    let config = Config::default();
    each(|section, key| match key {
        None => match section {
            None => out.push_str("\n## Top of the file\n"),
            Some((name, doc)) => {
                let _ = writeln!(out, "\n## [{name}]\n\n{doc}");
            }
        },
        Some(key) => {
            let flag = key.flag.map(|flag| format!(" · flag `{flag}`")).unwrap_or_default();
            let _ = write!(
                out,
                "\n### `{}`\n\n{}\n\nDefault `{}` · {} · variable `{}`{flag} · {}\n",
                key.path,
                key.doc,
                key.show(&config),
                key.accepts(),
                key.variable(),
                key.change.describe(),
            );
        }
    });
    out.push_str("\n## Several upstreams\n");
    for (doc, example) in upstreams_doc::SECTIONS {
        let _ = write!(out, "\n{doc}\n\n```toml\n{example}```\n");
    }
    out.push_str(upstreams_doc::RULES);
    out
}

/// Visits sections and keys in the order of the file: each section first without a key, then with
/// each of its keys. The keys at the top of the file have no section.
fn each(mut visit: impl FnMut(Option<(&str, &str)>, Option<&Key>)) {
    let named = SECTIONS.iter().map(|section| Some((section.name, section.doc)));
    for section in std::iter::once(None).chain(named) {
        visit(section, None);
        let name = section.map_or("", |(name, _)| name);
        for key in KEYS.iter().filter(|key| key.section_and_name().0 == name) {
            visit(section, Some(key));
        }
    }
}

/// Writes `text` as comment lines of at most 90 columns.
fn comment(out: &mut String, text: &str) {
    let mut width = usize::MAX;
    for word in text.split_whitespace() {
        let length = word.chars().count() + 1;
        if width.saturating_add(length) > 90 {
            if width != usize::MAX {
                out.push('\n');
            }
            out.push('#');
            width = 1;
        }
        let _ = write!(out, " {word}");
        width += length;
    }
    out.push('\n');
}

const INTRODUCTION: &str = r#"# Configuration

<!-- Written by `slotway docs configuration` from src/config/keys.rs: change it there. -->

Slotway needs to know one thing: where the cluster is. This is enough:

```console
$ slotway run --listen 127.0.0.1:6379 --seeds 10.0.0.1:7000,10.0.0.2:7000
```

Everything else has a default. [`proxy.toml`](../proxy.toml) is the same reference as this page, as a file to copy from.

## Where a value comes from

A key is set in one of four ways; the later ones win:

1. its **default**;
2. the **file** that `--config FILE` (or `SLOTWAY_CONFIG`) names, in TOML;
3. an **environment variable**: `SLOTWAY_` and the key's path in capitals, with two underscores for each dot: `SLOTWAY_LIMITS__CLIENT_OUTPUT=64MiB`. Lists are separated by commas: `SLOTWAY_SEEDS=10.0.0.1:7000,10.0.0.2:7000`;
4. a **flag**: `--set limits.client_output=64MiB`, any number of times (for the same key the last one counts), or the key's own flag where it has one. A key's own flag and `--set` for the same key are an error.

`slotway check --config FILE` takes the same flags and variables, and prints the configuration that `slotway run` would use, with the place each value comes from. Passwords are shown as `***`.

A path of a file (`users_file`, `upstream.password_file`, `tls.downstream.key` …) that begins with `${CREDENTIALS_DIRECTORY}/` names a credential that systemd gives to the service (`LoadCredential=`): `upstream.password_file = "${CREDENTIALS_DIRECTORY}/upstream-password"`. No other variable is expanded in a value. [deploy/README.md](../deploy/README.md#systemd) shows how to set this up.

## Changes at run time

A running slotway reloads its file when it has changed and then not changed again for half a second (a symbolic link that points elsewhere counts, because Kubernetes swaps the folder of a ConfigMap); `SIGHUP` reloads it at once. Clients stay connected, and no command in flight is cut off. Environment variables and flags are those of the start, and still override the file.

- A reload logs each changed key with its old and new value; each key below says whether it changes at run time. A key that **needs a restart** keeps its value, and the log names it.
- A file with an error changes nothing; the log reports the error as at the start: line, key, reason. The same holds for an address that cannot be listened on, or that `protected_mode` does not allow, and for a file that the configuration names and that cannot be used. A rejected configuration is tried again every two seconds, for the certificate that arrives a moment later.
- **Users** (`users`, `users_file`, `auth`): new rules apply from each client's next command on. Clients of a removed user are disconnected, as with `ACL DELUSER`, and so are subscribers of a channel that their user may no longer read. When the first users are added, connected clients have to log in.
- **Files that the configuration names** (users, passwords, tokens, certificates) are checked every second or two, and at once at `SIGHUP`. Existing connections stay; new ones use the new files.
- An address may move between `listen` and `tls.downstream.listen`: its clients stay, and new ones connect with TLS, or without.
- systemd is notified (`RELOADING=1`, `READY=1`), for `systemctl reload` and `systemctl status`.
- `slotway_config_reloads_total` counts reloads by outcome, `slotway_config_in_use` is 0 while the file differs from the configuration in use, `slotway_config_loaded_timestamp_seconds` is the time since when it is in use ([metrics](metrics.md)).

A new version takes over from a running one without a lost connection: [upgrade.md](upgrade.md).

## How values are written

- Durations: a whole number and `ms`, `s`, `m` or `h`: `"500ms"`, `"5s"`, `"2m"`. `"0"` needs no unit.
- Sizes: a whole number and `B`, `KiB`, `MiB` or `GiB` (1 KiB is 1024 bytes): `"64MiB"`.
- Addresses: `"host:port"`, where the host is an IP address or a DNS name; an IPv6 address stands in brackets: `"[::1]:6379"`. Listeners may be Unix sockets: `"unix:/run/slotway.sock"`.

## When something is wrong

With an unknown key or variable, a wrong unit, a wrong type, a value out of range or two values that contradict each other, slotway does not start. It reports all errors, one line each, with file and line (or the variable, or the flag), the key, the reason and the nearest valid key, and exits with code 2:

```console
$ slotway run --config proxy.toml
error: the configuration is not valid
  proxy.toml:4: limits.clint_output: unknown key; the nearest is limits.client_output
  proxy.toml:7: timeouts.command: "sec" is not a unit of time; write a duration such as "500ms", "5s", "2m" or "1h"
```

Variables that Kubernetes adds for a service called `slotway` (`SLOTWAY_SERVICE_HOST`, `SLOTWAY_PORT_6379_TCP` and the like) are ignored.

Exit codes: 0 success, 1 slotway failed while it ran (or could not listen), 2 the configuration or the command line is not valid.
"#;
