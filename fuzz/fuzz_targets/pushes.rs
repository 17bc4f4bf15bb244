//! What a node says on a subscription connection: whatever frames come, reading one panics never,
//! and what a message is said to hold stands in it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use slotway::channel::TopicKind;
use slotway::pubsub::{NodeFrame, read_push};
use slotway::resp::reply::error_text;
use slotway::resp::{ReplyProgress, ReplyScan};

fuzz_target!(|input: &[u8]| {
    // As it is, though it may be cut off; the hub gives only whole frames.
    let _ = read_push(input);
    let mut rest = input;
    while let Ok(ReplyProgress::Complete(n)) = ReplyScan::default().advance(rest) {
        let (frame, behind) = rest.split_at(n);
        look(frame);
        rest = behind;
    }
});

fn look(frame: &[u8]) {
    match read_push(frame) {
        Some(NodeFrame::Message { kind, name, channel, at, payload }) => {
            assert_eq!(frame[at], b'$');
            let from = frame[at..].windows(2).position(|w| w == b"\r\n").expect("a line") + at + 2;
            assert_eq!(&frame[from..from + channel.len()], channel);
            assert!(from + channel.len() + payload.len() <= frame.len());
            assert!(kind == TopicKind::Pattern || name == channel);
        }
        Some(NodeFrame::Changed { name, .. }) => assert!(name.len() < frame.len()),
        Some(NodeFrame::Error(text)) => assert_eq!(Some(text), error_text(frame)),
        Some(NodeFrame::Reply) => assert_ne!(frame.first(), Some(&b'>')),
        Some(NodeFrame::Other) | None => {}
    }
}
