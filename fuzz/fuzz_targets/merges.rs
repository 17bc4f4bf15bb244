//! Partial replies: whatever replies the parts of a command gave, their merge is exactly one
//! reply. One that is more or less than that would give every later reply to the wrong command.
#![no_main]

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use slotway::errors::Cause;
use slotway::resp::reply::text;
use slotway::resp::{Protocol, ReplyProgress, ReplyScan};
use slotway::route::{Gather, Merge, merge_info};

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    merge: u8,
    resp3: bool,
    /// For MGET and the like: the keys of each part.
    keys: u8,
    /// The replies, one after the other.
    stream: &'a [u8],
}

const MERGES: [Merge; 10] = [
    Merge::Array,
    Merge::Concat,
    Merge::Sum,
    Merge::Min,
    Merge::Max,
    Merge::And,
    Merge::Or,
    Merge::AllSucceeded,
    Merge::OneSucceeded,
    Merge::Info { proxy: true },
];

fuzz_target!(|input: Input| {
    let mut frames: Vec<&[u8]> = Vec::new();
    let mut rest = input.stream;
    while let Ok(ReplyProgress::Complete(n)) = ReplyScan::default().advance(rest) {
        frames.push(&rest[..n]);
        rest = &rest[n..];
    }
    if frames.is_empty() {
        return;
    }
    let merge = MERGES[usize::from(input.merge) % MERGES.len()];
    let protocol = if input.resp3 { Protocol::Resp3 } else { Protocol::Resp2 };
    let per_part = u32::from(input.keys % 4);
    let mut gather = Gather::default();
    gather.start(merge, protocol);
    for part in 0..frames.len() as u32 {
        if merge == Merge::Array {
            for key in 0..per_part {
                // Every part has its keys in reverse; the parts are in order.
                gather.expect_key(part * per_part + (per_part - 1 - key));
            }
        }
        gather.expect();
    }
    for (part, frame) in frames.iter().enumerate() {
        let last = match frame[0] {
            b'-' | b'!' => gather.fail(format!("node{part}"), Cause::node(frame)),
            _ => gather.add(part as u32 * per_part, frame),
        };
        assert_eq!(last, part + 1 == frames.len());
    }
    let mut out = Vec::new();
    match gather.finish(&mut out, "7") {
        Ok(()) => assert!(!matches!(out.first(), Some(b'-' | b'!'))),
        Err(cause) => {
            assert!(out.is_empty(), "an error behind a part of a reply");
            cause.write(&mut out);
            assert!(matches!(out.first(), Some(b'-' | b'!')));
        }
    }
    one_reply(&out);

    let texts: Vec<&[u8]> = frames.iter().filter_map(|frame| text(frame)).collect();
    merge_info(&texts, None);
});

/// Its end is where the bytes end, and no line end stands where a reader would not expect one.
fn one_reply(out: &[u8]) {
    let shown = String::from_utf8_lossy(out);
    assert_eq!(
        ReplyScan::default().advance(out),
        Ok(ReplyProgress::Complete(out.len())),
        "{shown:?}"
    );
}
