//! Headers of the PROXY protocol: no more is asked for than the header has, its length is bounded,
//! and how it arrives makes no difference.
#![no_main]

use libfuzzer_sys::fuzz_target;
use slotway::proxy_protocol::{Header, HeaderError, MAX_LEN, parse};

fn read(stream: &[u8], piece: usize) -> (Result<Header, HeaderError>, usize) {
    let mut taken = 0;
    loop {
        match parse(&stream[..taken]) {
            Ok(Header::Incomplete { more }) => {
                assert!(more > 0);
                let next = (taken + more.min(piece)).min(stream.len());
                if next == taken {
                    return (Ok(Header::Incomplete { more }), taken);
                }
                taken = next;
            }
            other => return (other, taken),
        }
    }
}

fuzz_target!(|stream: &[u8]| {
    let (whole, taken) = read(stream, usize::MAX);
    assert!(taken <= MAX_LEN);
    let (pieces, taken_in_pieces) = read(stream, 1);
    match whole {
        Ok(header) => assert_eq!((Ok(header), taken), (pieces, taken_in_pieces)),
        Err(_) => assert!(pieces.is_err()),
    }
});
