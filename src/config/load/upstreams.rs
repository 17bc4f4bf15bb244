//! Reading of `[upstreams.NAME]` from file, environment and flags.

use toml::de::{DeTable, DeValue};

use super::{Loading, raw};
use crate::config::field::Field;
use crate::config::problem::nearest;
use crate::config::raw::Raw;
use crate::config::upstream_checks::NOT_OPTIONAL;
use crate::config::upstream_keys::{
    OPTIONAL, UPSTREAMS, names, split_path, upstream_key, upstream_keys,
};
use crate::config::upstream_name::{is_name, not_a_name};
use crate::config::{Config, MAIN, NamedUpstream, Origin};

/// An upstream of which not all sources are read yet: the keys that it has in the short form are
/// those of a configuration of its own.
#[derive(Default)]
pub(super) struct Draft {
    pub config: Config,
    optional: bool,
}

impl Loading {
    /// Reads `[upstreams]` of the file.
    pub(super) fn upstreams_section(
        &mut self,
        origin: Origin,
        value: &DeValue<'_>,
        at: &impl Fn(usize) -> Origin,
    ) {
        let DeValue::Table(upstreams) = value else {
            return self.problem(origin, UPSTREAMS, "is a section; write [upstreams.NAME]");
        };
        for (name, value) in upstreams {
            let origin = at(name.span().start);
            let name = name.get_ref();
            let path = format!("{UPSTREAMS}.{name}");
            let DeValue::Table(table) = value.get_ref() else {
                let reason = format!("is a section of its own; write [{path}]");
                self.problem(origin, &path, reason);
                continue;
            };
            match self.declare(name, &origin) {
                Ok(()) => self.upstream_section(&path, table, at),
                Err(reason) => self.problem(origin, UPSTREAMS, reason),
            }
        }
    }

    /// Reads `[upstreams.NAME]`, or `[upstreams.NAME.tls]`, of the file.
    fn upstream_section(
        &mut self,
        prefix: &str,
        table: &DeTable<'_>,
        at: &impl Fn(usize) -> Origin,
    ) {
        for (name, value) in table {
            let origin = at(name.span().start);
            let path = format!("{prefix}.{}", name.get_ref());
            let is_tls = split_path(&path).is_some_and(|(_, key)| key == "tls");
            match value.get_ref() {
                DeValue::Table(inner) if is_tls => self.upstream_section(&path, inner, at),
                _ if is_tls => {
                    self.problem(origin, &path, format!("is a section; write [{path}]"));
                }
                DeValue::Array(items) => self.set_list(origin, &path, items, at),
                value => self.set(origin, &path, &raw(value)),
            }
        }
    }

    /// Begins the upstream of this name, unless it is known.
    fn declare(&mut self, name: &str, origin: &Origin) -> Result<(), String> {
        if !is_name(name) {
            return Err(not_a_name(name));
        }
        self.upstreams.entry(name.into()).or_default();
        let section = format!("{UPSTREAMS}.{name}");
        self.loaded.origins.entry(section).or_insert_with(|| origin.clone());
        Ok(())
    }

    /// Sets a key of an upstream, by its path.
    pub(super) fn set_of_upstream(
        &mut self,
        origin: &Origin,
        path: &str,
        raw: &Raw,
    ) -> Result<(), String> {
        let Some((name, own)) = split_path(path) else {
            return Err("names no key of an upstream; write upstreams.NAME.KEY, such as \
                        upstreams.queues.seeds"
                .into());
        };
        self.declare(name, origin)?;
        let draft = self.upstreams.entry(name.into()).or_default();
        match upstream_key(own) {
            Some(key) => (key.field)(&mut draft.config).set(raw),
            None if own == OPTIONAL => Field::Boolean(&mut draft.optional).set(raw),
            None => Err(match nearest(own, names().iter().map(String::as_str)) {
                Some(meant) => format!("unknown key; the nearest is {UPSTREAMS}.{name}.{meant}"),
                None => "unknown key; an upstream has the keys of [upstream], and seeds, \
                         read_from, optional and [tls]"
                    .into(),
            }),
        }
    }

    /// The path that a variable stands for which is `SLOTWAY_UPSTREAMS__` and `rest`.
    pub(super) fn path_of_upstream(&self, rest: &str) -> Option<String> {
        let ends = names().into_iter().filter_map(|own| {
            let name = rest.strip_suffix(&in_variable(&format!(".{own}")))?;
            Some((name.to_lowercase(), own))
        });
        let (name, own) = ends.min_by_key(|(name, _)| name.len())?;
        // No variable has a hyphen in its name.
        let is_meant = |known: &&String| known.replace('-', "_") == name;
        let name = self.upstreams.keys().find(is_meant).cloned().unwrap_or(name);
        Some(format!("{UPSTREAMS}.{name}.{own}"))
    }

    /// The variables of the known upstreams, and of the one that `variable` seems to be about.
    pub(super) fn variables_of_upstreams(&self, variable: &str) -> Vec<String> {
        let start = format!("SLOTWAY_{}", in_variable(&format!("{UPSTREAMS}.")));
        let rest = variable.strip_prefix(&start);
        let meant = rest.and_then(|rest| rest.split("__").next()).map(str::to_lowercase);
        let names_of = |upstream: &String| {
            let upstream = upstream.replace('-', "_");
            names().into_iter().map(move |own| {
                format!("SLOTWAY_{}", in_variable(&format!("{UPSTREAMS}.{upstream}.{own}")))
            })
        };
        self.upstreams.keys().chain(&meant).flat_map(names_of).collect()
    }

    /// Moves the upstreams into the configuration, now that all sources are read.
    pub(super) fn finish_upstreams(&mut self) {
        let mut main = None;
        for (name, mut draft) in std::mem::take(&mut self.upstreams) {
            for (key, own) in upstream_keys().filter(|(key, _)| key.is_inherited()) {
                let path = format!("{UPSTREAMS}.{name}.{own}");
                if self.loaded.origins.contains_key(&path) {
                    continue;
                }
                (key.field)(&mut draft.config).copy((key.field)(&mut self.loaded.config));
                let inherited = self.loaded.origins.get(key.path).filter(|_| name != MAIN);
                if let Some(origin) = inherited.cloned() {
                    self.loaded.origins.insert(path, origin);
                }
            }
            if name == MAIN {
                main = Some(draft);
                continue;
            }
            let Draft { config, optional } = draft;
            let named = NamedUpstream::from_short(name, config, optional);
            self.loaded.config.upstreams.push(named);
        }
        if let Some(draft) = main {
            self.finish_main(draft);
        }
    }

    /// Writes `[upstreams.main]` to where its short form is.
    fn finish_main(&mut self, mut draft: Draft) {
        let section = format!("{UPSTREAMS}.{MAIN}");
        let default = Config::default();
        for (key, own) in upstream_keys() {
            let path = format!("{section}.{own}");
            let given = self.loaded.origins.get(&path).cloned();
            if !key.is_inherited() && key.show(&self.loaded.config) != key.show(&default) {
                let (other, there) = match &given {
                    Some(origin) => (path.clone(), origin),
                    None => (format!("[{section}]"), self.loaded.origin(&section)),
                };
                let reason = format!(
                    "is given, and so is {other} ({there}), which is the same upstream; keep one"
                );
                self.problem(self.loaded.origin(key.path).clone(), key.path, reason);
            }
            (key.field)(&mut self.loaded.config).copy((key.field)(&mut draft.config));
            if let Some(origin) = given {
                self.loaded.origins.insert(key.path.into(), origin);
            }
        }
        self.loaded.main_is_named = true;
        if draft.optional {
            let path = format!("{section}.{OPTIONAL}");
            self.problem(self.loaded.origin(&path).clone(), &path, NOT_OPTIONAL);
        }
    }
}

/// The part of a path as it is written in a variable.
fn in_variable(path: &str) -> String {
    path.replace('.', "__").to_uppercase()
}
