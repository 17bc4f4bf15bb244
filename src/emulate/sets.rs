//! SINTER, SUNION, SDIFF, ZUNION, ZINTER, ZDIFF and their variants: the sets are fetched and
//! combined here; the result goes to the client or to a target key. Likewise PFCOUNT.

use std::rc::Rc;

use super::algebra::{self, Aggregate, Op, WeightedSet};
use super::fetch::{check_arguments, distinct, dry_run, integer, replace};
use super::hll::MergedRegisters;
use super::number;
use super::reply::scalar;
use super::reply::{CommandResult, first_error};
use super::talk::{Request, Step, Talk};
use crate::errors::Failure;
use crate::resp::reply::elements;
use crate::resp::{Protocol, strict_i64, write};

/// What is done with the result of a set operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetOutput {
    /// The client gets the members.
    Members,
    /// The client gets the number of members.
    Count,
    /// The result is stored in the first key.
    Store,
}

impl SetOutput {
    /// Index of the first source key.
    fn first(self) -> usize {
        usize::from(self == SetOutput::Store)
    }
}

/// Operations on sets.
pub async fn sets(talk: Talk, req: Rc<Request>, op: Op, output: SetOutput) -> CommandResult {
    let (keys, of) = distinct(&req, output.first());
    let mut steps: Vec<Step> =
        keys.iter().map(|key| Step::one(key, &[b"SMEMBERS", key]).anywhere()).collect();
    // Only SINTERCARD has arguments other than keys.
    if output == SetOutput::Count {
        steps.push(dry_run(&req));
    }
    let replies = talk.ask(steps).await;
    if output == SetOutput::Count {
        replies.last().map_or(Ok(()), check_arguments)?;
    }
    first_error(replies.iter().take(keys.len()))?;
    let members: Vec<Vec<&[u8]>> =
        replies.iter().map(|reply| elements(reply.frame()).filter_map(scalar).collect()).collect();
    let all: Vec<Vec<&[u8]>> = of.iter().filter_map(|&i| members.get(i).cloned()).collect();
    let combined = algebra::sets(op, &all);
    match output {
        SetOutput::Members => {
            let mut frame = Vec::new();
            let kind = if req.protocol == Protocol::Resp3 { b'~' } else { b'*' };
            write::header(&mut frame, kind, combined.len());
            combined.iter().for_each(|member| write::bulk(&mut frame, member));
            Ok(frame)
        }
        SetOutput::Count => Ok(integer(limited(combined.len(), &options(&req)?))),
        SetOutput::Store => replace(&talk, &req, req.key(0), b"SADD", &combined, 1).await,
    }
}

/// The options after the keys.
#[derive(Debug, PartialEq)]
struct Options {
    weights: Vec<f64>,
    aggregate: Aggregate,
    with_scores: bool,
    /// 0 means no limit.
    limit: i64,
}

/// Parses the options, which a node has already validated. An option that the node accepted and
/// that is not known here is an error all the same.
fn options(req: &Request) -> Result<Options, Failure> {
    let last = req.keys.iter().max().copied().unwrap_or(0);
    let numkeys = req.keys.iter().filter(|&&at| at > 1).count().max(1);
    let mut found =
        Options { weights: Vec::new(), aggregate: Aggregate::Sum, with_scores: false, limit: 0 };
    let mut i = last + 1;
    while i < req.args.len() {
        if req.is(i, "weights") {
            let weights = req.rest(i + 1).take(numkeys).map(number::parse);
            found.weights = weights.collect::<Option<_>>().ok_or(Failure::WeightNotAFloat)?;
            if found.weights.len() < numkeys {
                return Err(Failure::Syntax);
            }
            i += numkeys + 1;
        } else if req.is(i, "aggregate") {
            found.aggregate = match () {
                () if req.is(i + 1, "sum") => Aggregate::Sum,
                () if req.is(i + 1, "min") => Aggregate::Min,
                () if req.is(i + 1, "max") => Aggregate::Max,
                () => return Err(Failure::Syntax),
            };
            i += 2;
        } else if req.is(i, "limit") {
            found.limit = strict_i64(req.arg(i + 1)).ok_or(Failure::Syntax)?;
            i += 2;
        } else if req.is(i, "withscores") {
            found.with_scores = true;
            i += 1;
        } else {
            return Err(Failure::Syntax);
        }
    }
    Ok(found)
}

fn limited(count: usize, options: &Options) -> i64 {
    match (count as i64, options.limit) {
        (count, 0) => count,
        (count, limit) => count.min(limit),
    }
}

/// Members and scores in a reply to `ZRANGE … WITHSCORES`, RESP2 or RESP3.
fn scored(reply: &[u8]) -> Vec<(&[u8], f64)> {
    let score = |frame: &[u8]| scalar(frame).and_then(number::parse).unwrap_or(0.0);
    let mut all = elements(reply);
    let mut members = Vec::new();
    while let Some(first) = all.next() {
        match scalar(first) {
            Some(member) => members.push((member, all.next().map_or(0.0, score))),
            None => {
                let mut pair = elements(first);
                if let (Some(member), Some(of)) = (pair.next().and_then(scalar), pair.next()) {
                    members.push((member, score(of)));
                }
            }
        }
    }
    members
}

/// Operations on sorted sets; plain sets count as sorted sets whose scores are 1.
pub(super) async fn sorted_sets(
    talk: Talk,
    req: Rc<Request>,
    op: Op,
    output: SetOutput,
) -> CommandResult {
    let (keys, of) = distinct(&req, output.first());
    let mut steps = Vec::new();
    for key in &keys {
        // The key is a set or a sorted set: one of the two replies is WRONGTYPE.
        steps.push(Step::one(key, &[b"ZRANGE", key, b"0", b"-1", b"WITHSCORES"]).anywhere());
        steps.push(Step::one(key, &[b"SMEMBERS", key]).anywhere());
    }
    steps.push(dry_run(&req));
    let replies = talk.ask(steps).await;
    let mut sources = Vec::new();
    for pair in replies.chunks_exact(2).take(keys.len()) {
        let [sorted, plain] = pair else { continue };
        let members = if !sorted.is_error() {
            scored(sorted.frame())
        } else if sorted.is_error_of("WRONGTYPE") && !plain.is_error() {
            elements(plain.frame()).filter_map(scalar).map(|member| (member, 1.0)).collect()
        } else {
            // Redis checks the types before it parses the options, so this error comes first.
            return Err(sorted.clone().into());
        };
        sources.push(members);
    }
    replies.last().map_or(Ok(()), check_arguments)?;
    let options = options(&req)?;
    let weights = options.weights.iter().copied().chain(std::iter::repeat(1.0));
    let all = of
        .iter()
        .zip(weights)
        .filter_map(|(&i, weight)| Some(WeightedSet { members: sources.get(i)?.clone(), weight }));
    let combined = algebra::sorted_sets(op, options.aggregate, all.collect());
    match output {
        SetOutput::Count => Ok(integer(limited(combined.len(), &options))),
        SetOutput::Members => Ok(shown(&combined, options.with_scores, req.protocol)),
        SetOutput::Store => {
            let scores: Vec<String> = combined.iter().map(|(_, s)| number::text(*s)).collect();
            let pairs = combined.iter().zip(&scores);
            let values: Vec<&[u8]> =
                pairs.flat_map(|((member, _), score)| [score.as_bytes(), *member]).collect();
            replace(&talk, &req, req.key(0), b"ZADD", &values, 2).await
        }
    }
}

fn shown(members: &[(&[u8], f64)], with_scores: bool, protocol: Protocol) -> Vec<u8> {
    let nested = with_scores && protocol == Protocol::Resp3;
    let mut frame = Vec::new();
    let per = if with_scores && !nested { 2 } else { 1 };
    write::array_header(&mut frame, members.len() * per);
    for (member, score) in members {
        if nested {
            write::array_header(&mut frame, 2);
        }
        write::bulk(&mut frame, member);
        if with_scores {
            number::reply(&mut frame, protocol, *score);
        }
    }
    frame
}

/// PFCOUNT.
pub(super) async fn hll_count(talk: Talk, req: Rc<Request>) -> CommandResult {
    let (keys, _) = distinct(&req, 0);
    let steps = keys.iter().map(|key| Step::one(key, &[b"GET", key]).anywhere()).collect();
    let mut merged = MergedRegisters::default();
    for reply in talk.ask(steps).await {
        reply.check()?;
        if let Some(string) = reply.scalar() {
            merged.add(string)?;
        }
    }
    Ok(integer(merged.count() as i64))
}

#[cfg(test)]
mod tests {
    use super::super::talk::testing::{FakeNode, drive, request};
    use super::*;
    use crate::errors::Halfway;

    #[test]
    fn parses_options_after_the_keys() {
        let req = request("ZUNION 2 a b WEIGHTS 2 -0.5 aggregate MAX WithScores", &[2, 3]);
        let found = options(&req).unwrap();
        assert_eq!(found.weights, [2.0, -0.5]);
        assert_eq!((found.aggregate, found.with_scores), (Aggregate::Max, true));
        let req = request("ZUNIONSTORE d 1 a WEIGHTS 3", &[1, 3]);
        assert_eq!(options(&req).unwrap().weights, [3.0]);
        let req = request("ZINTERCARD 2 a b LIMIT 7", &[2, 3]);
        assert_eq!(options(&req).unwrap().limit, 7);
        for (wrong, keys, failure) in [
            ("ZUNION 2 a b WEIGHTS 1", &[2, 3][..], Failure::Syntax),
            ("ZUNION 2 a b WEIGHTS 1 x", &[2, 3], Failure::WeightNotAFloat),
            ("ZUNION 1 a AGGREGATE x", &[2], Failure::Syntax),
            ("ZINTERCARD 1 a LIMIT x", &[2], Failure::Syntax),
            ("ZUNION 1 a NONSENSE", &[2], Failure::Syntax),
        ] {
            assert_eq!(options(&request(wrong, keys)), Err(failure), "{wrong}");
        }
    }

    #[test]
    fn union_and_store() {
        let node = FakeNode::new(&[
            ("SMEMBERS a", "*2\r\n$1\r\nx\r\n$1\r\ny\r\n"),
            ("SMEMBERS b", "*1\r\n$1\r\ny\r\n"),
            ("MULTI DEL d SADD d x y EXEC", "*2\r\n:0\r\n:2\r\n"),
        ]);
        let req = request("SUNIONSTORE d a b a", &[1, 2, 3, 4]);
        let reply = drive(req, &node, |t, r| sets(t, r, Op::Union, SetOutput::Store));
        assert_eq!(reply, ":2\r\n");
        let req = request("SINTER a b", &[1, 2]);
        let reply = drive(req, &node, |t, r| sets(t, r, Op::Inter, SetOutput::Members));
        assert_eq!(reply, "*1\r\n$1\r\ny\r\n");
        let wrong = FakeNode::new(&[("SMEMBERS a", "-WRONGTYPE x\r\n"), ("SMEMBERS b", "*0\r\n")]);
        let req = request("SDIFF b a", &[1, 2]);
        assert_eq!(
            drive(req, &wrong, |t, r| sets(t, r, Op::Diff, SetOutput::Members)),
            "-WRONGTYPE x\r\n"
        );
    }

    #[test]
    fn wrong_types_are_reported_before_options() {
        let node = FakeNode::new(&[
            ("ZRANGE a 0 -1 WITHSCORES", "*2\r\n$1\r\nx\r\n$1\r\n1\r\n"),
            ("SMEMBERS a", "-WRONGTYPE x\r\n"),
            ("ZRANGE b 0 -1 WITHSCORES", "-WRONGTYPE x\r\n"),
            ("SMEMBERS b", "-WRONGTYPE x\r\n"),
            ("ZUNION 2 NONE NONE NONSENSE", "-ERR syntax error\r\n"),
            ("ZUNION 1 NONE NONSENSE", "-ERR syntax error\r\n"),
        ]);
        let req = request("ZUNION 2 a b NONSENSE", &[2, 3]);
        let reply = drive(req, &node, |t, r| sorted_sets(t, r, Op::Union, SetOutput::Members));
        assert_eq!(reply, "-WRONGTYPE x\r\n");
        let req = request("ZUNION 1 a NONSENSE", &[2]);
        let reply = drive(req, &node, |t, r| sorted_sets(t, r, Op::Union, SetOutput::Members));
        assert_eq!(reply, "-ERR syntax error\r\n");
    }

    #[test]
    fn pfcount_rejects_other_strings() {
        let node = FakeNode::new(&[("GET a", "$-1\r\n"), ("GET b", "$4\r\ntext\r\n")]);
        assert_eq!(
            drive(request("PFCOUNT a b", &[1, 2]), &node, hll_count),
            "-WRONGTYPE Key is not a valid HyperLogLog string value.\r\n"
        );
        let corrupted = format!("$16\r\nHYLL\x01{}\r\n", "\0".repeat(11));
        let node = FakeNode::new(&[("GET a", "$-1\r\n"), ("GET b", &corrupted)]);
        assert_eq!(
            drive(request("PFCOUNT a b", &[1, 2]), &node, hll_count),
            "-INVALIDOBJ Corrupted HLL object detected\r\n"
        );
    }

    #[test]
    fn lost_read_of_a_source() {
        let node = FakeNode::new(&[("SMEMBERS a", "*0\r\n")]).losing("SMEMBERS b");
        let reply = drive(request("SUNION a b", &[1, 2]), &node, |t, r| {
            sets(t, r, Op::Union, SetOutput::Members)
        });
        let begins =
            "-ERR SUNION over several slots failed before anything was changed; the cause: ";
        assert!(reply.starts_with(begins), "{reply}");
        assert!(!reply.contains("may or may not"), "{reply}");
    }

    #[test]
    fn failed_write_of_the_target() {
        let sources = [("SMEMBERS a", "*0\r\n"), ("SMEMBERS b", "*1\r\n$1\r\ny\r\n")];
        let store = |node: &FakeNode| {
            let req = request("SUNIONSTORE d a b", &[1, 2, 3]);
            drive(req, node, |t, r| sets(t, r, Op::Union, SetOutput::Store))
        };
        let write = "MULTI DEL d SADD d y EXEC";
        let full = "-EXECABORT Transaction discarded because of: OOM x\r\n";
        let node = FakeNode::new(&[sources[0], sources[1], (write, full)]);
        assert_eq!(store(&node), "-OOM x\r\n");
        let node = FakeNode::new(&[sources[0], sources[1], (write, "*2\r\n:0\r\n-OOM x\r\n")]);
        assert_eq!(store(&node), "-OOM x\r\n");
        let node = FakeNode::new(&[sources[0], sources[1], (write, "*0\r\n")]);
        assert_eq!(store(&node), "-ERR a node answered EXEC with nothing\r\n");
        let reply = store(&FakeNode::new(&sources).losing(write));
        let done = Halfway::MayHaveWritten;
        let begins =
            format!("-OUTCOMEUNKNOWN SUNIONSTORE over several slots stopped halfway: {done} (");
        assert!(reply.starts_with(&begins), "{reply}");
    }
}
