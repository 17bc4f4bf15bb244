//! Parses a `COMMAND` reply into command specifications.

use super::class::Class;
use super::flags::Flags;
use super::spec::{
    Access, Begin, CommandSpec, Find, KeyAccess, KeyPart, KeySpec, Native, RequestPolicy,
    ResponsePolicy,
};
use crate::resp::tree::{TreeError, Value, decode_whole};

/// Why a `COMMAND` reply cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// The server answered with an error.
    #[error("the server refuses COMMAND: {0}")]
    Refused(String),
    /// The reply ends too early.
    #[error("the COMMAND reply is cut off")]
    Truncated,
    /// The reply is not RESP, or not a list of commands.
    #[error("the COMMAND reply is malformed: {0}")]
    Malformed(&'static str),
    /// More commands than can be numbered.
    #[error("the COMMAND reply has too many commands")]
    TooMany,
}

impl From<TreeError> for TableError {
    fn from(error: TreeError) -> Self {
        match error {
            TreeError::Incomplete => TableError::Truncated,
            TreeError::Malformed(_) => TableError::Malformed("not RESP"),
            TreeError::TooDeep => TableError::Malformed("nested too deep"),
        }
    }
}

/// One entry of the reply.
#[derive(Debug)]
pub(super) struct Entry {
    pub spec: CommandSpec,
    /// The server has no key specs, and says that first, last and step do not tell all keys.
    pub(super) keys_untold: bool,
    pub subcommands: Vec<Entry>,
}

/// Parses all commands of a reply. Nulls (COMMAND INFO of an unknown name) are skipped.
pub(super) fn parse(reply: &[u8]) -> Result<Vec<Entry>, TableError> {
    match decode_whole(reply)? {
        Value::Array(items) => entries(&items),
        Value::Error(text) => Err(TableError::Refused(String::from_utf8_lossy(text).into_owned())),
        _ => Err(TableError::Malformed("not a list of commands")),
    }
}

fn entries(items: &[Value]) -> Result<Vec<Entry>, TableError> {
    items.iter().filter(|item| !matches!(item, Value::Null)).map(entry).collect()
}

/// Parses `[name, arity, flags, first, last, step, categories, tips, key specs, subcommands]`.
/// Categories exist since Redis 6, the last three since 7.
fn entry(item: &Value) -> Result<Entry, TableError> {
    let fields = item.items();
    let number = |i: usize, what: &'static str| {
        let int = fields.get(i).and_then(Value::int);
        int.and_then(|n| i32::try_from(n).ok()).ok_or(TableError::Malformed(what))
    };
    let name = fields
        .first()
        .and_then(Value::text)
        .filter(|name| !name.is_empty())
        .ok_or(TableError::Malformed("a command without a name"))?
        .to_ascii_lowercase();
    let arity = number(1, "a command's arity")?;
    let flags: Flags = words(fields.get(2)).map(Flags::of_word).collect();
    let legacy = (number(3, "a first key")?, number(4, "a last key")?, number(5, "a key step")?);
    let mut categories: Vec<Box<str>> =
        words(fields.get(6)).map(|c| c.strip_prefix('@').unwrap_or(c).into()).collect();
    categories.sort_unstable();
    let specs = fields.get(8).map(Value::items);
    let subcommands = entries(fields.get(9).map(Value::items).unwrap_or_default())?;

    let (keys, keys_complete) = key_spec(&name, flags, legacy, specs.unwrap_or_default())?;
    let access = specs.unwrap_or_default().iter().filter_map(|s| access(s).transpose());
    let access = access.collect::<Result<Vec<_>, _>>()?.into();
    let class = Class::of(&categories, flags, !keys.is_none())
        .of_container(subcommands.iter().map(|sub| sub.spec.class));
    let spec = CommandSpec {
        class,
        name: name.into(),
        arity,
        flags,
        categories: categories.into(),
        keys,
        keys_complete,
        access,
        request_policy: tip(fields.get(7), "request_policy:", request_policy)
            .unwrap_or(RequestPolicy::None),
        response_policy: tip(fields.get(7), "response_policy:", response_policy)
            .unwrap_or(ResponsePolicy::None),
        container: !subcommands.is_empty(),
        seen_blocking: false,
    };
    let keys_untold = specs.is_none() && flags.contains(Flags::MOVABLEKEYS);
    Ok(Entry { spec, keys_untold, subcommands })
}

fn words<'v>(list: Option<&'v Value<'v>>) -> impl Iterator<Item = &'v str> {
    list.map(Value::items).unwrap_or_default().iter().filter_map(Value::text)
}

fn tip<T>(tips: Option<&Value>, prefix: &str, read: fn(&str) -> T) -> Option<T> {
    words(tips).find_map(|tip| tip.strip_prefix(prefix)).map(read)
}

// Unknown policies are treated as `special`, which needs care.

fn request_policy(word: &str) -> RequestPolicy {
    match word {
        "all_nodes" => RequestPolicy::AllNodes,
        "all_shards" => RequestPolicy::AllShards,
        "multi_shard" => RequestPolicy::MultiShard,
        _ => RequestPolicy::Special,
    }
}

fn response_policy(word: &str) -> ResponsePolicy {
    match word {
        "one_succeeded" => ResponsePolicy::OneSucceeded,
        "all_succeeded" => ResponsePolicy::AllSucceeded,
        "agg_logical_and" => ResponsePolicy::AggLogicalAnd,
        "agg_logical_or" => ResponsePolicy::AggLogicalOr,
        "agg_min" => ResponsePolicy::AggMin,
        "agg_max" => ResponsePolicy::AggMax,
        "agg_sum" => ResponsePolicy::AggSum,
        _ => ResponsePolicy::Special,
    }
}

/// The access to a key spec's keys. `None`: they are not keys, or the spec cannot find them.
fn access(spec: &Value) -> Result<Option<KeyAccess>, TableError> {
    let mut access = Access::default();
    for word in words(spec.field("flags")) {
        match word {
            "not_key" => return Ok(None),
            "access" => access.read = true,
            "update" | "insert" | "delete" => access.write = true,
            _ => {}
        }
    }
    Ok(part(spec)?.map(|part| KeyAccess { part, access }))
}

/// The simplest key spec that finds the same keys, and whether it finds all.
fn key_spec(
    name: &str,
    flags: Flags,
    (first, last, step): (i32, i32, i32),
    specs: &[Value],
) -> Result<(KeySpec, bool), TableError> {
    let mut complete = true;
    let mut parts = Vec::with_capacity(specs.len());
    for spec in specs {
        complete &= !words(spec.field("flags")).any(|f| f == "incomplete");
        match part(spec)? {
            Some(part) => parts.push(part),
            None => complete = false,
        }
    }
    if !complete {
        match name {
            "sort" => return Ok((KeySpec::Native(Native::Sort), true)),
            "migrate" => return Ok((KeySpec::Native(Native::Migrate), true)),
            // What is missing are the keys that BY and GET compose from the data, which no argument
            // names. A cluster refuses them.
            "sort_ro" => complete = true,
            _ => {}
        }
    }
    // Without `movablekeys` the three numbers are equivalent to the specs. Old servers have no
    // specs; then there are only the numbers.
    let movable = flags.contains(Flags::MOVABLEKEYS);
    if first > 0 && (!movable || specs.is_empty()) {
        return Ok((range(first, last, step)?, complete && !movable));
    }
    let spec = match parts.as_slice() {
        [] => KeySpec::None,
        [KeyPart { begin: Begin::Index(i), find: Find::Range { last: 0, .. } }] => {
            let i = i32::try_from(*i).map_err(|_| TableError::Malformed("a key's index"))?;
            range(i, i, 1)?
        }
        _ => match name {
            // The options start at 5 even if the unit is missing.
            "georadius" => KeySpec::Native(Native::Georadius { options: 5 }),
            "georadiusbymember" => KeySpec::Native(Native::Georadius { options: 5 }),
            "xread" => KeySpec::Native(Native::Streams { from: 1 }),
            "xreadgroup" => KeySpec::Native(Native::Streams { from: 4 }),
            _ => KeySpec::Specs(parts.into()),
        },
    };
    Ok((spec, complete && (!movable || !specs.is_empty())))
}

fn range(first: i32, last: i32, step: i32) -> Result<KeySpec, TableError> {
    match (u8::try_from(first), u32::try_from(first), u32::try_from(step)) {
        (Ok(at), ..) if first == last => Ok(KeySpec::One(at)),
        (_, Ok(first), Ok(step)) => Ok(KeySpec::Range { first, last, step: step.max(1) }),
        _ => Err(TableError::Malformed("a range of keys")),
    }
}

/// Parses a key spec; `None` for `unknown` and for types not known here.
fn part(spec: &Value) -> Result<Option<KeyPart>, TableError> {
    const BAD: TableError = TableError::Malformed("a key spec");
    let step_of = |v: &Value| get::<u32>(v, "keystep").map(|step| step.max(1));
    let (Some(begin), Some(find)) = (spec.field("begin_search"), spec.field("find_keys")) else {
        return Err(BAD);
    };
    let (Some(begin_spec), Some(find_spec)) = (begin.field("spec"), find.field("spec")) else {
        return Err(BAD);
    };
    let begin = match begin.field("type").and_then(Value::text) {
        Some("index") => Begin::Index(get(begin_spec, "index")?),
        Some("keyword") => Begin::Keyword {
            word: begin_spec.field("keyword").and_then(Value::text).ok_or(BAD)?.into(),
            from: get(begin_spec, "startfrom")?,
        },
        _ => return Ok(None),
    };
    let find = match find.field("type").and_then(Value::text) {
        Some("range") => Find::Range {
            last: get(find_spec, "lastkey")?,
            step: step_of(find_spec)?,
            limit: get(find_spec, "limit")?,
        },
        Some("keynum") => Find::Keynum {
            index: get(find_spec, "keynumidx")?,
            first: get(find_spec, "firstkey")?,
            step: step_of(find_spec)?,
        },
        _ => return Ok(None),
    };
    Ok(Some(KeyPart { begin, find }))
}

fn get<T: TryFrom<i64>>(map: &Value, key: &str) -> Result<T, TableError> {
    let int = map.field(key).and_then(Value::int);
    int.and_then(|n| T::try_from(n).ok()).ok_or(TableError::Malformed("a key spec's number"))
}
