//! Requests: any cut of the input into pieces gives the same frames as the whole, and what a frame
//! holds is written and read again without a change.
#![no_main]

use libfuzzer_sys::fuzz_target;
use slotway::resp::{
    Args, ProtocolError, Request, RequestLimits, RequestProgress, inline_to_array, scan_request,
    write,
};

/// Small, so that the limits are reached by small inputs.
const LIMITS: RequestLimits = RequestLimits { bulk: 1 << 10, inline: 64, multibulk: 1 << 10, unauthenticated: false };

type Frame = Vec<Vec<u8>>;

fuzz_target!(|input: &[u8]| {
    // The first byte is the number of cuts, which stand between it and the bytes.
    let Some((&count, rest)) = input.split_first() else { return };
    let (cuts, bytes) = rest.split_at(usize::from(count % 32).min(rest.len()));
    let (whole, whole_end) = frames(bytes, &[]);
    let (cut, cut_end) = frames(bytes, cuts);
    // A line without end is refused as soon as it is seen to be too long; one whose end is there
    // is judged by what it says. So these depend on the cut, and only these.
    let by_cut = |end: &Option<ProtocolError>| {
        matches!(end, Some(ProtocolError::BigCountLine | ProtocolError::BigBulkLine))
    };
    if by_cut(&whole_end) || by_cut(&cut_end) {
        let n = whole.len().min(cut.len());
        assert_eq!(whole[..n], cut[..n]);
    } else {
        assert_eq!((whole, whole_end), (cut, cut_end));
    }
});

/// Feeds `input` in pieces; each of `cuts` is the length of one, the rest comes at once.
fn frames(input: &[u8], cuts: &[u8]) -> (Vec<Frame>, Option<ProtocolError>) {
    let mut ends: Vec<usize> = cuts
        .iter()
        .scan(0, |at, &n| {
            *at += usize::from(n);
            Some(*at)
        })
        .take_while(|&end| end < input.len())
        .collect();
    ends.push(input.len());
    let (mut start, mut progress, mut ranges) = (0, RequestProgress::default(), Vec::new());
    let mut found = Vec::new();
    for end in ends {
        loop {
            let buf = &input[start..end];
            let len = match scan_request(buf, &LIMITS, &mut progress, &mut ranges) {
                Ok(Request::Array { len }) => {
                    let args = Args::new(buf, &ranges);
                    assert!(ranges.iter().all(|r| r.start <= r.end && r.end as usize + 2 <= len));
                    let frame: Frame = args.iter().map(<[u8]>::to_vec).collect();
                    again(&frame);
                    found.push(frame);
                    len
                }
                Ok(Request::Inline { line, len }) => {
                    assert!(line < len);
                    match split(&buf[..line]) {
                        Ok(frame) => found.push(frame),
                        Err(error) => return (found, Some(error)),
                    }
                    len
                }
                Ok(Request::Empty { len }) => len,
                Ok(Request::Incomplete { need }) => {
                    assert!(need > buf.len());
                    break;
                }
                Err(error) => return (found, Some(error)),
            };
            assert!(len > 0 && len <= buf.len());
            start += len;
            progress = RequestProgress::default();
        }
    }
    (found, None)
}

/// The arguments of an inline command, by way of the array that the server is sent.
fn split(line: &[u8]) -> Result<Frame, ProtocolError> {
    let mut array = Vec::new();
    let count = inline_to_array(line, &mut array)?;
    let limits = RequestLimits::default();
    let mut ranges = Vec::new();
    match scan_request(&array, &limits, &mut RequestProgress::default(), &mut ranges) {
        Ok(Request::Array { len }) => {
            assert_eq!((len, ranges.len()), (array.len(), count));
            Ok(Args::new(&array, &ranges).iter().map(<[u8]>::to_vec).collect())
        }
        Ok(Request::Empty { len }) => {
            assert_eq!((len, count), (array.len(), 0));
            Ok(Frame::new())
        }
        other => panic!("an inline command became {other:?}"),
    }
}

fn again(frame: &Frame) {
    let mut bytes = Vec::new();
    write::request(&mut bytes, &frame.iter().map(Vec::as_slice).collect::<Vec<_>>());
    let mut ranges = Vec::new();
    let found = scan_request(&bytes, &LIMITS, &mut RequestProgress::default(), &mut ranges);
    assert_eq!(found, Ok(Request::Array { len: bytes.len() }));
    assert!(Args::new(&bytes, &ranges).iter().eq(frame.iter().map(Vec::as_slice)));
}
