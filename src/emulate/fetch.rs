//! What recipes have in common: keys of slotway's own, the look at the arguments, replies taken
//! apart, a target written.

use std::sync::OnceLock;

use super::talk::{Outcome, Request, Step, Talk};
use crate::cluster::{SLOTS, slot_of};
use crate::hash::KeyedMap;
use crate::outcome;
pub use crate::outcome::is_unknown;
use crate::resp::reply::{elements, error_text};
use crate::resp::{Protocol, write};
use crate::route::DISCARDED;

/// Members in one command of those that write a target.
const CHUNK: usize = 1000;

/// For each slot a hash tag.
fn tag(slot: u16) -> u32 {
    static TAGS: OnceLock<Vec<u32>> = OnceLock::new();
    let tags = TAGS.get_or_init(|| {
        let mut tags = vec![u32::MAX; usize::from(SLOTS)];
        let mut left = tags.len();
        for n in 0.. {
            let place = tags.get_mut(usize::from(slot_of(n.to_string().as_bytes()).0));
            if let Some(place) = place.filter(|place| **place == u32::MAX) {
                *place = n;
                left -= 1;
            }
            if left == 0 {
                break;
            }
        }
        tags
    });
    tags.get(usize::from(slot)).copied().unwrap_or(0)
}

/// A key of slotway's own in the slot of `key`.
pub fn own_key(key: &[u8], what: &str) -> Vec<u8> {
    format!("slotway:{{{}}}:{what}", tag(slot_of(key).0)).into_bytes()
}

/// The client's arguments with other keys.
pub fn with_keys<'a>(req: &'a Request, keys: &'a [Vec<u8>]) -> Vec<&'a [u8]> {
    let mut args: Vec<&[u8]> = req.args.iter().map(|a| &**a).collect();
    for (&at, key) in req.keys.iter().zip(keys) {
        if let Some(arg) = args.get_mut(at) {
            *arg = key;
        }
    }
    args
}

/// Keys that do not exist, in the slot of the first one, as many as the command has.
fn nothing(req: &Request) -> Vec<Vec<u8>> {
    (0..req.keys.len()).map(|i| own_key(req.key(0), &format!("none:{i}"))).collect()
}

/// The command itself with keys that do not exist: a node says what is wrong with its other
/// arguments, in its own words, and nothing is done.
pub fn trial(req: &Request) -> Step {
    let keys = nothing(req);
    Step::one(req.key(0), &with_keys(req, &keys)).harmless()
}

/// What a node says against the arguments. Where it is only that its user may not see keys of
/// slotway's own, what follows will show what else is wrong.
pub fn complaint(reply: &[u8]) -> Result<(), Vec<u8>> {
    let Some(text) = error_text(reply) else { return Ok(()) };
    let of_keys = text.starts_with(b"NOPERM") && memchr::memmem::find(text, b" key").is_some();
    if of_keys { Ok(()) } else { Err(reply.to_vec()) }
}

/// It is an error.
pub fn is_error(reply: &[u8]) -> bool {
    matches!(reply.first(), Some(b'-' | b'!'))
}

/// Its error begins with `word`.
pub fn is_error_of(reply: &[u8], word: &str) -> bool {
    error_text(reply).is_some_and(|text| text.starts_with(word.as_bytes()))
}

/// Whether a node refused the step because its memory is full. Nothing of it was executed.
pub fn is_out_of_memory(reply: &[u8]) -> bool {
    error_text(reply).is_some_and(|text| reason(text).starts_with(b"OOM "))
}

/// Why a batch was discarded, or the error itself if it is not about a batch.
fn reason(text: &[u8]) -> &[u8] {
    text.strip_prefix(DISCARDED.as_bytes()).unwrap_or(text)
}

/// It is null, of whatever kind.
pub fn is_null(reply: &[u8]) -> bool {
    matches!(reply, b"$-1\r\n" | b"*-1\r\n" | b"_\r\n")
}

/// The first error among replies.
pub fn first_error<'a>(replies: impl IntoIterator<Item = &'a Vec<u8>>) -> Result<(), Vec<u8>> {
    match replies.into_iter().find(|reply| is_error(reply)) {
        Some(reply) => Err(reply.clone()),
        None => Ok(()),
    }
}

/// The replies in a batch's reply; of an error none.
///
/// # Errors
/// The batch's own, or that of its first command. The client knows of no batch: where a node
/// refused a command of it, that refusal is the error.
pub fn batch(reply: &[u8]) -> Result<Vec<&[u8]>, Vec<u8>> {
    if let Some(text) = error_text(reply) {
        let mut out = Vec::new();
        write::error(&mut out, reason(text));
        return Err(out);
    }
    let replies: Vec<&[u8]> = elements(reply).collect();
    match replies.first() {
        Some(first) if !is_error(first) => Ok(replies),
        Some(first) => Err(first.to_vec()),
        None => Err(error("ERR a node answered EXEC with nothing")),
    }
}

/// The bytes of a string, a number or a double.
pub fn scalar(frame: &[u8]) -> Option<&[u8]> {
    match frame.first()? {
        b',' | b':' | b'(' => frame.get(1..frame.len().checked_sub(2)?),
        _ => crate::resp::reply::text(frame),
    }
}

/// All scalars in a reply, however deep.
pub fn flat<'a>(frame: &'a [u8], out: &mut Vec<&'a [u8]>) {
    if let Some(value) = scalar(frame) {
        return out.push(value);
    }
    // As deep as the replies of commands are that are emulated.
    for element in elements(frame) {
        match scalar(element) {
            Some(value) => out.push(value),
            None => elements(element).for_each(|inner| match scalar(inner) {
                Some(value) => out.push(value),
                None => out.extend(elements(inner).filter_map(scalar)),
            }),
        }
    }
}

/// An error as a frame.
pub fn error(text: &str) -> Vec<u8> {
    let mut frame = Vec::new();
    write::error(&mut frame, text);
    frame
}

/// An integer as a frame.
pub fn integer(n: i64) -> Vec<u8> {
    let mut frame = Vec::new();
    write::integer(&mut frame, n);
    frame
}

/// The null that commands answer which would answer with a list.
pub fn null_list(protocol: Protocol) -> Vec<u8> {
    match protocol {
        Protocol::Resp2 => b"*-1\r\n".to_vec(),
        Protocol::Resp3 => b"_\r\n".to_vec(),
    }
}

/// It stopped with some of it done: the error that says what is.
pub fn stopped(talk: &Talk, req: &Request, done: &str, said: &[u8]) -> Vec<u8> {
    talk.halfway();
    let cause = String::from_utf8_lossy(error_text(said).unwrap_or(b"no reply"));
    let name = req.name.to_ascii_uppercase();
    let code = outcome::code_of(said);
    error(&format!(
        "{code} {name} over several slots stopped halfway: {done} (commands.cross_slot = \"emulate\"); \
         the cause: {cause}"
    ))
}

/// What a client is told of an error of which it is sure that nothing was changed. What
/// slotway says of a step that was lost would mean the whole command to the client.
pub fn failed_before(name: &str, said: Vec<u8>) -> Vec<u8> {
    let Some(cause) = error_text(&said) else { return said };
    let cause = String::from_utf8_lossy(cause);
    let own = cause.strip_prefix("ERR ").filter(|text| text.starts_with("slotway "));
    let cause = outcome::cause(&cause).or_else(|| own.map(str::to_owned));
    let Some(cause) = cause else { return said };
    let name = name.to_ascii_uppercase();
    error(&format!(
        "ERR {name} over several slots failed before anything was changed; the cause: {cause}"
    ))
}

/// The keys from the `first` on, each once, and for each key its place among them.
pub fn distinct(req: &Request, first: usize) -> (Vec<&[u8]>, Vec<usize>) {
    let mut keys: Vec<&[u8]> = Vec::new();
    let mut places = KeyedMap::default();
    let mut of = Vec::new();
    for i in first..req.keys.len() {
        let key = req.key(i);
        of.push(*places.entry(key).or_insert_with(|| {
            keys.push(key);
            keys.len() - 1
        }));
    }
    (keys, of)
}

/// Writes `values` to `target` in place of what is there, all or nothing: with `command`, so many
/// `values` to an element. No values: the target is deleted.
pub async fn replace(
    talk: &Talk,
    req: &Request,
    target: &[u8],
    command: &[u8],
    values: &[&[u8]],
    step: usize,
) -> Outcome {
    talk.writes();
    let count = values.len() / step.max(1);
    let del = vec![b"DEL".as_slice(), target];
    let write = match values.is_empty() {
        true => Step::one(target, &del),
        false => {
            let chunks = values.chunks(CHUNK * step.max(1));
            let writes = chunks.map(|chunk| [&[command, target], chunk].concat());
            Step::batch(target, std::iter::once(del).chain(writes))
        }
    };
    let whole = write.batch;
    let reply = talk.one(write).await;
    let failed = match whole {
        true => batch(&reply).and_then(|all| {
            all.iter().find(|r| is_error(r)).map_or(Ok(()), |error| Err(error.to_vec()))
        }),
        false => first_error([&reply]),
    };
    match failed {
        Ok(()) => Ok(integer(count as i64)),
        Err(cause) => Err(target_failed(talk, req, &cause)),
    }
}

/// The target was not written, or nobody knows.
pub fn target_failed(talk: &Talk, req: &Request, cause: &[u8]) -> Vec<u8> {
    if is_unknown(cause) {
        let done = "the target may or may not have been written, the sources are as they were";
        return stopped(talk, req, done, cause);
    }
    failed_before(&req.name, cause.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_keys_are_in_the_slot() {
        for key in ["a", "{x}y", "", "a}b", "user:1000", "{}z"] {
            assert_eq!(slot_of(&own_key(key.as_bytes(), "t")), slot_of(key.as_bytes()), "{key}");
        }
    }

    #[test]
    fn scalars_of_all_shapes() {
        let mut out = Vec::new();
        flat(b"*2\r\n$1\r\nk\r\n*1\r\n*2\r\n$1\r\nm\r\n,1.5\r\n", &mut out);
        assert_eq!(out, [b"k".as_slice(), b"m", b"1.5"]);
        assert_eq!(scalar(b":12\r\n"), Some(&b"12"[..]));
        assert_eq!(scalar(b"$-1\r\n"), None);
    }

    #[test]
    fn complaints() {
        assert!(complaint(b"-ERR syntax error\r\n").is_err());
        assert!(complaint(b":0\r\n").is_ok());
        let keys =
            b"-NOPERM this user has no permissions to access one of the keys used as arguments\r\n";
        assert!(complaint(keys).is_ok());
        let command = b"-NOPERM this user has no permissions to run the 'zunion' command\r\n";
        assert!(complaint(command).is_err());
    }
}
