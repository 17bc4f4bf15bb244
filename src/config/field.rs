//! The typed field of a key in [`Config`](super::Config): parsing, showing and describing its
//! value.

use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::listeners::{ADDRESSES, Listeners};
use super::node_zone::parse_node_zone;
use super::raw::Raw;
use super::value::{
    LEVELS, parse_address, parse_duration, parse_level, parse_listen, parse_network, parse_size,
    show_duration, show_size,
};
use super::{Address, Choice, Listen, Memory, Network, NodeZone, Secret, Workers};
use crate::command::{CommandTable, Rule};
use crate::users::User;

/// A reference to a field of the configuration, with its type and the range of its values.
#[allow(missing_docs)]
pub(super) enum Field<'a> {
    /// Addresses of clients, and their upstreams.
    PlainListeners(Listeners<'a, Listen>),
    /// The same with TLS.
    TlsListeners(Listeners<'a, Address>),
    Listeners(&'a mut Vec<Listen>),
    /// Addresses, and the lowest port allowed.
    Addresses(&'a mut Vec<Address>, u16),
    /// An address, and the lowest port allowed; "" is `None`.
    OptionalAddress(&'a mut Option<Address>, u16),
    Workers(&'a mut Workers),
    Text(&'a mut String),
    /// The path of a file that is read while slotway runs; "" is none.
    Path(&'a mut String),
    /// The path of a PEM file; "" is `None`.
    File(&'a mut Option<PathBuf>),
    /// Text without spaces and control characters, as CLIENT SETNAME requires.
    Name(&'a mut String),
    Secret(&'a mut Secret),
    Count(&'a mut usize, RangeInclusive<usize>),
    Size(&'a mut usize, RangeInclusive<usize>),
    Memory(&'a mut Memory, RangeInclusive<usize>),
    Duration(&'a mut Duration, RangeInclusive<Duration>),
    /// "0" is `None`.
    OptionalDuration(&'a mut Option<Duration>, RangeInclusive<Duration>),
    Level(&'a mut String),
    /// Commands, subcommands and ACL categories.
    CommandRules(&'a mut Vec<Rule>),
    /// Commands and subcommands.
    Commands(&'a mut Vec<Rule>),
    Zones(&'a mut Vec<NodeZone>),
    Networks(&'a mut Vec<Network>),
    /// true or false.
    Boolean(&'a mut bool),
    Users(&'a mut Vec<User>),
    /// One of several words.
    Choice(&'a mut dyn Choice),
}

const NAMES: &str = "a list of strings such as [\"graph.query\"]";
const COMMANDS: &str = "a list of strings such as [\"keys\", \"config|set\", \"@dangerous\"]";
const USERS: &str =
    "a list of strings such as [\"app on #<SHA-256 of the password> ~app:* +@read\"]";
const ZONES: &str = "a list of strings such as [\"10.0.0.1=a\", \"10.0.0.2:7000=b\"]";
const NETWORKS: &str = "a list of strings such as [\"10.0.0.0/8\", \"2001:db8::1\"]";
const MAX_WORKERS: usize = 1024;

impl Field<'_> {
    /// Sets the field to the value of `raw`. `Err`: the reason, and what to write instead.
    pub(super) fn set(self, raw: &Raw) -> Result<(), String> {
        match self {
            Field::PlainListeners(listeners) => listeners.set(raw)?,
            Field::TlsListeners(listeners) => listeners.set(raw)?,
            Field::Listeners(field) => {
                *field = raw.list(ADDRESSES, parse_listen)?;
            }
            Field::Addresses(field, lowest) => {
                *field = raw.list(ADDRESSES, |text| parse_address(text, lowest))?
            }
            Field::File(field) => {
                let path = raw.text("the path of a file")?;
                *field = (!path.is_empty()).then(|| PathBuf::from(path));
            }
            Field::OptionalAddress(field, lowest) => {
                let text = raw.text("an address such as \"127.0.0.1:9121\"")?.trim();
                *field = if text.is_empty() { None } else { Some(parse_address(text, lowest)?) };
            }
            Field::Workers(field) => *field = parse_workers(raw)?,
            Field::Text(field) => *field = raw.text("text")?.to_owned(),
            Field::Path(field) => *field = raw.text("the path of a file")?.to_owned(),
            Field::Secret(field) => *field = Secret::new(raw.text("text")?),
            Field::Name(field) => {
                let name = raw.text("a name")?;
                if !name.bytes().all(|b| b.is_ascii_graphic()) {
                    return Err("may hold only printable ASCII characters and no spaces".into());
                }
                *field = name.to_owned();
            }
            Field::Count(field, range) => {
                let example = format!("a whole number from {} to {}", range.start(), range.end());
                let number = raw.integer(&example)?;
                match usize::try_from(number) {
                    Ok(number) if range.contains(&number) => *field = number,
                    _ => return Err(format!("{number} is out of range; write {example}")),
                }
            }
            Field::Memory(field, range) => {
                let text = raw.text("\"auto\" or a size such as \"512MiB\"")?;
                *field = match text.trim() {
                    "auto" => Memory::Auto,
                    text => {
                        let size = parse_size(text)?;
                        in_range(&size, &range, |size| show_size(*size))?;
                        Memory::Bytes(size)
                    }
                };
            }
            Field::Size(field, range) => {
                let size = parse_size(raw.text("a size such as \"64MiB\"")?)?;
                in_range(&size, &range, |size| show_size(*size))?;
                *field = size;
            }
            Field::Duration(field, range) => {
                let duration = parse_duration(raw.text("a duration such as \"500ms\"")?)?;
                in_range(&duration, &range, |duration| show_duration(*duration))?;
                *field = duration;
            }
            Field::OptionalDuration(field, range) => {
                let duration = parse_duration(raw.text("a duration such as \"500ms\"")?)?;
                if duration.is_zero() {
                    *field = None;
                } else {
                    in_range(&duration, &range, |duration| show_duration(*duration))?;
                    *field = Some(duration);
                }
            }
            Field::Level(field) => *field = parse_level(raw.text("a level such as \"info\"")?)?,
            Field::CommandRules(field) => {
                let table = CommandTable::builtin();
                let near = |given: &str, names: &mut dyn Iterator<Item = &str>| {
                    super::problem::nearest_word(given, names)
                };
                *field = raw.list(COMMANDS, |text| Rule::parse(text, &table, near))?;
            }
            Field::Commands(field) => {
                let table = CommandTable::builtin();
                let near = |given: &str, names: &mut dyn Iterator<Item = &str>| {
                    super::problem::nearest_word(given, names)
                };
                *field = raw.list(NAMES, |text| match text.trim().starts_with('@') {
                    true => Err(format!(
                        "\"{}\" is a category; commands are named one by one",
                        text.trim()
                    )),
                    false => Rule::parse(text, &table, near),
                })?;
            }
            Field::Zones(field) => *field = raw.list(ZONES, parse_node_zone)?,
            Field::Networks(field) => *field = raw.list(NETWORKS, parse_network)?,
            Field::Boolean(field) => {
                *field = match raw {
                    Raw::Boolean(on) => *on,
                    Raw::Word(word) if word.trim() == "true" => true,
                    Raw::Word(word) if word.trim() == "false" => false,
                    Raw::Text(_) => {
                        return Err("is a string; write true or false, without quotes".into());
                    }
                    Raw::Word(_) => return Err("is neither true nor false".into()),
                    other => return Err(format!("is {}; write true or false", other.kind())),
                };
            }
            Field::Users(field) => {
                let table = CommandTable::builtin();
                *field = raw.list(USERS, |text| User::parse(text, &table))?;
            }
            Field::Choice(field) => {
                let words = choices(field.words());
                let word = raw.text(&words)?;
                if !field.choose(word) {
                    return Err(format!("\"{word}\" is no choice; write {words}"));
                }
            }
        }
        Ok(())
    }

    /// Whether the field is a path that begins with `${CREDENTIALS_DIRECTORY}/`, which is replaced
    /// by `folder`, if there is one.
    pub(super) fn credential(self, folder: Option<&str>) -> bool {
        const CREDENTIAL: &str = "${CREDENTIALS_DIRECTORY}/";
        let path = match &self {
            Field::Path(path) => path.as_str(),
            Field::File(Some(path)) => path.to_str().unwrap_or_default(),
            _ => return false,
        };
        let Some(name) = path.strip_prefix(CREDENTIAL) else { return false };
        let full = format!("{}/{name}", folder.unwrap_or_default());
        match (self, folder) {
            (Field::Path(path), Some(_)) => *path = full,
            (Field::File(path), Some(_)) => *path = Some(full.into()),
            _ => {}
        }
        true
    }

    /// Copies the value of the same key from another configuration.
    pub(super) fn copy(self, other: Field<'_>) {
        match (self, other) {
            (Field::PlainListeners(to), Field::PlainListeners(from)) => to.copy(&from),
            (Field::TlsListeners(to), Field::TlsListeners(from)) => to.copy(&from),
            (Field::Listeners(to), Field::Listeners(from)) => to.clone_from(from),
            (Field::Addresses(to, _), Field::Addresses(from, _)) => to.clone_from(from),
            (Field::OptionalAddress(to, _), Field::OptionalAddress(from, _)) => to.clone_from(from),
            (Field::Workers(to), Field::Workers(from)) => *to = *from,
            (Field::File(to), Field::File(from)) => to.clone_from(from),
            (Field::Boolean(to), Field::Boolean(from)) => *to = *from,
            (Field::Users(to), Field::Users(from)) => to.clone_from(from),
            (Field::Text(to), Field::Text(from))
            | (Field::Path(to), Field::Path(from))
            | (Field::Name(to), Field::Name(from))
            | (Field::Level(to), Field::Level(from)) => to.clone_from(from),
            (Field::Secret(to), Field::Secret(from)) => to.clone_from(from),
            (Field::Count(to, _), Field::Count(from, _))
            | (Field::Size(to, _), Field::Size(from, _)) => *to = *from,
            (Field::Memory(to, _), Field::Memory(from, _)) => *to = *from,
            (Field::Duration(to, _), Field::Duration(from, _)) => *to = *from,
            (Field::OptionalDuration(to, _), Field::OptionalDuration(from, _)) => *to = *from,
            (Field::CommandRules(to), Field::CommandRules(from))
            | (Field::Commands(to), Field::Commands(from)) => to.clone_from(from),
            (Field::Zones(to), Field::Zones(from)) => to.clone_from(from),
            (Field::Networks(to), Field::Networks(from)) => to.clone_from(from),
            (Field::Choice(to), Field::Choice(from)) => {
                // Cannot fail: it is a word of the same choice.
                let _ = to.choose(from.word());
            }
            // Both fields belong to one key, so their types are equal. A type that is missing above
            // fails the test in `change.rs` that copies every key.
            _ => {}
        }
    }

    /// The value as TOML; a secret is masked.
    pub(super) fn show(&self) -> toml::Value {
        let list = |items: Vec<String>| {
            toml::Value::Array(items.into_iter().map(toml::Value::String).collect())
        };
        match self {
            Field::PlainListeners(listeners) => listeners.show(),
            Field::TlsListeners(listeners) => listeners.show(),
            Field::Listeners(field) => list(field.iter().map(Listen::to_string).collect()),
            Field::Addresses(field, _) => list(field.iter().map(Address::to_string).collect()),
            Field::OptionalAddress(field, _) => {
                field.as_ref().map(Address::to_string).unwrap_or_default().into()
            }
            Field::Workers(Workers::Auto) => "auto".into(),
            Field::Workers(Workers::Count(count)) => whole(count.get()),
            Field::Text(text) | Field::Path(text) | Field::Name(text) | Field::Level(text) => {
                text.as_str().into()
            }
            Field::Secret(secret) => secret.masked().into(),
            Field::Boolean(on) => (**on).into(),
            Field::File(path) => {
                path.as_ref().map(|p| p.display().to_string()).unwrap_or_default().into()
            }
            Field::Count(count, _) => whole(**count),
            Field::Size(size, _) => show_size(**size).into(),
            Field::Memory(Memory::Auto, _) => "auto".into(),
            Field::Memory(Memory::Bytes(bytes), _) => show_size(*bytes).into(),
            Field::Duration(duration, _) => show_duration(**duration).into(),
            Field::OptionalDuration(duration, _) => {
                show_duration(duration.unwrap_or_default()).into()
            }
            Field::CommandRules(rules) | Field::Commands(rules) => {
                list(rules.iter().map(|rule| rule.text().to_owned()).collect())
            }
            Field::Zones(field) => list(field.iter().map(NodeZone::to_string).collect()),
            Field::Networks(field) => list(field.iter().map(Network::to_string).collect()),
            Field::Users(users) => list(users.iter().map(|user| user.describe(false)).collect()),
            Field::Choice(field) => field.word().into(),
        }
    }

    /// The accepted values in words: type, unit and range.
    pub(super) fn accepts(&self) -> String {
        let address = "\"host:port\" or \"[IPv6 address]:port\"";
        match self {
            Field::PlainListeners(_) => format!(
                "list of {address} or \"unix:/path/to.sock\", or of {{ at = \"address\", upstream = \
                 \"name\" }}"
            ),
            Field::TlsListeners(_) => {
                format!("list of {address}, or of {{ at = \"address\", upstream = \"name\" }}")
            }
            Field::Listeners(_) => format!("list of {address} or \"unix:/path/to.sock\""),
            Field::Addresses(..) => {
                format!("list of {address}; host is an IP address or a DNS name")
            }
            Field::OptionalAddress(_, 0) => format!("{address}, or \"\" for off"),
            Field::OptionalAddress(..) => format!("{address}, or \"\""),
            Field::Workers(_) => format!("\"auto\" or a number from 1 to {MAX_WORKERS}"),
            Field::Text(_) | Field::Secret(_) => "text".into(),
            Field::Path(_) => "path of a file, or \"\" for none".into(),
            Field::Boolean(_) => "true or false".into(),
            Field::File(_) => "path of a PEM file, or \"\" for none".into(),
            Field::Name(_) => "text without spaces, or \"\" for none".into(),
            Field::Count(_, range) => format!("number from {} to {}", range.start(), range.end()),
            Field::Memory(_, range) => format!(
                "\"auto\" or a size in B, KiB, MiB or GiB, from \"{}\" to \"{}\"",
                show_size(*range.start()),
                show_size(*range.end())
            ),
            Field::Size(_, range) => format!(
                "size in B, KiB, MiB or GiB, from \"{}\" to \"{}\"",
                show_size(*range.start()),
                show_size(*range.end())
            ),
            Field::Duration(_, range) | Field::OptionalDuration(_, range) => {
                let zero = match self {
                    Field::OptionalDuration(..) => ", or \"0\"",
                    _ => "",
                };
                format!(
                    "duration in ms, s, m or h, from \"{}\" to \"{}\"{zero}",
                    show_duration(*range.start()),
                    show_duration(*range.end())
                )
            }
            Field::Level(_) => {
                format!("one of {}; or module=level, with commas", LEVELS.join(", "))
            }
            Field::CommandRules(_) => {
                "list of commands, subcommands (\"config|set\") and ACL categories (\"@dangerous\")"
                    .into()
            }
            Field::Commands(_) => "list of commands (\"graph.query\")".into(),
            Field::Users(_) => "list of \"NAME rules …\", the rules in Redis's ACL syntax".into(),
            Field::Zones(_) => "list of \"host=zone\" or \"host:port=zone\"".into(),
            Field::Networks(_) => "list of networks (\"10.0.0.0/8\") and IP addresses".into(),
            Field::Choice(field) => choices(field.words()),
        }
    }
}

/// Words as `"this", "that" or "another"`.
fn choices(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
    match quoted.split_last() {
        Some((last, others)) if !others.is_empty() => format!("{} or {last}", others.join(", ")),
        _ => quoted.concat(),
    }
}

fn whole(number: usize) -> toml::Value {
    toml::Value::Integer(i64::try_from(number).unwrap_or(i64::MAX))
}

fn parse_workers(raw: &Raw) -> Result<Workers, String> {
    if matches!(raw, Raw::Word(text) | Raw::Text(text) if text.trim() == "auto") {
        return Ok(Workers::Auto);
    }
    let example = format!("\"auto\" or a number from 1 to {MAX_WORKERS}");
    let number = raw.integer(&example)?;
    usize::try_from(number)
        .ok()
        .filter(|number| *number <= MAX_WORKERS)
        .and_then(NonZeroUsize::new)
        .map(Workers::Count)
        .ok_or(format!("{number} is out of range; write {example}"))
}

fn in_range<T: PartialOrd>(
    value: &T,
    range: &RangeInclusive<T>,
    show: impl Fn(&T) -> String,
) -> Result<(), String> {
    if range.contains(value) {
        return Ok(());
    }
    Err(format!(
        "\"{}\" is out of range; write \"{}\" to \"{}\"",
        show(value),
        show(range.start()),
        show(range.end())
    ))
}
