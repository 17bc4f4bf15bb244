//! Replies: any cut of the input into pieces ends them at the same places, the elements of one are
//! its bytes, and no look at one panics.
#![no_main]

use libfuzzer_sys::fuzz_target;
use slotway::resp::reply::{element_count, elements, error_text, integer, text};
use slotway::resp::{ReplyError, ReplyProgress, ReplyScan};

fuzz_target!(|input: &[u8]| {
    // The first byte is the number of cuts, which stand between it and the bytes.
    let Some((&count, rest)) = input.split_first() else { return };
    let (cuts, bytes) = rest.split_at(usize::from(count % 32).min(rest.len()));
    let whole = ends(bytes, &[]);
    assert_eq!(whole, ends(bytes, cuts));
    let mut from = 0;
    for &to in &whole.0 {
        look(&bytes[from..to]);
        from = to;
    }
    // Whoever looks does it at a frame that was found to be complete; but who knows.
    let _ = elements(bytes).count();
    let _ = (integer(bytes), text(bytes), error_text(bytes), element_count(bytes));
});

/// Where the replies of `input` end, when it arrives in pieces.
fn ends(input: &[u8], cuts: &[u8]) -> (Vec<usize>, Option<ReplyError>) {
    let (mut scan, mut pos, mut here) = (ReplyScan::default(), 0, 0);
    let mut found = Vec::new();
    let lengths = cuts.iter().map(|&n| usize::from(n)).chain([input.len()]);
    for length in lengths {
        here = (here + length).min(input.len());
        loop {
            let rest = &input[pos..here];
            match scan.advance(rest) {
                Ok(ReplyProgress::Complete(n)) => {
                    assert_eq!(scan, ReplyScan::default());
                    assert!(n <= rest.len());
                    pos += n;
                    found.push(pos);
                }
                Ok(ReplyProgress::Partial(n)) => {
                    assert!(n <= rest.len());
                    pos += n;
                    break;
                }
                Err(error) => return (found, Some(error)),
            }
        }
    }
    (found, None)
}

/// A complete reply.
fn look(frame: &[u8]) {
    let _ = (integer(frame), text(frame), error_text(frame));
    let parts: Vec<&[u8]> = elements(frame).collect();
    let bytes: usize = parts.iter().map(|part| part.len()).sum();
    if let Some(count) = element_count(frame) {
        let per = if frame[0] == b'%' { 2 } else { 1 };
        assert_eq!(parts.len() as u64, count * per);
        let body = frame.iter().position(|&b| b == b'\r').unwrap_or(frame.len()) + 2;
        assert_eq!(bytes, frame.len() - body);
    } else {
        assert_eq!(bytes, 0);
    }
    for part in parts {
        assert_eq!(ReplyScan::default().advance(part), Ok(ReplyProgress::Complete(part.len())));
    }
}
