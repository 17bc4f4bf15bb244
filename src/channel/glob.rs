//! Redis's glob patterns, as in PSUBSCRIBE: same results as the server's `stringmatchlen` for every
//! pattern and text.
//!
//! A pattern is a sequence of elements that match one byte each, with stars between them. Matching
//! runs from left to right and backtracks to the last star only: whatever an earlier star could
//! match instead, the last one can match as well. So a hostile pattern costs at most its length
//! times that of the text, instead of exponential time.

use super::TopicKind;

/// Prefixes of the channels of keyspace notifications, for database 0, the only one of a cluster;
/// [`notification`] returns an index into it.
///
/// <https://redis.io/docs/latest/develop/pubsub/keyspace-notifications/>
pub const NOTIFICATION_PREFIXES: [&[u8]; 2] = [b"__keyspace@0__:", b"__keyevent@0__:"];

/// Whether the pattern matches the whole text; case-sensitive.
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    if text.is_empty() {
        return pattern.is_empty(); // the server's `*` does not match an empty text
    }
    let (mut p, mut t) = (0, 0);
    // For the last star: the position in the pattern behind it, and the position in the text at
    // which the rest of the pattern was tried last.
    let mut star: Option<(usize, usize)> = None;
    while let Some(&byte) = text.get(t) {
        match pattern.get(p) {
            Some(b'*') => {
                p += 1;
                star = Some((p, t));
                continue;
            }
            Some(_) => {
                let (len, is_match) = element(pattern.get(p..).unwrap_or_default(), byte);
                if is_match {
                    (p, t) = (p + len, t + 1);
                    continue;
                }
            }
            None => {}
        }
        let Some((behind, tried)) = star else { return false };
        if behind == pattern.len() {
            return true;
        }
        (p, t) = (behind, tried + 1);
        star = Some((behind, t));
    }
    pattern.get(p..).unwrap_or_default().iter().all(|&b| b == b'*')
}

/// Whether the pattern can match any text that begins with `prefix`. May wrongly return true if an
/// element behind the prefix matches no byte (`a[]`); never wrongly returns false.
pub fn can_match_prefix(pattern: &[u8], prefix: &[u8]) -> bool {
    let mut p = 0;
    for &byte in prefix {
        match pattern.get(p) {
            None => return false,
            Some(b'*') => return true,
            Some(_) => {
                let (len, is_match) = element(pattern.get(p..).unwrap_or_default(), byte);
                if !is_match {
                    return false;
                }
                p += len;
            }
        }
    }
    true
}

/// The length of the first element of the pattern, which is no star, and whether it matches `byte`.
fn element(pattern: &[u8], byte: u8) -> (usize, bool) {
    match pattern {
        [b'?', ..] => (1, true),
        [b'\\', escaped, ..] => (2, *escaped == byte),
        [b'[', class @ ..] => {
            let (len, is_match) = match_class(class, byte);
            (1 + len, is_match)
        }
        [literal, ..] => (1, *literal == byte),
        [] => (0, false),
    }
}

/// Like [`element`], for a class, given without its `[`. A class without `]` extends to the end of
/// the pattern. The bounds of ranges are signed bytes, as in the server.
fn match_class(class: &[u8], byte: u8) -> (usize, bool) {
    let not = class.first() == Some(&b'^');
    let mut at = usize::from(not);
    let mut found = false;
    loop {
        match class.get(at..).unwrap_or_default() {
            [b'\\', escaped, ..] => {
                found |= *escaped == byte;
                at += 2;
            }
            [b']', ..] => return (at + 1, found != not),
            [] => return (at, found != not),
            [one, b'-', other, ..] => {
                let (one, other, byte) = (*one as i8, *other as i8, byte as i8);
                found |= (one.min(other)..=one.max(other)).contains(&byte);
                at += 3;
            }
            [one, ..] => {
                found |= *one == byte;
                at += 1;
            }
        }
    }
}

/// The index in [`NOTIFICATION_PREFIXES`] of the channel's prefix; `None` for other channels.
pub fn notification(channel: &[u8]) -> Option<usize> {
    NOTIFICATION_PREFIXES.iter().position(|prefix| channel.starts_with(prefix))
}

/// Whether nodes publish keyspace notifications on the channel.
pub fn is_notification(channel: &[u8]) -> bool {
    notification(channel).is_some()
}

/// Whether subscribers to the topic can receive keyspace notifications.
pub fn can_receive_notifications(kind: TopicKind, name: &[u8]) -> bool {
    match kind {
        TopicKind::Channel => is_notification(name),
        TopicKind::Pattern => {
            NOTIFICATION_PREFIXES.iter().any(|prefix| can_match_prefix(name, prefix))
        }
        TopicKind::Shard => false,
    }
}

/// The literal bytes before the first element of the pattern that can match different bytes.
pub fn literal_prefix(pattern: &[u8]) -> Vec<u8> {
    let mut prefix = Vec::new();
    let mut rest = pattern;
    loop {
        match rest {
            [b'*' | b'?' | b'[', ..] | [] => return prefix,
            [b'\\', escaped, behind @ ..] => {
                prefix.push(*escaped);
                rest = behind;
            }
            [byte, behind @ ..] => {
                prefix.push(*byte);
                rest = behind;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition: a star matches any number of bytes, every other element one.
    fn naive(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern, text) {
            ([], []) => true,
            ([b'*', rest @ ..], _) => (0..=text.len()).any(|n| naive(rest, &text[n..])),
            ([], _) | (_, []) => false,
            ([b'[', ..], [byte, rest @ ..]) => {
                let not = pattern.get(1) == Some(&b'^');
                let mut class = pattern[1 + usize::from(not)..].to_vec();
                let mut takes = false;
                let mut used = 1 + usize::from(not);
                while !class.is_empty() && class[0] != b']' {
                    let mut n = 1;
                    if class[0] == b'\\' && class.len() > 1 {
                        takes |= class[1] == *byte;
                        n = 2;
                    } else if class.len() > 2 && class[1] == b'-' {
                        let (mut low, mut high) = (class[0] as i8, class[2] as i8);
                        if low > high {
                            std::mem::swap(&mut low, &mut high);
                        }
                        takes |= low <= *byte as i8 && *byte as i8 <= high;
                        n = 3;
                    } else {
                        takes |= class[0] == *byte;
                    }
                    class.drain(..n);
                    used += n;
                }
                takes != not && naive(&pattern[(used + 1).min(pattern.len())..], rest)
            }
            ([b'?', more @ ..], [_, rest @ ..]) => naive(more, rest),
            ([b'\\', escaped, more @ ..], [byte, rest @ ..]) => {
                escaped == byte && naive(more, rest)
            }
            ([literal, more @ ..], [byte, rest @ ..]) => literal == byte && naive(more, rest),
        }
    }

    fn pattern() -> impl Strategy<Value = Vec<u8>> {
        let byte = proptest::sample::select(b"ab\x80*?[]^-\\_*".to_vec());
        proptest::collection::vec(byte, 0..12)
    }

    fn text() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(proptest::sample::select(b"ab\x80]-^\\_".to_vec()), 0..8)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]
        #[test]
        fn as_a_naive_matcher(pattern in pattern(), text in text()) {
            let expected = if text.is_empty() { pattern.is_empty() } else { naive(&pattern, &text) };
            prop_assert_eq!(matches(&pattern, &text), expected);
        }

        #[test]
        fn what_matches_could_match_every_prefix(pattern in pattern(), text in text()) {
            if matches(&pattern, &text) {
                for n in 0..=text.len() {
                    prop_assert!(can_match_prefix(&pattern, &text[..n]));
                }
                prop_assert!(text.starts_with(&literal_prefix(&pattern)));
            }
        }
    }

    /// Compares with a real server, by PSUBSCRIBE and PUBLISH.
    #[test]
    fn as_the_real_server() {
        use crate::sandbox::{Standalone, StandaloneOptions};
        let server = Standalone::start(StandaloneOptions::default()).unwrap();
        let mut publisher = server.connect().unwrap();
        let patterns = [
            "*", "**", "", "?", "a*", "*a", "a**", "[ab]", "[^ab]", "[b-a]", "[a-]", "[a", "[",
            "[^", "[]", "[^]", "[]a]", "\\*", "\\", "a\\", "[\\]]", "[\\", "[a\\", "*[", "a?b*",
            "[a-b-c]", "*a*b*", "?*", "*?", "[-a]", "a*?", "[^a-b]*",
        ];
        let texts = [
            "", "a", "b", "c", "ab", "aab", "abb", "*", "\\", "]", "[", "-", "a\\", "^", "ba",
            "acb", "a]",
        ];
        let mut wrong = Vec::new();
        for pattern in patterns {
            let mut subscriber = server.connect().unwrap();
            subscriber.command(&["PSUBSCRIBE", pattern]).unwrap();
            for text in texts {
                let said = publisher.command(&["PUBLISH", text, "x"]).unwrap().int();
                if matches(pattern.as_bytes(), text.as_bytes()) != (said == Some(1)) {
                    wrong.push((pattern, text, said));
                }
            }
            // The server counts the subscriber until it has closed the connection itself.
            subscriber.command(&["PUNSUBSCRIBE"]).unwrap();
            while subscriber.send(&["QUIT"]).is_ok() && subscriber.receive().is_ok() {}
        }
        assert!(wrong.is_empty(), "{wrong:?}");
    }

    #[test]
    fn a_hostile_pattern_ends() {
        let pattern = b"*a".repeat(5000);
        let text = b"a".repeat(4999);
        assert!(!matches(&pattern, &text));
        assert!(matches(&pattern, &b"a".repeat(5000)));
    }

    #[test]
    fn notifications() {
        for (kind, name, expected) in [
            (TopicKind::Channel, "__keyspace@0__:k", true),
            (TopicKind::Channel, "__keyspace@1__:k", false),
            (TopicKind::Channel, "*", false),
            (TopicKind::Shard, "__keyspace@0__:k", false),
            (TopicKind::Pattern, "__key*__:*", true),
            (TopicKind::Pattern, "*", true),
            (TopicKind::Pattern, "_*", true),
            (TopicKind::Pattern, "?*", true),
            (TopicKind::Pattern, "*:foo", true),
            (TopicKind::Pattern, "__keyevent@0__:", true),
            (TopicKind::Pattern, "__keyevent@[12]__:x", false),
            (TopicKind::Pattern, "news*", false),
            (TopicKind::Pattern, "__keyevent@0__", false),
        ] {
            assert_eq!(can_receive_notifications(kind, name.as_bytes()), expected, "{name}");
        }
        assert_eq!(literal_prefix(b"__key\\*x[ab]"), b"__key*x");
    }
}
