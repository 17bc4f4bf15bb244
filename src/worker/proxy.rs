//! SLOWLOG and PROXY: what was seen is told.

use super::Worker;
use super::downstream::Flow;
use super::seen::Seeing;
use super::state::{Core, Nodes};
use crate::client::Question;
use crate::command::CommandId;
use crate::errors::Failure;
use crate::resp::{Args, Protocol, strict_i64, write};
use crate::route::{Fan, Local, Merge, Server};
use crate::seen::{Kind, Seen, Shown, slow_reply};

/// Entries that SLOWLOG GET shows if it is not told, and keys that PROXY HOTKEYS does.
const SHOWN: i64 = 10;

impl Core {
    /// GET, LEN or RESET at argument `at`; with `more` where the time went.
    fn slowlog(&self, args: &Args, at: usize, more: Option<Protocol>, reply: &mut Vec<u8>) {
        let log = &self.shared.slow;
        let rest = args.len().saturating_sub(at + 1);
        if args.is(at, "get") && rest <= 1 {
            let count = match args.get(at + 1) {
                None => Some(SHOWN),
                Some(count) => strict_i64(count).filter(|count| *count >= -1),
            };
            match count {
                Some(-1) => slow_reply(&log.newest(usize::MAX), more, reply),
                Some(count) => slow_reply(&log.newest(count as usize), more, reply),
                None => Failure::CountTooSmall.write(reply),
            }
        } else if args.is(at, "len") && rest == 0 {
            write::integer(reply, log.len() as i64);
        } else if args.is(at, "reset") && rest == 0 {
            log.reset();
            write::simple(reply, "OK");
        } else {
            let container = if more.is_some() { "PROXY" } else { "SLOWLOG" };
            unknown(args, at, container).write(reply);
        }
    }
}

impl Nodes {
    /// All workers' answers as a reply.
    pub(super) fn write_seen(
        &self,
        (kind, count): (Kind, usize),
        mut seen: Seen,
        protocol: Protocol,
        reply: &mut Vec<u8>,
        core: &Core,
    ) {
        let shown = Shown { commands: core.router.table(), snapshot: &self.topology.snapshot };
        seen.hot.keys.truncate(count);
        seen.big.truncate(count);
        match kind {
            Kind::Hot => shown.hot_reply(&seen.hot.keys, protocol, reply),
            Kind::Big => shown.big_reply(&seen.big, protocol, reply),
        }
    }
}

impl Seeing {
    /// This worker's answer to PROXY HOTKEYS or BIGKEYS.
    pub(super) fn seen_for(&mut self, kind: Kind, reset: bool, core: &mut Core) -> Seen {
        let seen = self.copy(core.now);
        if reset {
            self.reset(kind, core.now);
        }
        seen
    }
}

impl Worker {
    /// SLOWLOG and PROXY.
    pub(super) fn seen_command(
        &mut self,
        index: usize,
        command: CommandId,
        local: Local,
        args: &Args,
    ) -> Flow {
        let Some(client) = self.clients.slab.get(index) else { return Flow::Stop };
        let protocol = client.session.protocol;
        let mut reply = Vec::new();
        if local == Local::SlowLog {
            self.core.slowlog(args, 1, None, &mut reply);
        } else if args.is(1, "slowlog") && args.is(2, "nodes") {
            match nodes_slowlog(args) {
                Some((merge, frame)) => {
                    let to = match merge {
                        Merge::AllSucceeded => Fan::Nodes,
                        _ => Fan::Answering,
                    };
                    return self.fan(index, command, to, merge, &frame);
                }
                None => Failure::Syntax.write(&mut reply),
            }
        } else if args.is(1, "slowlog") && args.len() > 2 {
            self.core.slowlog(args, 2, Some(protocol), &mut reply);
        } else if args.is(1, "hotkeys") || args.is(1, "bigkeys") {
            match question(args) {
                Some(question) => {
                    return self.clients.ask_everyone(index, command, question, &mut self.core);
                }
                None => Failure::Syntax.write(&mut reply),
            }
        } else if args.is(1, "help") && args.len() == 2 {
            write::array_header(&mut reply, HELP.len());
            HELP.iter().for_each(|line| write::simple(&mut reply, line));
        } else {
            unknown(args, 1, "PROXY").write(&mut reply);
        }
        self.core.count_own(command, &reply);
        self.clients.answer_plain(index, &reply, &mut self.core);
        Flow::Next
    }
}

const HELP: [&str; 13] = [
    "PROXY <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "HOTKEYS [COUNT <n>] [RESET]",
    "    Return the keys that are used most at the moment (default: 10), by sample;",
    "    with RESET they are forgotten then.",
    "BIGKEYS [COUNT <n>] [RESET]",
    "    Return the keys with the largest values seen in commands and replies.",
    "SLOWLOG GET [<count>] | LEN | RESET",
    "    As SLOWLOG, with the node and where the time went: queue, node, client.",
    "SLOWLOG NODES GET [<count>] | LEN | RESET",
    "    As SLOWLOG, of the nodes' own slow logs.",
    "HELP",
    "    Print this help.",
    "Slotway's documentation, docs/hot-and-slow.md, says what the fields mean.",
];

fn unknown(args: &Args, at: usize, container: &str) -> Failure {
    let sub = args.get(at).unwrap_or_default();
    let name = String::from_utf8_lossy(sub.get(..128).unwrap_or(sub)).into();
    Failure::UnknownSubcommandOrArity { name, container: container.into() }
}

/// `[COUNT n] [RESET]`
fn question(args: &Args) -> Option<Question> {
    let what = if args.is(1, "hotkeys") { Kind::Hot } else { Kind::Big };
    let (mut count, mut reset, mut i) = (SHOWN as usize, false, 2);
    while i < args.len() {
        if args.is(i, "count") {
            count = args.get(i + 1).and_then(strict_i64).and_then(|n| usize::try_from(n).ok())?;
            i += 2;
        } else if args.is(i, "reset") {
            reset = true;
            i += 1;
        } else {
            return None;
        }
    }
    Some(Question::Seen { what, count, reset })
}

/// What the nodes are sent for PROXY SLOWLOG NODES, and how their replies become one.
fn nodes_slowlog(args: &Args) -> Option<(Merge, Vec<u8>)> {
    let mut frame = Vec::new();
    let merge = match args.len() {
        4 if args.is(3, "len") => Merge::Sum,
        4 if args.is(3, "reset") => Merge::AllSucceeded,
        4 | 5 if args.is(3, "get") => {
            let count = args.get(4).map_or(Some(SHOWN), strict_i64)?;
            Merge::Server(Server::SlowLog(u32::try_from(count).ok()))
        }
        _ => return None,
    };
    let mut words: Vec<&[u8]> = vec![b"SLOWLOG"];
    words.extend((3..args.len()).filter_map(|i| args.get(i)));
    write::request(&mut frame, &words);
    Some((merge, frame))
}
