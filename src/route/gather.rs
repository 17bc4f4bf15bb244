//! Merging the partial replies of one command.

use super::behaviour::Merge;
use super::info::ProxyInfo;
use super::pubsub::PubSubQuery;
use super::scan::{Scan, ScanRequest};
use crate::buf::{CHUNK, with_copy};
use crate::dest::NodeId;
use crate::errors::{Cause, Code, Failure};
use crate::resp::reply::{element_count, elements, integer, text};
use crate::resp::{Protocol, write};

/// Collects the replies of a command that went to several slots or nodes. Reusable; allocates
/// nothing in the steady state.
#[derive(Debug)]
pub struct Gather {
    merge: Merge,
    protocol: Protocol,
    parts: u32,
    left: u32,
    /// For [`Merge::Array`]: the position of each key in the request, ordered by part.
    order: Vec<u32>,
    /// For [`Merge::Array`]: the range in `bytes` of each key's element, by position of the key.
    /// Otherwise: the ranges of the replies, in order of arrival.
    spans: Vec<(usize, usize)>,
    /// The node of each span, for merges that depend on it.
    from: Vec<(NodeId, String)>,
    /// For [`Merge::Scan`].
    scan: Option<(Scan, ScanRequest)>,
    /// For [`Merge::Info`].
    info: Option<Box<ProxyInfo>>,
    bytes: Vec<u8>,
    /// Large replies, copied only once. Their spans start at [`LARGE`] + their index.
    large: Vec<Vec<u8>>,
    /// Total size of `large`, in bytes.
    large_bytes: usize,
    number: Option<i64>,
    /// Name and error of each failed part.
    failed: Vec<(String, Cause)>,
    succeeded: u32,
    /// The command changes nothing, so the error need not mention the parts that succeeded.
    only_reads: bool,
}

impl Default for Gather {
    fn default() -> Self {
        Gather {
            merge: Merge::AllSucceeded,
            protocol: Protocol::Resp2,
            parts: 0,
            left: 0,
            order: Vec::new(),
            spans: Vec::new(),
            from: Vec::new(),
            scan: None,
            info: None,
            bytes: Vec::new(),
            large: Vec::new(),
            large_bytes: 0,
            number: None,
            failed: Vec::new(),
            succeeded: 0,
            only_reads: false,
        }
    }
}

/// Spans from here on refer to [`Gather::large`].
const LARGE: usize = usize::MAX / 2;

impl Gather {
    /// Starts over. Parts are announced by [`Gather::expect`].
    pub fn start(&mut self, merge: Merge, protocol: Protocol) {
        self.merge = merge;
        self.protocol = protocol;
        self.parts = 0;
        self.left = 0;
        if self.order.capacity() > 4096 {
            self.order = Vec::new();
            self.spans = Vec::new();
        }
        self.order.clear();
        self.spans.clear();
        self.from.clear();
        self.scan = None;
        self.info = None;
        if self.bytes.capacity() > CHUNK {
            self.bytes = Vec::new();
        }
        self.bytes.clear();
        self.large = Vec::new();
        self.large_bytes = 0;
        self.number = None;
        self.failed.clear();
        self.succeeded = 0;
        self.only_reads = matches!(merge, Merge::Info { .. });
    }

    /// Marks the command as read-only: if all failed parts have the same error, that is the reply.
    pub fn set_only_reads(&mut self, only_reads: bool) {
        self.only_reads |= only_reads;
    }

    /// Announces one more part.
    pub fn expect(&mut self) {
        self.parts += 1;
        self.left += 1;
    }

    /// Number of parts.
    pub fn parts(&self) -> u32 {
        self.parts
    }

    /// For [`Merge::Array`]: the next element of the part being announced belongs to the key at
    /// this position of the request. Returns the index to pass to [`Gather::add`] as `first`.
    pub fn expect_key(&mut self, position: u32) -> u32 {
        self.order.push(position);
        self.spans.push((0, 0));
        (self.order.len() - 1) as u32
    }

    /// The next result of [`Gather::expect_key`].
    pub fn next_key(&self) -> u32 {
        self.order.len() as u32
    }

    /// Whether the command is INFO: [`Gather::set_info`] is required before [`Gather::finish`].
    pub fn wants_info(&self) -> bool {
        matches!(self.merge, Merge::Info { .. })
    }

    /// Sets slotway's part of INFO.
    pub fn set_info(&mut self, mut info: ProxyInfo) {
        if self.merge == (Merge::Info { proxy: false }) {
            info.section.clear();
        }
        self.info = Some(Box::new(info));
    }

    /// Sets the state of the scan, for [`Merge::Scan`].
    pub fn set_scan(&mut self, scan: Scan, request: ScanRequest) {
        self.scan = Some((scan, request));
    }

    /// The client's request, for [`Merge::Scan`].
    pub fn scan_request(&self) -> Option<&ScanRequest> {
        self.scan.as_ref().map(|(_, request)| request)
    }

    /// Whether the scan may continue: no part failed and fewer keys were found than asked for.
    pub fn can_continue_scan(&self) -> bool {
        let Some((_, request)) = &self.scan else { return false };
        let found: u64 = self.scanned_keys().filter_map(element_count).sum();
        self.failed.is_empty() && found < request.count && self.parts < MAX_SHARDS
    }

    /// Adds `scan` to the same reply.
    pub fn continue_scan(&mut self, scan: Scan) {
        if let Some((current, _)) = &mut self.scan {
            *current = scan;
        }
    }

    /// The lists of keys in the replies to SCAN.
    fn scanned_keys(&self) -> impl Iterator<Item = &[u8]> + Clone {
        self.spans().filter_map(|reply| elements(reply).nth(1))
    }

    /// The last scan, the node that answered, and the cursor that it returned.
    pub fn scanned(&self) -> Option<(Scan, NodeId, u64)> {
        let cursor = elements(self.spans().next_back()?).next().and_then(text)?;
        let cursor = std::str::from_utf8(cursor).ok()?.parse().ok()?;
        Some((self.scan.as_ref()?.0, self.from.last()?.0, cursor))
    }

    /// Fails the command with this error.
    pub fn refuse(&mut self, failure: Failure) {
        self.succeeded = 0;
        self.failed.push((String::new(), failure.into()));
    }

    /// Whether each [`Gather::add`] requires [`Gather::answered_by`] before it.
    pub fn wants_nodes(&self) -> bool {
        matches!(self.merge, Merge::Scan | Merge::Report(_))
    }

    /// Sets the node that sent the next reply, and its name.
    pub fn answered_by(&mut self, node: NodeId, name: String) {
        self.from.push((node, name));
    }

    /// The PUBSUB query, if no part failed: [`PubSubQuery::merge`] makes the reply.
    pub fn asked(&self) -> Option<PubSubQuery> {
        match self.merge {
            Merge::PubSub(ask) if self.failed.is_empty() => Some(ask),
            _ => None,
        }
    }

    /// The replies, in order of arrival.
    pub fn replies(&self) -> impl Iterator<Item = &[u8]> {
        self.spans()
    }

    /// The protocol in which the parts were sent.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Bytes held.
    pub fn memory(&self) -> usize {
        const SPAN: usize = size_of::<(usize, usize)>();
        with_copy(self.bytes.capacity(), self.bytes.len())
            + self.large_bytes
            + self.order.capacity() * size_of::<u32>()
            + with_copy(self.spans.capacity() * SPAN, self.spans.len() * SPAN)
    }

    /// Adds the reply of a part, not an error; `first` is the index of its first key. Returns
    /// whether no part is outstanding.
    pub fn add(&mut self, first: u32, frame: &[u8]) -> bool {
        self.succeeded += 1;
        match self.merge {
            Merge::Array => self.add_elements(first, frame),
            // WAITAOF replies with an array of two numbers.
            Merge::Min if element_count(frame).is_some() => {
                let span = self.keep(frame);
                self.spans.push(span);
            }
            Merge::Sum | Merge::Min | Merge::Max => self.add_number(frame),
            Merge::And | Merge::Or if integer(frame).is_some() => self.add_number(frame),
            Merge::AllSucceeded | Merge::OneSucceeded if !self.spans.is_empty() => {}
            Merge::Concat if matches!(frame, b"*-1\r\n" | b"$-1\r\n" | b"_\r\n") => {}
            Merge::Concat if !self.joins(frame) => {
                self.failed.push((String::new(), Failure::NotAList.into()));
            }
            _ => {
                let span = self.keep(frame);
                self.spans.push(span);
            }
        }
        self.done()
    }

    /// Records the failure of a part at `node`. Returns whether no part is outstanding.
    pub fn fail(&mut self, node: String, cause: Cause) -> bool {
        self.failed.push((node, cause));
        self.done()
    }

    fn done(&mut self) -> bool {
        self.left = self.left.saturating_sub(1);
        self.left == 0
    }

    fn keep(&mut self, bytes: &[u8]) -> (usize, usize) {
        if bytes.len() > CHUNK {
            self.large.push(bytes.to_vec());
            self.large_bytes += bytes.len();
            let at = LARGE + self.large.len() - 1;
            return (at, at);
        }
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        (start, self.bytes.len())
    }

    fn add_elements(&mut self, first: u32, frame: &[u8]) {
        for (at, element) in (first as usize..).zip(elements(frame)) {
            let span = self.keep(element);
            let position = self.order.get(at).copied().unwrap_or(u32::MAX) as usize;
            if let Some(slot) = self.spans.get_mut(position) {
                *slot = span;
            }
        }
    }

    fn add_number(&mut self, frame: &[u8]) {
        let Some(n) = integer(frame) else {
            self.failed.push((String::new(), Failure::NotANumber.into()));
            return;
        };
        self.number = Some(match (self.number, self.merge) {
            (None, _) => n,
            (Some(sum), Merge::Sum) => sum.saturating_add(n),
            (Some(least), Merge::Min) => least.min(n),
            (Some(most), Merge::Max) => most.max(n),
            (Some(all), Merge::And) => i64::from(all != 0 && n != 0),
            (Some(any), _) => i64::from(any != 0 || n != 0),
        });
    }

    /// Whether a list can be appended to those before it: maps to maps only.
    fn joins(&self, frame: &[u8]) -> bool {
        let pairs = |frame: &[u8]| frame.first() == Some(&b'%');
        element_count(frame).is_some()
            && self.spans().next().is_none_or(|first| pairs(first) == pairs(frame))
    }

    fn spans(&self) -> impl DoubleEndedIterator<Item = &[u8]> + Clone {
        self.spans.iter().map(|&(from, to)| match from.checked_sub(LARGE) {
            None => self.bytes.get(from..to).unwrap_or_default(),
            Some(at) => self.large.get(at).map(Vec::as_slice).unwrap_or_default(),
        })
    }

    /// Appends the merged reply to `out`; `cursor` is the client's next one ([`Merge::Scan`]).
    ///
    /// # Errors The error in place of the reply; nothing was appended.
    pub fn finish(&self, out: &mut Vec<u8>, cursor: &str) -> Result<(), Cause> {
        let enough = match self.merge {
            Merge::OneSucceeded => self.succeeded > 0,
            Merge::Report(server) if server.tolerates_failures() => self.succeeded > 0,
            _ => self.failed.is_empty(),
        };
        if !enough {
            return Err(self.failure());
        }
        match self.merge {
            Merge::Array => {
                write::array_header(out, self.spans.len());
                for element in self.spans() {
                    let null: &[u8] =
                        if self.protocol == Protocol::Resp3 { b"_\r\n" } else { b"$-1\r\n" };
                    out.extend_from_slice(if element.is_empty() { null } else { element });
                }
            }
            Merge::Min if self.number.is_none() => self.write_by_element(out),
            Merge::Sum | Merge::Min | Merge::Max => {
                write::integer(out, self.number.unwrap_or_default());
            }
            Merge::And | Merge::Or => match self.number {
                Some(n) => write::integer(out, n),
                None => self.write_by_element(out),
            },
            Merge::AllSucceeded | Merge::OneSucceeded => {
                out.extend_from_slice(self.spans().next().unwrap_or(b"+OK\r\n"));
            }
            Merge::Filtered(filter) => {
                filter.write(self.spans().next().unwrap_or_default(), out);
            }
            Merge::PubSub(ask) => ask.merge(self.spans(), |_, _| Default::default(), out),
            Merge::Concat => self.write_concatenated(out),
            Merge::Info { .. } => {
                let texts: Vec<&[u8]> = self.spans().filter_map(text).collect();
                let merged = super::merge_info(&texts, self.info.as_deref());
                write::verbatim(out, self.protocol, &merged);
            }
            Merge::Scan => {
                write::array_header(out, 2);
                write::bulk(out, cursor.as_bytes());
                write_lists(out, b'*', self.scanned_keys());
            }
            Merge::Report(server) => {
                let name = |i: usize| self.from.get(i).map_or("a node", |(_, name)| name.as_str());
                let parts: Vec<(&str, &[u8])> =
                    self.spans().enumerate().map(|(i, reply)| (name(i), reply)).collect();
                server.merge(&parts, self.protocol, out);
            }
        }
        Ok(())
    }

    fn write_by_element(&self, out: &mut Vec<u8>) {
        let mut merged: Vec<i64> = Vec::new();
        for reply in self.spans() {
            let numbers = elements(reply).map(|e| integer(e).unwrap_or_default());
            if merged.is_empty() {
                merged.extend(numbers);
                continue;
            }
            for (a, b) in merged.iter_mut().zip(numbers) {
                *a = match self.merge {
                    Merge::Min => (*a).min(b),
                    Merge::And => i64::from(*a != 0 && b != 0),
                    _ => i64::from(*a != 0 || b != 0),
                };
            }
        }
        write::array_header(out, merged.len());
        for n in merged {
            write::integer(out, n);
        }
    }

    fn write_concatenated(&self, out: &mut Vec<u8>) {
        let kind = self.spans().next().and_then(|r| r.first().copied()).unwrap_or(b'*');
        write_lists(out, kind, self.spans());
    }

    /// The command's error: the nodes' own if all parts failed with the same error, or all failed
    /// parts did and the command only reads; otherwise one that names the failed parts, with the
    /// code of an unknown outcome if any part has it, else the first code other than `ERR`.
    fn failure(&self) -> Cause {
        let Some((_, first)) = self.failed.first() else { return Failure::NoReply.into() };
        let is_whole = self.succeeded == 0 || self.only_reads;
        if is_whole && self.failed.iter().all(|(_, cause)| cause == first) {
            return first.clone();
        }
        // Equal errors are shown once, after the names of all nodes that sent them.
        let mut errors: Vec<(&Cause, Vec<&str>)> = Vec::new();
        for (node, cause) in &self.failed {
            if let Some((_, nodes)) = errors.iter_mut().find(|(known, _)| *known == cause) {
                nodes.push(node.as_str());
            } else if errors.len() < MAX_ERRORS {
                errors.push((cause, vec![node.as_str()]));
            }
        }
        let unknown = self.failed.iter().any(|(_, cause)| cause.is_outcome_unknown());
        let code = match unknown {
            true => Code::OutcomeUnknown,
            false => {
                let mut codes = errors.iter().map(|(cause, _)| cause.code());
                codes.find(|code| *code != Code::Err).unwrap_or(Code::Err)
            }
        };
        let mut which = String::new();
        let mut named = 0;
        for (i, (cause, nodes)) in errors.iter().enumerate() {
            let shown = nodes.get(..MAX_NAMES).unwrap_or(nodes);
            named += shown.len();
            which.push_str(if i == 0 { ": " } else { "; " });
            which.push_str(&format!("{}: {}", shown.join(", "), cause.error()));
        }
        if named < self.failed.len() {
            which.push_str(&format!("; and {} more", self.failed.len() - named));
        }
        if self.succeeded > 0 && matches!(self.merge, Merge::AllSucceeded | Merge::Max) {
            which.push_str(&format!("; the other {} succeeded", self.succeeded));
        }
        Failure::PartsFailed { code, failed: self.failed.len(), parts: self.parts, which }.into()
    }
}

/// Different errors shown in one error reply.
const MAX_ERRORS: usize = 8;
/// Nodes named for each of them.
const MAX_NAMES: usize = 16;
/// Shards in one reply to SCAN. Clusters rarely have more; it also ends a scan that is redirected
/// again and again while slots move.
const MAX_SHARDS: u32 = 100;

/// Writes several lists as one.
fn write_lists<'a>(out: &mut Vec<u8>, kind: u8, lists: impl Iterator<Item = &'a [u8]> + Clone) {
    let total: u64 = lists.clone().filter_map(element_count).sum();
    write::header(out, kind, total as usize);
    for list in lists {
        // After its first line an aggregate consists of exactly its elements.
        let body = memchr::memchr(b'\n', list).and_then(|end| list.get(end + 1..));
        if element_count(list).is_some() {
            out.extend_from_slice(body.unwrap_or_default());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gather(merge: Merge, parts: &[&str]) -> String {
        let mut g = Gather::default();
        g.start(merge, Protocol::Resp2);
        parts.iter().for_each(|_| g.expect());
        for (i, part) in parts.iter().enumerate() {
            let last = match part.starts_with('-') {
                true => g.fail(format!("node{i}"), Cause::node(part.as_bytes())),
                false => g.add(0, part.as_bytes()),
            };
            assert_eq!(last, i + 1 == parts.len());
        }
        let mut out = Vec::new();
        if let Err(cause) = g.finish(&mut out, "") {
            cause.write(&mut out);
        }
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn numbers() {
        assert_eq!(gather(Merge::Sum, &[":1\r\n", ":2\r\n", ":39\r\n"]), ":42\r\n");
        assert_eq!(gather(Merge::Min, &[":3\r\n", ":2\r\n"]), ":2\r\n");
        assert_eq!(
            gather(Merge::Min, &["*2\r\n:1\r\n:0\r\n", "*2\r\n:0\r\n:2\r\n"]),
            "*2\r\n:0\r\n:0\r\n"
        );
        assert_eq!(gather(Merge::And, &[":1\r\n", ":0\r\n"]), ":0\r\n");
        assert_eq!(
            gather(Merge::And, &["*2\r\n:1\r\n:1\r\n", "*2\r\n:0\r\n:1\r\n"]),
            "*2\r\n:0\r\n:1\r\n"
        );
    }

    #[test]
    fn concatenates_lists() {
        assert_eq!(
            gather(Merge::Concat, &["*1\r\n$1\r\na\r\n", "*0\r\n", "*2\r\n:1\r\n:2\r\n"]),
            "*3\r\n$1\r\na\r\n:1\r\n:2\r\n"
        );
    }

    #[test]
    fn elements_are_in_the_order_of_the_keys() {
        let mut g = Gather::default();
        g.start(Merge::Array, Protocol::Resp2);
        let first_part = g.expect_key(2);
        g.expect_key(0);
        g.expect();
        let second_part = g.expect_key(1);
        g.expect();
        assert!(!g.add(second_part, b"*1\r\n$-1\r\n"));
        assert!(g.add(first_part, b"*2\r\n$1\r\nc\r\n$1\r\na\r\n"));
        let mut out = Vec::new();
        g.finish(&mut out, "").unwrap();
        assert_eq!(out, b"*3\r\n$1\r\na\r\n$-1\r\n$1\r\nc\r\n");
    }

    #[test]
    fn failures_name_the_nodes() {
        assert_eq!(gather(Merge::AllSucceeded, &["-OOM x\r\n", "-OOM x\r\n"]), "-OOM x\r\n");
        assert_eq!(
            gather(Merge::AllSucceeded, &["+OK\r\n", "-OOM x\r\n"]),
            "-OOM 1 of 2 parts failed: node1: OOM x; the other 1 succeeded\r\n"
        );
        assert_eq!(
            gather(Merge::Sum, &["-ERR a\r\n", ":1\r\n", "-X b\r\n", "-ERR a\r\n"]),
            "-X 3 of 4 parts failed: node0, node3: ERR a; node2: X b\r\n"
        );
        let many: Vec<&str> = std::iter::repeat_n("-ERR a\r\n", 20).chain([":1\r\n"]).collect();
        assert!(gather(Merge::Sum, &many).ends_with("node15: ERR a; and 4 more\r\n"));
        assert_eq!(gather(Merge::OneSucceeded, &["-NOTBUSY x\r\n", "+OK\r\n"]), "+OK\r\n");
        let mut g = Gather::default();
        g.start(Merge::Sum, Protocol::Resp2);
        g.set_only_reads(true);
        (0..3).for_each(|_| g.expect());
        g.add(0, b":1\r\n");
        for _ in 0..2 {
            g.fail("node".into(), Cause::node(b"-BUSY x\r\n"));
        }
        assert_eq!(g.finish(&mut Vec::new(), "").unwrap_err().error(), "BUSY x");
    }

    #[test]
    fn a_part_whose_outcome_is_unknown_makes_the_whole_unknown() {
        let mut g = Gather::default();
        g.start(Merge::AllSucceeded, Protocol::Resp2);
        (0..3).for_each(|_| g.expect());
        g.fail("node0".into(), Cause::node(b"-OOM x\r\n"));
        g.add(0, b"+OK\r\n");
        let lost = Failure::ConnectionLost { node: "node2".into(), why: "y".into() };
        g.fail("node2".into(), lost.into());
        let cause = g.finish(&mut Vec::new(), "").unwrap_err();
        assert!(cause.is_outcome_unknown());
        let error = cause.error();
        assert!(error.starts_with("OUTCOMEUNKNOWN 2 of 3 parts failed: node0: OOM x; node2: "));
        assert!(error.ends_with("; the other 1 succeeded"), "{error}");
    }
}
