//! Redis's glob patterns: what PSUBSCRIBE matches, byte for byte as `stringmatchlen` does it.
//!
//! A pattern is a row of pieces, each of which takes one byte, with stars between them. To match
//! from left to right it is enough to go back to the last star: what an earlier one could take
//! instead, the last one can take as well. So a hostile pattern costs its length times the text's,
//! not a power of it.

use super::TopicKind;

/// Keyspace notifications of the one database that a cluster has; in the order of
/// [`notification`]'s answer.
pub const NOTIFICATION_PREFIXES: [&[u8]; 2] = [b"__keyspace@0__:", b"__keyevent@0__:"];

/// The pattern matches the whole text, letter case and all.
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    if text.is_empty() {
        return pattern.is_empty(); // not even `*` matches it
    }
    let (mut p, mut t) = (0, 0);
    // Behind the last star: where the pattern goes on, and from where the text was tried.
    let mut star: Option<(usize, usize)> = None;
    while let Some(&byte) = text.get(t) {
        match pattern.get(p) {
            Some(b'*') => {
                p += 1;
                star = Some((p, t));
                continue;
            }
            Some(_) => {
                let (len, takes) = piece(pattern.get(p..).unwrap_or_default(), byte);
                if takes {
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

/// Whether the pattern can match any text at all that begins with `prefix`. May say yes where a
/// piece behind the prefix can take no byte (`a[]`), never no wrongly.
pub fn can_match_prefix(pattern: &[u8], prefix: &[u8]) -> bool {
    let mut p = 0;
    for &byte in prefix {
        match pattern.get(p) {
            None => return false,
            Some(b'*') => return true,
            Some(_) => {
                let (len, takes) = piece(pattern.get(p..).unwrap_or_default(), byte);
                if !takes {
                    return false;
                }
                p += len;
            }
        }
    }
    true
}

/// How many bytes of the pattern its first piece (not a star) has, and whether it takes `byte`.
fn piece(pattern: &[u8], byte: u8) -> (usize, bool) {
    match pattern {
        [b'?', ..] => (1, true),
        [b'\\', escaped, ..] => (2, *escaped == byte),
        [b'[', class @ ..] => {
            let (len, takes) = class_takes(class, byte);
            (1 + len, takes)
        }
        [literal, ..] => (1, *literal == byte),
        [] => (0, false),
    }
}

/// The same for what stands behind `[`. Without its `]` a class goes to the pattern's end. The
/// server compares ranges as signed bytes.
fn class_takes(class: &[u8], byte: u8) -> (usize, bool) {
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

/// A keyspace notification's channel: which of [`NOTIFICATION_PREFIXES`] it is.
pub fn notification(channel: &[u8]) -> Option<usize> {
    NOTIFICATION_PREFIXES.iter().position(|prefix| channel.starts_with(prefix))
}

/// The channel is one that nodes send keyspace notifications on.
pub fn is_notification(channel: &[u8]) -> bool {
    notification(channel).is_some()
}

/// Who listens to this can get keyspace notifications.
pub fn can_receive_notifications(kind: TopicKind, name: &[u8]) -> bool {
    match kind {
        TopicKind::Channel => is_notification(name),
        TopicKind::Pattern => {
            NOTIFICATION_PREFIXES.iter().any(|prefix| can_match_prefix(name, prefix))
        }
        TopicKind::Shard => false,
    }
}

/// What a pattern begins with before its first piece that takes more than one byte's value.
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

    /// As it is defined: a star takes any number of bytes, everything else one.
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

    /// The real server's word, asked by PSUBSCRIBE and PUBLISH.
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
            // It is gone when it does not answer any more, not when it is dropped here.
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
