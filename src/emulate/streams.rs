//! XREAD and XREADGROUP over streams in several slots: each is read by itself, the replies joined.

use std::rc::Rc;

use super::fetch::{null_list, own_key, stopped, unless_key_denied};
use super::pops::Wait;
use super::reply::{CommandResult, Reply, batch, first_error, is_node_error};
use super::talk::{Request, Step, Talk};
use crate::errors::{Cause, Failure, Halfway};
use crate::resp::reply::element_count;
use crate::resp::tree::decode;
use crate::resp::{Protocol, write};

/// An ID past the end of any history: reading there returns nothing but the error, if there is one.
const PAST_THE_END: &[u8] = b"9223372036854775807-0";

/// The parsed arguments.
#[derive(Debug)]
struct ReadArgs<'a> {
    /// The arguments from the name up to STREAMS, without BLOCK.
    before: Vec<&'a [u8]>,
    /// BLOCK is among the arguments.
    blocking: bool,
    group: bool,
}

impl<'a> ReadArgs<'a> {
    fn of(req: &'a Request) -> ReadArgs<'a> {
        let group = req.name == "xreadgroup";
        // The names after GROUP may be any words.
        let first = if group { 4 } else { 1 };
        let end = req.keys.first().copied().unwrap_or(0);
        let mut read =
            ReadArgs { before: req.rest(0).take(first.min(end)).collect(), blocking: false, group };
        let mut i = first;
        while i < end {
            if req.is(i, "block") && i + 1 < end {
                read.blocking = true;
                i += 2;
            } else {
                read.before.push(req.arg(i));
                i += 1;
            }
        }
        read
    }

    fn step(&self, key: &[u8], id: &[u8]) -> Step {
        let args: Vec<&[u8]> = self.before.iter().copied().chain([key, id]).collect();
        let step = Step::one(key, &args);
        // A blocking read goes to the primary, where new entries appear first.
        if self.group || self.blocking { step } else { step.anywhere() }
    }
}

/// Runs the command.
pub async fn read(talk: Talk, req: Rc<Request>) -> CommandResult {
    let read = ReadArgs::of(&req);
    let count = req.keys.len();
    let id = |i: usize| req.keys.get(i).map_or(&[][..], |&at| req.arg(at + count));
    let parts = |ids: &[Vec<u8>]| -> Vec<Step> {
        (0..count).map(|i| read.step(req.key(i), ids.get(i).map_or(&[], |id| id))).collect()
    };
    let mut ids: Vec<Vec<u8>> = (0..count).map(|i| id(i).to_vec()).collect();
    // An invalid BLOCK is reported before any other error.
    let nothing = own_key(req.key(0), "none");
    let mut steps = Vec::new();
    let end = req.keys.first().copied().unwrap_or(0);
    let args_of_nothing: Vec<&[u8]> =
        req.rest(0).take(end).chain([nothing.as_slice(), b"0-0"]).collect();
    if read.blocking {
        steps.push(Step::batch(&nothing, [args_of_nothing.clone()]).harmless());
    }
    if read.group {
        // A group read is a write (it creates the consumer at least): errors of any stream must be
        // found before the first read.
        steps.extend((0..count).map(|i| {
            let key = req.key(i);
            Step::one(key, &[b"XPENDING", key, req.arg(2)])
        }));
    } else {
        steps.extend(parts(&ids));
        let ends = (0..count).filter(|&i| id(i) == b"$").map(|i| req.key(i));
        if read.blocking {
            steps.extend(ends.map(|key| Step::one(key, &[b"XINFO", b"STREAM", key])));
        }
    }
    let mut replies = talk.ask(steps).await.into_iter();
    if read.blocking {
        let said = replies.next().unwrap_or_default();
        let said = match said.is_out_of_memory() {
            false => batch(&said).map(|_| ()),
            // The timeout is not a number, so the command cannot block.
            true if req.wait == Some(0) => {
                talk.one(Step::one(&nothing, &args_of_nothing).harmless()).await.check()
            }
            // The reads report any other error.
            true => Ok(()),
        };
        if let Err(cause) = said
            && !is_node_error(&cause, "NOGROUP")
        {
            unless_key_denied(cause)?;
        }
    }
    let mut found: Vec<Reply> = replies.by_ref().take(count).collect();
    if read.group {
        let none = |reply: &Reply| ["NOGROUP", "WRONGTYPE"].iter().any(|e| reply.is_error_of(e));
        if let Some(i) = found.iter().position(none) {
            // Let the command itself report it. An invalid ID of an earlier stream comes first.
            let odd = |id: &[u8]| id != b">" && !id.iter().all(|c| matches!(c, b'0'..=b'9' | b'-'));
            let (at, id) = match (0..i).find(|&i| odd(id(i))) {
                Some(at) => (at, id(at)),
                None => (i, PAST_THE_END),
            };
            let said = talk.one(read.step(req.key(at), id)).await;
            return said.check().map(|()| null_list(req.protocol));
        }
        // Reading history is repeatable, but creates the consumer.
        talk.writes();
        let history = (0..count).filter(|&i| id(i) != b">");
        let looks = history.map(|i| read.step(req.key(i), id(i))).collect();
        first_error(&talk.ask(looks).await)?;
        found = talk.ask(parts(&ids)).await;
        check_group_reads(&talk, &req, &found)?;
    } else {
        first_error(&found)?;
        // From here on `$` is the end that the stream had when the command arrived.
        for id in ids.iter_mut().filter(|id| *id == b"$") {
            let Some(info) = replies.next() else { break };
            *id = end_of(&info)?;
        }
    }
    let mut wait = read.blocking.then(|| Wait::new(&talk, &req));
    loop {
        if let Some(reply) = joined(&found, req.protocol) {
            return Ok(reply);
        }
        let Some(wait) = wait.as_mut() else { return Ok(null_list(req.protocol)) };
        if let Err(end) = wait.again(&talk, &req).await {
            return end;
        }
        found = talk.ask(parts(&ids)).await;
        if read.group {
            if found.iter().any(|reply| reply.is_error_of("NOGROUP")) {
                return Err(Failure::StreamDeleted.into());
            }
            check_group_reads(&talk, &req, &found)?;
        }
    }
}

/// Checks group reads: entries read before another stream failed stay pending for the consumer.
fn check_group_reads(talk: &Talk, req: &Request, found: &[Reply]) -> Result<(), Cause> {
    // A lost read has an unknown outcome, whatever the other errors are.
    let lost = found.iter().find(|reply| reply.is_outcome_unknown());
    let Err(cause) = lost.map_or_else(|| first_error(found), Reply::check) else { return Ok(()) };
    let read = found.iter().enumerate().filter(|(_, reply)| !reply.is_error() && !reply.is_null());
    let key = |i| String::from_utf8_lossy(req.key(i)).into_owned();
    let keys: Vec<String> = read.map(|(i, _)| key(i)).collect();
    if keys.is_empty() && !cause.is_outcome_unknown() {
        return Err(cause);
    }
    Err(stopped(talk, req, Halfway::Delivered(keys), cause))
}

/// The last ID of a stream, from its XINFO; `0-0` if it does not exist.
fn end_of(info: &Reply) -> CommandResult {
    if info.is_error_of("ERR no such key") {
        return Ok(b"0-0".to_vec());
    }
    info.check()?;
    let info = decode(info.frame()).ok();
    let id =
        info.as_ref().and_then(|info| info.field("last-generated-id")).and_then(|id| id.text());
    Ok(id.unwrap_or("0-0").as_bytes().to_vec())
}

/// Joins the streams' replies; `None` if no stream has entries.
fn joined(found: &[Reply], protocol: Protocol) -> Option<Vec<u8>> {
    let some = found.iter().filter(|reply| !reply.is_null() && !reply.is_error());
    let some = some.map(Reply::frame).filter(|reply| element_count(reply) > Some(0));
    let some: Vec<&[u8]> = some.collect();
    if some.is_empty() {
        return None;
    }
    let mut frame = Vec::new();
    let streams: u64 = some.iter().filter_map(|reply| element_count(reply)).sum();
    let kind = if protocol == Protocol::Resp3 { b'%' } else { b'*' };
    write::header(&mut frame, kind, streams as usize);
    for reply in some {
        let start = memchr::memchr(b'\n', reply).map_or(reply.len(), |end| end + 1);
        frame.extend_from_slice(reply.get(start..).unwrap_or_default());
    }
    Some(frame)
}

#[cfg(test)]
mod tests {
    use super::super::talk::testing::{FakeNode, drive, request};
    use super::*;

    #[test]
    fn each_stream_is_read_by_itself() {
        let node = FakeNode::new(&[
            ("XREAD COUNT 2 STREAMS a 0", "*1\r\n*2\r\n$1\r\na\r\n*0\r\n"),
            ("XREAD COUNT 2 STREAMS b 7-1", "*-1\r\n"),
            ("XREAD COUNT 2 STREAMS c 0", "*1\r\n*2\r\n$1\r\nc\r\n*0\r\n"),
        ]);
        let req = request("XREAD COUNT 2 STREAMS a b c 0 7-1 0", &[4, 5, 6]);
        let reply = drive(req, &node, read);
        assert_eq!(reply, "*2\r\n*2\r\n$1\r\na\r\n*0\r\n*2\r\n$1\r\nc\r\n*0\r\n");
    }

    #[test]
    fn the_end_of_a_stream_is_read_once() {
        let info = "*4\r\n$6\r\nlength\r\n:1\r\n$17\r\nlast-generated-id\r\n$3\r\n5-0\r\n";
        let node = FakeNode::new(&[
            ("MULTI XREAD BLOCK 9 STREAMS NONE 0-0 EXEC", "*1\r\n*-1\r\n"),
            ("XREAD STREAMS a $", "*-1\r\n"),
            ("XREAD STREAMS b $", "*-1\r\n"),
            ("XINFO STREAM a", info),
            ("XINFO STREAM b", "-ERR no such key\r\n"),
            ("XREAD STREAMS a 5-0", "*-1\r\n"),
            ("XREAD STREAMS b 0-0", "*1\r\n*2\r\n$1\r\nb\r\n*0\r\n"),
        ]);
        let mut req = request("XREAD BLOCK 9 STREAMS a b $ $", &[4, 5]);
        req.wait = Some(9_000);
        assert_eq!(drive(req, &node, read), "*1\r\n*2\r\n$1\r\nb\r\n*0\r\n");
    }

    #[test]
    fn a_missing_group_is_found_before_anything_is_delivered() {
        let node = FakeNode::new(&[
            ("XPENDING a g", "*4\r\n:0\r\n$-1\r\n$-1\r\n*-1\r\n"),
            ("XPENDING b g", "-NOGROUP y\r\n"),
            ("XREADGROUP GROUP g block COUNT 1 STREAMS b 9223372036854775807-0", "-NOGROUP x\r\n"),
        ]);
        let req = request("XREADGROUP GROUP g block COUNT 1 STREAMS a b > >", &[7, 8]);
        assert_eq!(drive(req, &node, read), "-NOGROUP x\r\n");
    }

    const LOOKS: [(&str, &str); 2] = [
        ("XPENDING a g", "*4\r\n:0\r\n$-1\r\n$-1\r\n*-1\r\n"),
        ("XPENDING b g", "*4\r\n:0\r\n$-1\r\n$-1\r\n*-1\r\n"),
    ];

    #[test]
    fn a_lost_group_read_is_reported() {
        let read_of_a = "XREADGROUP GROUP g c STREAMS a >";
        let read_of_b = "XREADGROUP GROUP g c STREAMS b >";
        let group = || request("XREADGROUP GROUP g c STREAMS a b > >", &[5, 6]);
        let node =
            FakeNode::new(&[LOOKS[0], LOOKS[1], (read_of_a, "*1\r\n*2\r\n$1\r\na\r\n*0\r\n")]);
        let reply = drive(group(), &node.losing(read_of_b), read);
        let begins = |streams: &[&str]| {
            let done = Halfway::Delivered(streams.iter().map(ToString::to_string).collect());
            format!("-OUTCOMEUNKNOWN XREADGROUP over several slots stopped halfway: {done} (")
        };
        assert!(reply.starts_with(&begins(&["a"])), "{reply}");
        let node = FakeNode::new(&[LOOKS[0], LOOKS[1], (read_of_a, "*-1\r\n")]);
        let reply = drive(group(), &node.losing(read_of_b), read);
        assert!(reply.starts_with(&begins(&[])), "{reply}");
        let node = FakeNode::new(&[
            LOOKS[0],
            LOOKS[1],
            (read_of_a, "*-1\r\n"),
            (read_of_b, "-NOPERM x\r\n"),
        ]);
        assert_eq!(drive(group(), &node, read), "-NOPERM x\r\n");
        let node = FakeNode::new(&[LOOKS[0], LOOKS[1], (read_of_a, "-NOPERM x\r\n")]);
        let reply = drive(group(), &node.losing(read_of_b), read);
        assert!(reply.starts_with(&begins(&[])), "whatever the first one says: {reply}");
    }
}
