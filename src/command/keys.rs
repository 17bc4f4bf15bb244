//! Finds the keys of a request by its command's key specs. Part of the hot path.

use super::spec::{Access, Begin, CommandSpec, Find, KeyAccess, KeyPart, KeySpec, Native};
use crate::resp::{Args, strict_i64};

/// Why the keys of a request cannot be found. Any server describes such a mistake better, so the
/// request is forwarded to any node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Fewer arguments than the keys need.
    #[error("too few arguments")]
    TooFew,
    /// Keys and values (MSET), or keys and ids (XREAD), are not in pairs.
    #[error("unbalanced arguments")]
    Unbalanced,
    /// The number of keys is not a number, or negative.
    #[error("the number of keys is not one")]
    NotANumber,
    /// The number of keys exceeds the arguments that follow it.
    #[error("the number of keys is larger than the number of arguments")]
    TooMany,
    /// Options that exclude each other.
    #[error("contradicting options")]
    Syntax,
}

/// Collects the argument indexes of all keys, or of the channels of sharded pub/sub, in the order
/// of the command's key specs. `out` is cleared first; a caller that reuses it allocates nothing.
///
/// After an error the content of `out` is unspecified. The command's arity is not checked.
#[inline]
pub fn key_positions(spec: &CommandSpec, args: &Args, out: &mut Vec<u32>) -> Result<(), KeyError> {
    out.clear();
    match &spec.keys {
        KeySpec::None => Ok(()),
        KeySpec::One(i) if usize::from(*i) < args.len() => {
            out.push(u32::from(*i));
            Ok(())
        }
        KeySpec::One(_) => Err(KeyError::TooFew),
        KeySpec::Range { first, last, step } => {
            let n = args.len() as i64;
            let first = i64::from(*first);
            // SUNSUBSCRIBE without channels is valid.
            if first >= n && spec.arity < 0 && spec.arity_fits(args.len()) {
                return Ok(());
            }
            let last = i64::from(*last) + if *last < 0 { n } else { 0 };
            push_range(first, last, *step, n, out)
        }
        KeySpec::Specs(parts) => parts.iter().try_for_each(|part| push_part(part, args, out)),
        KeySpec::Native(Native::Sort) => push_sort(args, out),
        KeySpec::Native(Native::Migrate) => push_migrate(args, out),
        KeySpec::Native(Native::Georadius { options }) => push_georadius(*options, args, out),
        KeySpec::Native(Native::Streams { from }) => push_streams(*from, args, out),
    }
}

/// Like [`key_positions`], with the access to each key. Used for permission checks, not on the hot
/// path.
///
/// # Errors
/// As [`key_positions`].
pub fn key_accesses(
    spec: &CommandSpec,
    args: &Args,
    out: &mut Vec<(u32, Access)>,
) -> Result<(), KeyError> {
    out.clear();
    let mut keys = Vec::new();
    match &spec.keys {
        KeySpec::Native(Native::Sort | Native::Georadius { .. }) => {
            key_positions(spec, args, &mut keys)?;
            let read = Access { read: true, write: false };
            let write = Access { read: false, write: true };
            let accesses = std::iter::once(read).chain(std::iter::repeat(write));
            out.extend(keys.into_iter().zip(accesses));
        }
        KeySpec::Native(Native::Streams { .. }) => {
            key_positions(spec, args, &mut keys)?;
            let access = spec.access.first().map_or(Access::ALL, |first| first.access);
            out.extend(keys.into_iter().map(|key| (key, access)));
        }
        _ if spec.access.is_empty() || matches!(spec.keys, KeySpec::Native(_)) => {
            key_positions(spec, args, &mut keys)?;
            out.extend(keys.into_iter().map(|key| (key, Access::ALL)));
        }
        _ => {
            for KeyAccess { part, access } in &spec.access {
                keys.clear();
                push_part(part, args, &mut keys)?;
                let access = by_arguments(spec, args).unwrap_or(*access);
                out.extend(keys.iter().map(|&key| (key, access)));
            }
        }
    }
    Ok(())
}

/// The access to the key, for commands whose arguments decide it.
fn by_arguments(spec: &CommandSpec, args: &Args) -> Option<Access> {
    match &*spec.name {
        "set" => Some(Access { read: (3..args.len()).any(|i| args.is(i, "get")), write: true }),
        "bitfield" => {
            let mut i = 2;
            let mut write = false;
            while i < args.len() {
                let changes = args.is(i, "set") || args.is(i, "incrby");
                write |= changes;
                i += match () {
                    () if changes => 4,
                    () if args.is(i, "get") => 3,
                    () => 2,
                };
            }
            Some(Access { read: true, write })
        }
        _ => None,
    }
}

/// Adds every `step`th argument of `first..=last`. The group of the last key must be complete.
fn push_range(
    first: i64,
    last: i64,
    step: u32,
    n: i64,
    out: &mut Vec<u32>,
) -> Result<(), KeyError> {
    if first < 1 || last < first || last >= n {
        return Err(KeyError::TooFew);
    }
    let step = i64::from(step.max(1));
    if (last - first + 1) % step != 0 {
        return Err(KeyError::Unbalanced);
    }
    push_every(first, last, step, out);
    Ok(())
}

fn push_every(first: i64, last: i64, step: i64, out: &mut Vec<u32>) {
    let mut i = first;
    while i <= last {
        out.push(u32::try_from(i).unwrap_or(u32::MAX));
        i += step;
    }
}

fn push_part(part: &KeyPart, args: &Args, out: &mut Vec<u32>) -> Result<(), KeyError> {
    let n = args.len() as i64;
    let begin = match &part.begin {
        Begin::Index(i) => i64::from(*i),
        Begin::Keyword { word, from } => match keyword(args, word, *from) {
            Some(i) => i + 1,
            None => return Ok(()),
        },
    };
    match part.find {
        Find::Range { last, step, limit } => {
            let last = if last >= 0 {
                begin + i64::from(last)
            } else if limit > 1 {
                let left = (n - begin).max(0);
                let limit = i64::from(limit);
                if left % limit != 0 {
                    return Err(KeyError::Unbalanced);
                }
                begin + left / limit + i64::from(last)
            } else {
                n + i64::from(last)
            };
            push_range(begin, last, step, n, out)
        }
        Find::Keynum { index, first, step } => {
            let at = usize::try_from(begin + i64::from(index)).map_err(|_| KeyError::TooFew)?;
            let count = number(args.get(at).ok_or(KeyError::TooFew)?)?;
            let first = begin + i64::from(first);
            let step = i64::from(step.max(1));
            // Division, because the client's number may be arbitrarily large.
            if count > (n - first).max(0) / step {
                return Err(KeyError::TooMany);
            }
            push_every(first, first + count * step - 1, step, out);
            Ok(())
        }
    }
}

/// Position of `word`, searched forwards from argument `from`, or backwards from the end. The last
/// argument cannot be a keyword, as nothing follows it.
fn keyword(args: &Args, word: &str, from: i32) -> Option<i64> {
    let n = args.len();
    let mut candidates = if from >= 0 {
        Ok(usize::try_from(from).ok()?..n.saturating_sub(1))
    } else {
        let start = n.checked_sub(from.unsigned_abs() as usize)?;
        Err((1..(start + 1).min(n.saturating_sub(1))).rev())
    };
    let found = match &mut candidates {
        Ok(forwards) => forwards.find(|&i| args.is(i, word)),
        Err(backwards) => backwards.find(|&i| args.is(i, word)),
    };
    found.map(|i| i as i64)
}

/// Position of an argument that should be a number of keys and is not a number by the strict rules
/// that the server applies on execution. When it looks for keys it reads `1.5` and ` 1` as 1.
pub fn invalid_key_count(spec: &CommandSpec, args: &Args) -> Option<usize> {
    let KeySpec::Specs(parts) = &spec.keys else { return None };
    let numbers = parts.iter().filter_map(|part| match (&part.begin, &part.find) {
        (Begin::Index(begin), Find::Keynum { index, .. }) => {
            Some(*begin as usize + *index as usize)
        }
        _ => None,
    });
    let mut odd = numbers.filter(|&at| args.get(at).is_some_and(|arg| strict_i64(arg).is_none()));
    odd.next()
}

/// Parses a number of keys like the server: digits only, no leading zero.
fn number(text: &[u8]) -> Result<i64, KeyError> {
    match text {
        [b'0'] => Ok(0),
        [b'1'..=b'9', rest @ ..] if rest.len() < 18 && rest.iter().all(u8::is_ascii_digit) => {
            Ok(text.iter().fold(0, |n, d| n * 10 + i64::from(d - b'0')))
        }
        _ => Err(KeyError::NotANumber),
    }
}

/// The server takes the last STORE and skips the arguments of BY, GET and LIMIT.
fn push_sort(args: &Args, out: &mut Vec<u32>) -> Result<(), KeyError> {
    let n = args.len();
    if n < 2 {
        return Err(KeyError::TooFew);
    }
    out.push(1);
    let mut store = None;
    let mut i = 2;
    while i < n {
        if args.is(i, "limit") {
            i += 2;
        } else if args.is(i, "get") || args.is(i, "by") {
            i += 1;
        } else if args.is(i, "store") && i + 1 < n {
            store = Some(i + 1);
        }
        i += 1;
    }
    out.extend(store.and_then(|i| u32::try_from(i).ok()));
    Ok(())
}

/// The server takes the last STORE or STOREDIST. All are treated as keys: a user who may not write
/// to one has no business naming it.
fn push_georadius(options: u8, args: &Args, out: &mut Vec<u32>) -> Result<(), KeyError> {
    let n = args.len();
    if n < 2 {
        return Err(KeyError::TooFew);
    }
    out.push(1);
    let mut i = usize::from(options);
    while i + 1 < n {
        if args.is(i, "store") || args.is(i, "storedist") {
            i += 1;
            out.push(u32::try_from(i).unwrap_or(u32::MAX));
        }
        i += 1;
    }
    Ok(())
}

/// Reads the options in order, like the server, up to STREAMS; then as many keys as IDs.
fn push_streams(from: u8, args: &Args, out: &mut Vec<u32>) -> Result<(), KeyError> {
    let n = args.len();
    let mut i = 1;
    let streams = loop {
        if i + 1 >= n {
            break None;
        } else if args.is(i, "streams") {
            break Some(i);
        } else if args.is(i, "count") || args.is(i, "block") {
            i += 2;
        } else if args.is(i, "group") {
            i += 3;
        } else if args.is(i, "noack") {
            i += 1;
        } else {
            // An option of a newer server, or an invalid one.
            break keyword(args, "streams", from.into()).and_then(|i| usize::try_from(i).ok());
        }
    };
    let Some(first) = streams.filter(|&i| i >= usize::from(from)).map(|i| i + 1) else {
        return Ok(());
    };
    let left = n - first;
    if !left.is_multiple_of(2) {
        return Err(KeyError::Unbalanced);
    }
    out.extend((first..first + left / 2).map(|i| u32::try_from(i).unwrap_or(u32::MAX)));
    Ok(())
}

/// One key at argument 3; or that argument is empty and the keys follow KEYS.
fn push_migrate(args: &Args, out: &mut Vec<u32>) -> Result<(), KeyError> {
    let n = args.len();
    let key = args.get(3).ok_or(KeyError::TooFew)?;
    let mut i = 6;
    while i < n {
        if args.is(i, "keys") {
            if !key.is_empty() {
                return Err(KeyError::Syntax);
            }
            return push_range(i as i64 + 1, n as i64 - 1, 1, n as i64, out);
        }
        i += if args.is(i, "auth2") {
            3
        } else if args.is(i, "auth") {
            2
        } else {
            1
        };
    }
    out.push(3);
    Ok(())
}
