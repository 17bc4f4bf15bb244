//! SLOWLOG and PROXY: reports of observed commands.

use crate::client::Question;
use crate::clients::Flow;
use crate::command::CommandId;
use crate::common::slow::{SHOWN, unknown};
use crate::dispatch::Dispatcher;
use crate::errors::Failure;
use crate::observe::KeyReport;
use crate::resp::{Args, strict_i64, write};
use crate::route::{Fan, Local, Merge, ReportMerge};

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

impl Dispatcher<'_> {
    /// Answers SLOWLOG or PROXY.
    pub(super) fn seen_command(
        &mut self,
        index: usize,
        command: CommandId,
        local: Local,
        args: &Args,
    ) -> Flow {
        let Some(client) = self.engine.clients.slab.get(index) else { return Flow::Stop };
        let protocol = client.session.protocol;
        let mut reply = Vec::new();
        if local == Local::SlowLog {
            self.engine.core.shared.slowlog(args, 1, None, &mut reply);
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
            self.engine.core.shared.slowlog(args, 2, Some(protocol), &mut reply);
        } else if args.is(1, "hotkeys") || args.is(1, "bigkeys") {
            match question(args) {
                Some(question) => {
                    return self.engine.clients.ask_everyone(
                        index,
                        command,
                        question,
                        &mut self.engine.core,
                    );
                }
                None => Failure::Syntax.write(&mut reply),
            }
        } else if args.is(1, "help") && args.len() == 2 {
            write::array_header(&mut reply, HELP.len());
            HELP.iter().for_each(|line| write::simple(&mut reply, line));
        } else {
            unknown(args, 1, "PROXY").write(&mut reply);
        }
        self.engine.core.stats.count_own(command, &reply);
        self.engine.clients.answer_plain(index, &reply, &mut self.engine.core);
        Flow::Next
    }
}

/// Parses PROXY HOTKEYS or BIGKEYS with `[COUNT n] [RESET]`. `None`: a syntax error.
fn question(args: &Args) -> Option<Question> {
    let what = if args.is(1, "hotkeys") { KeyReport::Hot } else { KeyReport::Big };
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

/// The command that is sent to the nodes for PROXY SLOWLOG NODES, and the merge of their replies.
/// `None`: a syntax error.
fn nodes_slowlog(args: &Args) -> Option<(Merge, Vec<u8>)> {
    let mut frame = Vec::new();
    let merge = match args.len() {
        4 if args.is(3, "len") => Merge::Sum,
        4 if args.is(3, "reset") => Merge::AllSucceeded,
        4 | 5 if args.is(3, "get") => {
            let count = args.get(4).map_or(Some(SHOWN), strict_i64)?;
            Merge::Report(ReportMerge::SlowLog(u32::try_from(count).ok()))
        }
        _ => return None,
    };
    let mut words: Vec<&[u8]> = vec![b"SLOWLOG"];
    words.extend((3..args.len()).filter_map(|i| args.get(i)));
    write::request(&mut frame, &words);
    Some((merge, frame))
}
