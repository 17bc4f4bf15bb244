//! Patterns: no pattern and no text takes long or panics, and what a pattern is said not to match
//! by its beginning it does not match.
#![no_main]

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use slotway::channel::{TopicKind, can_match_prefix, is_notification, matches, can_receive_notifications};

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    notification: bool,
    pattern: &'a [u8],
    text: &'a [u8],
}

fuzz_target!(|input: Input| {
    let (pattern, mut text) = (input.pattern, input.text.to_vec());
    if input.notification {
        text.splice(0..0, *b"__keyspace@0__:");
    }
    let found = matches(pattern, &text);
    if found {
        for end in 0..=text.len() {
            assert!(can_match_prefix(pattern, &text[..end]), "{pattern:?} {text:?} {end}");
        }
        if is_notification(&text) {
            assert!(can_receive_notifications(TopicKind::Pattern, pattern), "{pattern:?} {text:?}");
        }
    }
    // A pattern without anything special is its text.
    if !pattern.iter().any(|b| b"*?[\\".contains(b)) {
        assert_eq!(found, pattern == text);
    }
});
