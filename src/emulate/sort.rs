//! SORT and SORT_RO with patterns whose keys may be in any slot, and with a target in another slot.
//!
//! A node returns the elements, and sorts them unless BY names keys; the keys of BY and GET
//! patterns are read with one command per slot. <https://redis.io/docs/latest/commands/sort/>

use std::cmp::Ordering;
use std::rc::Rc;

use super::fetch::{check_arguments, own_key, replace};
use super::number::parse_weight;
use super::reply::scalar;
use super::reply::{CommandResult, first_error};
use super::talk::{Request, Step, Talk};
use crate::cluster::{Slot, slot_of};
use crate::errors::{Cause, Failure};
use crate::hash::IntMap;
use crate::resp::reply::{elements, text};
use crate::resp::{strict_i64, write};

/// Keys read per command, or hash fields read at a time.
const MAX_LOOKUPS: usize = 1000;

/// The parsed arguments.
#[derive(Debug, Default, PartialEq)]
struct SortArgs<'a> {
    by: Option<&'a [u8]>,
    gets: Vec<&'a [u8]>,
    store: Option<&'a [u8]>,
    /// All other options, unchanged.
    others: Vec<&'a [u8]>,
    descending: bool,
    alpha: bool,
    limit: Option<(i64, i64)>,
}

impl<'a> SortArgs<'a> {
    fn of(req: &'a Request) -> SortArgs<'a> {
        let mut sort = SortArgs::default();
        let may_store = req.name == "sort";
        let mut i = 2;
        while i < req.args.len() {
            let next = req.args.get(i + 1).map(|_| req.arg(i + 1));
            match next {
                Some(pattern) if req.is(i, "by") => sort.by = Some(pattern),
                Some(pattern) if req.is(i, "get") => sort.gets.push(pattern),
                Some(target) if may_store && req.is(i, "store") => sort.store = Some(target),
                _ => {
                    sort.descending = (sort.descending || req.is(i, "desc")) && !req.is(i, "asc");
                    sort.alpha |= req.is(i, "alpha");
                    let length = if req.is(i, "limit") { 3 } else { 1 };
                    if length == 3 {
                        let number = |i| strict_i64(req.arg(i));
                        sort.limit = number(i + 1).zip(number(i + 2));
                    }
                    sort.others.extend(req.rest(i).take(length));
                    i += length;
                    continue;
                }
            }
            i += 2;
        }
        sort
    }

    /// The pattern of BY, if it names a key for each element.
    fn by_pattern(&self) -> Option<Pattern<'a>> {
        self.by.filter(|by| by.contains(&b'*')).and_then(Pattern::of)
    }

    /// The range of elements selected by LIMIT: start and end index.
    fn range(&self, length: usize) -> (usize, usize) {
        let Some((from, count)) = self.limit else { return (0, length) };
        let from = usize::try_from(from).unwrap_or(0).min(length);
        let count = usize::try_from(count).unwrap_or(length);
        (from, from.saturating_add(count).min(length))
    }
}

/// A pattern with a `*`: a key, and optionally a hash field after `->`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pattern<'a> {
    before: &'a [u8],
    behind: &'a [u8],
    field: Option<&'a [u8]>,
}

impl<'a> Pattern<'a> {
    fn of(text: &'a [u8]) -> Option<Pattern<'a>> {
        let star = memchr::memchr(b'*', text)?;
        let (before, rest) = text.split_at(star);
        let rest = rest.get(1..).unwrap_or_default();
        let arrow = memchr::memmem::find(rest, b"->").filter(|at| at + 2 < rest.len());
        Some(match arrow {
            Some(at) => Pattern {
                before,
                behind: rest.get(..at).unwrap_or_default(),
                field: rest.get(at + 2..),
            },
            None => Pattern { before, behind: rest, field: None },
        })
    }

    fn key(&self, element: &[u8]) -> Vec<u8> {
        [self.before, element, self.behind].concat()
    }
}

/// The value that a pattern gives for an element, if it exists.
type Found = Option<Vec<u8>>;

/// The values of `pattern` for `all` elements.
async fn look_up(talk: &Talk, pattern: Pattern<'_>, all: &[&[u8]]) -> Result<Vec<Found>, Cause> {
    let keys: Vec<Vec<u8>> = all.iter().map(|element| pattern.key(element)).collect();
    let mut found: Vec<Found> = vec![None; keys.len()];
    if let Some(field) = pattern.field {
        for (chunk, places) in keys.chunks(MAX_LOOKUPS).zip(found.chunks_mut(MAX_LOOKUPS)) {
            let ask = |key: &Vec<u8>| Step::one(key, &[b"HGET", key, field]).anywhere();
            let replies = talk.ask(chunk.iter().map(ask).collect()).await;
            for (place, reply) in places.iter_mut().zip(replies) {
                // A key of another type has no such field.
                if reply.is_error() && !reply.is_error_of("WRONGTYPE") {
                    return Err(reply.into());
                }
                *place = text(reply.frame()).map(<[u8]>::to_vec);
            }
        }
        return Ok(found);
    }
    let mut by_slot: IntMap<Slot, Vec<usize>> = IntMap::default();
    for (i, key) in keys.iter().enumerate() {
        by_slot.entry(slot_of(key)).or_default().push(i);
    }
    let groups: Vec<&[usize]> = by_slot.values().flat_map(|all| all.chunks(MAX_LOOKUPS)).collect();
    let ask = |group: &&[usize]| {
        let keys: Vec<&[u8]> = group.iter().filter_map(|&i| Some(&**keys.get(i)?)).collect();
        let first = keys.first().copied().unwrap_or_default();
        Step::one(first, &[&[b"MGET".as_slice()], &*keys].concat()).anywhere()
    };
    let replies = talk.ask(groups.iter().map(ask).collect()).await;
    first_error(&replies)?;
    for (group, reply) in groups.iter().zip(&replies) {
        for (&i, value) in group.iter().zip(elements(reply.frame())) {
            if let Some(place) = found.get_mut(i) {
                *place = text(value).map(<[u8]>::to_vec);
            }
        }
    }
    Ok(found)
}

/// Runs the command.
pub async fn sort(talk: Talk, req: Rc<Request>) -> CommandResult {
    let mut sort = SortArgs::of(&req);
    let (name, key) = (req.arg(0), req.key(0));
    let keyed = sort.by_pattern();
    // With STORE Redis sorts a set even if BY asks for no order, to make the result deterministic.
    if sort.store.is_some() && sort.by.is_some() && keyed.is_none() {
        let kind = talk.one(Step::one(key, &[b"TYPE", key])).await;
        if text(kind.frame()) == Some(b"set") {
            sort.by = None;
            sort.alpha = true;
        }
    }
    // Redis sorts by bytes if the result is stored, otherwise by the node's locale, for which a
    // string ends at its first zero byte. The node is not told of the target, so it must not sort.
    let by_bytes = sort.store.is_some() && sort.alpha && sort.by.is_none();
    let ordered_here = keyed.is_some() || by_bytes;
    let by: Vec<&[u8]> = match sort.by {
        _ if ordered_here => vec![b"BY", b"nosort"],
        Some(constant) => vec![b"BY", constant],
        None => Vec::new(),
    };
    let command = |key, others: &[&'_ [u8]]| {
        let args: Vec<&[u8]> = [name, key]
            .into_iter()
            .chain(by.iter().copied())
            .chain(others.iter().copied())
            .collect();
        Step::one(key, &args).harmless()
    };
    let nothing = own_key(key, "none");
    let dry_run = command(&nothing, &sort.others);
    let replies =
        talk.ask(vec![dry_run, command(key, if ordered_here { &[] } else { &sort.others })]).await;
    let (said, reply) = (replies.first(), replies.get(1));
    said.map_or(Ok(()), check_arguments)?;
    let Some(reply) = reply else { return Err(Failure::NoReply.into()) };
    reply.check()?;
    let mut all: Vec<&[u8]> = elements(reply.frame()).filter_map(scalar).collect();
    if ordered_here {
        let weights = match keyed {
            Some(pattern) => look_up(&talk, pattern, &all).await?,
            None => all.iter().map(|element| Some(element.to_vec())).collect(),
        };
        all = ordered(&sort, all, weights).ok_or(Failure::ScoresNotDoubles)?;
        let (from, to) = sort.range(all.len());
        all = all.get(from..to).unwrap_or_default().to_vec();
    }
    let mut columns: Vec<Vec<Found>> = Vec::new();
    for get in &sort.gets {
        columns.push(match Pattern::of(get) {
            Some(pattern) => look_up(&talk, pattern, &all).await?,
            None if *get == b"#" => all.iter().map(|element| Some(element.to_vec())).collect(),
            None => vec![None; all.len()],
        });
    }
    let cells: Vec<Option<&[u8]>> = match columns.is_empty() {
        true => all.iter().map(|element| Some(*element)).collect(),
        false => (0..all.len())
            .flat_map(|i| columns.iter().map(move |c| c.get(i).and_then(Option::as_deref)))
            .collect(),
    };
    match sort.store {
        Some(target) => {
            let values: Vec<&[u8]> = cells.iter().map(|cell| cell.unwrap_or_default()).collect();
            replace(&talk, &req, target, b"RPUSH", &values, 1).await
        }
        None => {
            let mut frame = Vec::new();
            write::array_header(&mut frame, cells.len());
            for cell in cells {
                match cell {
                    Some(value) => write::bulk(&mut frame, value),
                    None => write::null(&mut frame, req.protocol),
                }
            }
            Ok(frame)
        }
    }
}

/// Sorts elements by their weights. `None` if a weight is not a number.
fn ordered<'a>(
    sort: &SortArgs<'_>,
    all: Vec<&'a [u8]>,
    weights: Vec<Found>,
) -> Option<Vec<&'a [u8]>> {
    let direction = |order: Ordering| if sort.descending { order.reverse() } else { order };
    if sort.alpha {
        let mut pairs: Vec<(Found, &[u8])> = weights.into_iter().zip(all).collect();
        pairs.sort_by(|a, b| direction(a.0.cmp(&b.0)));
        return Some(pairs.into_iter().map(|(_, element)| element).collect());
    }
    let number = |weight: &Found| weight.as_deref().map_or(Some(0.0), parse_weight);
    let numbers: Option<Vec<f64>> = weights.iter().map(number).collect();
    let mut pairs: Vec<(f64, &[u8])> = numbers?.into_iter().zip(all).collect();
    pairs.sort_by(|a, b| {
        let order = a.0.partial_cmp(&b.0).unwrap_or(Ordering::Equal);
        direction(order.then_with(|| a.1.cmp(b.1)))
    });
    Some(pairs.into_iter().map(|(_, element)| element).collect())
}

#[cfg(test)]
mod tests {
    use super::super::talk::testing::{FakeNode, drive, request};
    use super::*;

    #[test]
    fn parses_patterns() {
        let p = Pattern::of(b"w_*:x->f").unwrap();
        assert_eq!((p.key(b"7"), p.field), (b"w_7:x".to_vec(), Some(&b"f"[..])));
        let p = Pattern::of(b"w_*->").unwrap();
        assert_eq!((p.key(b"7"), p.field), (b"w_7->".to_vec(), None));
        let p = Pattern::of(b"a->b*").unwrap();
        assert_eq!((p.key(b"7"), p.field), (b"a->b7".to_vec(), None));
        assert_eq!(Pattern::of(b"#"), None);
    }

    #[test]
    fn parses_arguments() {
        let req = request("SORT k BY w_* LIMIT 1 2 GET # GET o_*->f DESC ALPHA STORE d", &[1, 13]);
        let sort = SortArgs::of(&req);
        assert_eq!(sort.gets, [&b"#"[..], b"o_*->f"]);
        assert_eq!((sort.store, sort.limit), (Some(&b"d"[..]), Some((1, 2))));
        assert!(sort.descending && sort.alpha);
        assert_eq!(sort.others, [&b"LIMIT"[..], b"1", b"2", b"DESC", b"ALPHA"]);
        assert_eq!(sort.range(10), (1, 3));
        assert_eq!(sort.range(2), (1, 2));
        assert_eq!(sort.range(0), (0, 0));
        let none = SortArgs { limit: Some((-3, -1)), ..SortArgs::default() };
        assert_eq!(none.range(5), (0, 5));
    }

    #[test]
    fn sorts_by_weights_in_other_slots() {
        let list = "*3\r\n$1\r\n1\r\n$1\r\n2\r\n$1\r\n3\r\n";
        let node = FakeNode::new(&[
            ("SORT NONE BY nosort LIMIT 0 2", "*0\r\n"),
            ("SORT k BY nosort", list),
            ("MGET w_1", "*1\r\n$1\r\n9\r\n"),
            ("MGET w_2", "*1\r\n$-1\r\n"),
            ("MGET w_3", "*1\r\n$1\r\n5\r\n"),
            ("HGET h_2 f", "$1\r\nx\r\n"),
            ("HGET h_3 f", "-WRONGTYPE x\r\n"),
        ]);
        let req = request("SORT k BY w_* LIMIT 0 2 GET # GET h_*->f", &[1]);
        let want = "*4\r\n$1\r\n2\r\n$1\r\nx\r\n$1\r\n3\r\n$-1\r\n";
        assert_eq!(drive(req, &node, sort), want);
    }

    #[test]
    fn rejects_weights_that_are_not_numbers() {
        let node = FakeNode::new(&[
            ("SORT NONE BY nosort", "*0\r\n"),
            ("SORT k BY nosort", "*1\r\n$1\r\n1\r\n"),
            ("MGET w_1", "*1\r\n$1\r\nx\r\n"),
        ]);
        assert_eq!(
            drive(request("SORT k BY w_*", &[1]), &node, sort),
            "-ERR One or more scores can't be converted into double\r\n"
        );
    }

    #[test]
    fn a_stored_result_is_sorted_by_bytes() {
        let node = FakeNode::new(&[
            ("SORT NONE BY nosort ALPHA LIMIT 0 2", "*0\r\n"),
            ("SORT k BY nosort", "*3\r\n$2\r\n\0x\r\n$1\r\nb\r\n$0\r\n\r\n"),
            ("MULTI DEL d RPUSH d  \0x EXEC", "*2\r\n:0\r\n:2\r\n"),
        ]);
        let req = request("SORT k ALPHA LIMIT 0 2 STORE d", &[1, 7]);
        assert_eq!(drive(req, &node, sort), ":2\r\n");
    }

    #[test]
    fn weights_that_are_missing_or_not_numbers() {
        let all = || vec![&b"a"[..], b"b"];
        let sort = SortArgs::default();
        assert_eq!(ordered(&sort, all(), vec![Some(b"x".to_vec()), None]), None);
        let found = ordered(&sort, all(), vec![Some(b"1".to_vec()), Some(Vec::new())]);
        assert_eq!(found.unwrap(), [&b"b"[..], b"a"]);
        let sort = SortArgs { alpha: true, descending: true, ..SortArgs::default() };
        assert_eq!(ordered(&sort, all(), vec![None, Some(b"x".to_vec())]).unwrap(), [b"b", b"a"]);
    }
}
