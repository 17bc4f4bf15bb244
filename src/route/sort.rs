//! The patterns of SORT, which name keys that its arguments do not.

use crate::cluster::View;
use crate::resp::Args;

/// Whether SORT has BY or GET patterns, whose keys may be in any slot. BY without `*` names no key.
pub(super) fn has_patterns(args: &Args) -> bool {
    patterns(args).next().is_some()
}

/// The BY and GET patterns of SORT that name keys.
pub fn sort_patterns<'a>(args: &Args<'a>) -> impl Iterator<Item = &'a [u8]> {
    patterns(args).filter(|pattern| *pattern != b"#")
}

/// Whether the key and those of all patterns are on one single server.
pub(super) fn patterns_are_there(view: &View, args: &Args) -> bool {
    let space = view.space_of(args.get(1).unwrap_or_default());
    space.is_one() && sort_patterns(args).all(|p| view.space_of_pattern(p) == Some(space))
}

fn patterns<'a>(args: &Args<'a>) -> impl Iterator<Item = &'a [u8]> {
    let mut i = 2;
    std::iter::from_fn(move || {
        while i < args.len() {
            let (at, pattern) = (i, args.get(i + 1).unwrap_or_default());
            i += match () {
                () if args.is(at, "limit") => 3,
                () if args.is(at, "by") || args.is(at, "store") || args.is(at, "get") => 2,
                () => 1,
            };
            if args.is(at, "get") || args.is(at, "by") && pattern.contains(&b'*') {
                return Some(pattern);
            }
        }
        None
    })
}
