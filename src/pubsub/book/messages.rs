//! Published messages: accepted or not, and passed to the workers in runs. HOT PATH for every
//! message; consecutive messages of one topic become one [`Frames`](crate::pubsub::Frames) and cost one lookup.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use super::entries::Entries;
use super::workers::Workers;
use super::{Book, Class, Entry, SubState};
use crate::channel::{TopicKind, glob};
use crate::cluster::UpstreamId;
use crate::resp::write;

/// A run ends at this many bytes; a larger message is a run of its own.
const MAX_RUN: usize = 64 << 10;

/// Consecutive messages of one topic in the bytes read from a node.
#[derive(Debug)]
pub struct Run {
    open: bool,
    node: usize,
    /// The entry; then which messages it accepts from this node.
    at: usize,
    everywhere: bool,
    takes_notifications: bool,
    takes_others: bool,
    own: bool,
    /// The message also comes over the cluster bus, so it may be an echo.
    bus: bool,
    /// Messages are held back: see `former`.
    held: bool,
    kind: TopicKind,
    start: usize,
    end: usize,
    starts: Vec<u32>,
    read: [u64; TopicKind::COUNT],
    ignored: u64,
    /// Broad topics have messages in [`super::Entry::made`].
    made: bool,
}

impl Default for Run {
    fn default() -> Self {
        Run {
            open: false,
            node: 0,
            at: 0,
            everywhere: false,
            takes_notifications: false,
            takes_others: false,
            own: false,
            bus: false,
            held: false,
            kind: TopicKind::Channel,
            start: 0,
            end: 0,
            starts: Vec::new(),
            read: [0; TopicKind::COUNT],
            ignored: 0,
            made: false,
        }
    }
}

impl Run {
    /// Looks up the topic of a message, and which messages it accepts from this node.
    fn open(&mut self, node: usize, of: UpstreamId, message: &Message<'_>, entries: &Entries) {
        self.open = false;
        (self.everywhere, self.takes_others) = (false, false);
        let Some(at) = entries.named(of, message.kind, message.name) else { return };
        let Some(entry) = entries.get(at) else { return };
        let sub = entry.subs.iter().find(|s| s.node == node && s.state == SubState::Confirmed);
        self.open = true;
        self.node = node;
        self.at = at;
        self.kind = message.kind;
        let heard = entry.home == Some(node) || entry.is_former(node);
        self.takes_others = sub.is_some() && heard;
        self.everywhere = entry.topic.everywhere;
        let narrow = matches!(entry.class, Class::Narrow { .. });
        self.takes_notifications = narrow && sub.is_some_and(|s| s.notifies);
        self.own = entries.is_own(at);
        self.bus = !matches!(entry.class, Class::Narrow { .. });
        self.held = entry.is_held(node);
    }
}

/// A parsed message.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    /// The kind of subscription.
    pub kind: TopicKind,
    /// The subscribed channel or pattern.
    pub name: &'a [u8],
    /// The channel to which the message was published.
    pub channel: &'a [u8],
    /// Offset of the channel's bulk string in the frame.
    pub at: usize,
}

impl Book {
    /// Handles a message from `node`, at `start..end` of `buf`.
    #[inline]
    pub fn message(
        &mut self,
        node: usize,
        buf: &[u8],
        (start, end): (usize, usize),
        message: Message<'_>,
        run: &mut Run,
    ) {
        run.read[message.kind as usize] += 1;
        let same = run.open
            && run.end == start
            && run.kind == message.kind
            && run.node == node
            && self.entries.get(run.at).is_some_and(|e| *e.topic.name == *message.name);
        if !same {
            self.flush(buf, run);
            let of = self.nodes.get(node).map_or(UpstreamId::FIRST, |node| node.upstream);
            run.open(node, of, &message, &self.entries);
            (run.start, run.end) = (start, start);
        }
        let notification = run.everywhere && glob::is_notification(message.channel);
        let mut takes = if notification { run.takes_notifications } else { run.takes_others };
        if takes && run.held {
            self.flush(buf, run);
            (run.start, run.end) = (end, end);
            self.formers().hold(run.at, buf.get(start..end).unwrap_or_default());
            run.held = self.entries.get(run.at).is_some_and(|e| e.is_held(node));
            return;
        }
        if takes && run.bus {
            let frame = buf.get(start..end).unwrap_or_default();
            let now = self.now;
            let node = run.node;
            takes = !self.entries.get_mut(run.at).is_some_and(|e| e.echo.is_echo(node, frame, now));
        }
        if !takes {
            run.ignored += 1;
            self.flush(buf, run);
            (run.start, run.end) = (end, end);
            return;
        }
        if run.own {
            let frame = buf.get(start..end).unwrap_or_default();
            let of = self.entries.get(run.at).map_or(UpstreamId::FIRST, |e| e.topic.of);
            self.match_broad(of, frame, &message);
            run.made = true;
        }
        if end - run.start > MAX_RUN {
            self.flush(buf, run);
            run.start = start;
        }
        run.starts.push((start - run.start) as u32);
        run.end = end;
    }

    /// Passes the run on; required before any other event is handled.
    #[inline]
    pub fn flush(&mut self, buf: &[u8], run: &mut Run) {
        if run.starts.is_empty() {
            return;
        }
        let bytes = buf.get(run.start..run.end).unwrap_or_default();
        let listeners =
            self.entries.get(run.at).map_or(&[][..], |entry| entry.listeners.as_slice());
        let heard = self.workers.deliver(listeners, bytes, &run.starts, &self.stats.held);
        if !heard && !run.own {
            run.ignored += run.starts.len() as u64;
        }
        run.starts.clear();
        run.start = run.end;
    }

    /// Ends the handling of the bytes read from a node.
    pub fn end_read(&mut self, buf: &[u8], run: &mut Run) {
        self.flush(buf, run);
        run.open = false;
        for (total, read) in self.stats.messages.iter().zip(&mut run.read) {
            total.fetch_add(std::mem::take(read), Relaxed);
        }
        self.stats.ignored.fetch_add(std::mem::take(&mut run.ignored), Relaxed);
        if std::mem::take(&mut run.made) {
            self.entries.each_broad(|e| e.flush_made(&mut self.workers, &self.stats.held));
        }
    }

    /// Copies a notification to the broad patterns that match it, with their name in its frame.
    fn match_broad(&mut self, of: UpstreamId, frame: &[u8], message: &Message<'_>) {
        self.entries.each_broad(|entry| {
            if entry.topic.of != of || !glob::matches(&entry.topic.name, message.channel) {
                return;
            }
            entry.starts.push(entry.made.len() as u32);
            write::header(&mut entry.made, b'>', 4);
            write::bulk(&mut entry.made, b"pmessage");
            write::bulk(&mut entry.made, &entry.topic.name);
            entry.made.extend_from_slice(frame.get(message.at..).unwrap_or_default());
            if entry.made.len() >= MAX_RUN {
                entry.flush_made(&mut self.workers, &self.stats.held);
            }
        });
    }
}

impl Entry {
    /// Passes on the messages that were rewritten for this broad topic.
    fn flush_made(&mut self, workers: &mut Workers, held: &Arc<AtomicUsize>) {
        if self.starts.is_empty() {
            return;
        }
        workers.deliver(&self.listeners, &self.made, &self.starts, held);
        if self.made.capacity() > 2 * MAX_RUN {
            self.made = Vec::new();
        }
        self.made.clear();
        self.starts.clear();
    }
}

impl Drop for Book {
    /// Shows everyone who still holds a topic that nothing is subscribed any more.
    fn drop(&mut self) {
        for (_, entry) in self.entries.iter() {
            entry.topic.set_live(false);
            entry.topic.set_home(0);
            entry.topic.set_upstream(0);
        }
    }
}
