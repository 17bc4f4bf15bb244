//! Reading of `[databases]` and `[[routes]]` from file, environment and flags.

use toml::de::{DeTable, DeValue};

use super::{Loading, raw};
use crate::config::loaded::item_path;
use crate::config::problem::nearest_word;
use crate::config::raw::Raw;
use crate::config::upstreams::{DATABASES, ROUTES};
use crate::config::{DatabaseRoute, Origin, Route};

const DATABASE_EXAMPLE: &str = "the name of an upstream, such as \"queues\" or \"queues:1\"";
const ROUTE_EXAMPLE: &str =
    "[[routes]] with prefix = \"rq:\" (or channel_prefix) and upstream = \"queues\"";
const WORD_EXAMPLE: &str =
    "PREFIX=UPSTREAM, such as rq:=queues, or with & before the prefix of channels, &news:=queues";

impl Loading {
    /// Reads `[databases]` of the file.
    pub(super) fn databases_section(
        &mut self,
        origin: Origin,
        value: &DeValue<'_>,
        at: &impl Fn(usize) -> Origin,
    ) {
        let DeValue::Table(table) = value else {
            return self.problem(origin, DATABASES, "is a section; write [databases]");
        };
        let mut seen: Vec<(u16, Origin)> = Vec::new();
        for (number, value) in table {
            let origin = at(number.span().start);
            let path = format!("{DATABASES}.{}", number.get_ref());
            // TOML itself refuses the same text twice, but not `1` and `01`.
            if let Ok(number) = parse_number(number.get_ref()) {
                if let Some((_, there)) = seen.iter().find(|(other, _)| *other == number) {
                    let reason = format!("database {number} is given twice ({there})");
                    self.problem(origin, &path, reason);
                    continue;
                }
                seen.push((number, origin.clone()));
            }
            self.set(origin, &path, &raw(value.get_ref()));
        }
    }

    /// Sets the upstream of a database, by its path.
    pub(super) fn set_database(&mut self, path: &str, raw: &Raw) -> Result<(), String> {
        let number = path.strip_prefix(DATABASES).and_then(|rest| rest.strip_prefix('.'));
        let number = parse_number(number.unwrap_or_default())?;
        if number == 0 {
            return Err("is the database that clients begin in; theirs is the upstream of their \
                        listener, or else the first, which `main` is"
                .into());
        }
        let (upstream, database) = parse_target(raw.text(DATABASE_EXAMPLE)?)?;
        let databases = &mut self.loaded.config.databases;
        databases.retain(|other| other.number != number);
        databases.push(DatabaseRoute { number, upstream, database });
        databases.sort_by_key(|route| route.number);
        Ok(())
    }

    /// Reads `[[routes]]` of the file.
    pub(super) fn routes_list(
        &mut self,
        origin: Origin,
        value: &DeValue<'_>,
        at: &impl Fn(usize) -> Origin,
    ) {
        let DeValue::Array(items) = value else {
            return self.problem(origin, ROUTES, format!("is a list; write {ROUTE_EXAMPLE}"));
        };
        let mut routes = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let origin = at(item.span().start);
            let DeValue::Table(table) = item.get_ref() else {
                let kind = raw(item.get_ref()).kind();
                let reason = format!("one item is {kind}; write {ROUTE_EXAMPLE}");
                self.problem(origin, ROUTES, reason);
                continue;
            };
            routes.extend(self.route(&origin, table, at));
            self.loaded.origins.insert(item_path(ROUTES, index), origin);
        }
        self.loaded.config.routes = routes;
        self.loaded.origins.insert(ROUTES.into(), origin);
    }

    /// The route of a table, or `None` and the problems.
    fn route(
        &mut self,
        origin: &Origin,
        table: &DeTable<'_>,
        at: &impl Fn(usize) -> Origin,
    ) -> Option<Route> {
        const KEYS: [&str; 3] = ["prefix", "channel_prefix", "upstream"];
        let mut values: [Option<String>; 3] = [const { None }; 3];
        let mut is_whole = true;
        for (name, value) in table {
            let (origin, name) = (at(name.span().start), name.get_ref());
            let path = format!("{ROUTES}.{name}");
            let place = KEYS.iter().zip(&mut values).find(|(key, _)| *key == name);
            let read = match place {
                Some((_, place)) => raw(value.get_ref()).text("text").and_then(|text| {
                    *place = Some(not_empty(text)?);
                    Ok(())
                }),
                None => {
                    let meant = nearest_word(name, &mut KEYS.into_iter());
                    let meant = meant.map(|key| format!("the nearest is {ROUTES}.{key}"));
                    let known = "a route has prefix or channel_prefix, and upstream".into();
                    Err(format!("unknown key; {}", meant.unwrap_or(known)))
                }
            };
            if let Err(reason) = read {
                is_whole = false;
                self.problem(origin, &path, reason);
            }
        }
        let [prefix, channel_prefix, upstream] = values;
        if !is_whole {
            return None;
        }
        let reason = match (&prefix, &channel_prefix, &upstream) {
            (Some(_), Some(_), _) => "has prefix and channel_prefix; write a route for each",
            (None, None, _) => "has neither prefix nor channel_prefix; write one of them",
            (_, _, None) => "names no upstream; write upstream = \"queues\"",
            _ => "",
        };
        if !reason.is_empty() {
            self.problem(origin.clone(), ROUTES, reason);
            return None;
        }
        let bytes = |text: Option<String>| text.map(String::into_bytes);
        let (prefix, channel_prefix) = (bytes(prefix), bytes(channel_prefix));
        Some(Route { prefix, channel_prefix, upstream: upstream? })
    }

    /// Sets all routes to those in the text of a variable or flag.
    pub(super) fn set_routes(&mut self, raw: &Raw) -> Result<(), String> {
        self.loaded.config.routes = raw.items(WORD_EXAMPLE, |item| {
            let text = item.text(WORD_EXAMPLE)?;
            let Some((prefix, upstream)) = text.rsplit_once('=') else {
                return Err(format!("\"{text}\" has no \"=\"; write {WORD_EXAMPLE}"));
            };
            let bytes = |prefix: &str| not_empty(prefix).map(String::into_bytes);
            // As in Redis's ACLs: ~ is for keys, & for channels.
            let (key, channel) = match prefix.strip_prefix('&') {
                Some(channel) => (None, Some(bytes(channel)?)),
                None => (Some(bytes(prefix.strip_prefix('~').unwrap_or(prefix))?), None),
            };
            Ok(Route { prefix: key, channel_prefix: channel, upstream: upstream.into() })
        })?;
        Ok(())
    }
}

fn not_empty(text: &str) -> Result<String, String> {
    match text.is_empty() {
        true => {
            Err("is empty; the upstream of all that no route is for is the first, or `main`".into())
        }
        false => Ok(text.into()),
    }
}

fn parse_number(text: &str) -> Result<u16, String> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let number = text.parse().ok().filter(|_| digits);
    number.ok_or(format!("\"{text}\" is no number of a database; write 0 to {}", u16::MAX))
}

/// Parses an upstream and its database, which is 0 where it is not given.
fn parse_target(text: &str) -> Result<(String, u16), String> {
    match text.split_once(':') {
        Some((upstream, database)) => Ok((upstream.into(), parse_number(database)?)),
        None => Ok((text.into(), 0)),
    }
}
