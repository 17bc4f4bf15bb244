//! Makes commands wrong.

use super::grammar::{Command, Rng};

/// Spoils a command: an argument too many, one too few, or one that makes no sense. Which keys a
/// command of several has stays as it was: a cluster rightly refuses keys of several slots.
pub fn spoil(c: &mut Command, rng: &mut Rng) {
    let junk: [&[u8]; 10] = [
        b"notanumber",
        b"",
        b"1.5",
        b"-1",
        b"9223372036854775807",
        b"9223372036854775808",
        b"\x00\xff\r\n",
        b"(nan",
        b"nan",
        b" 1",
    ];
    match rng.below(3) {
        0 if c.keys.len() < 2 && c.args.len() > 1 => {
            c.args.pop();
        }
        // one more argument of PFCOUNT would be a key in another slot
        1 if c.keys.len() < 2 && !c.args[0].eq_ignore_ascii_case(b"pfcount") => {
            c.args.push(rng.pick(&junk).to_vec())
        }
        _ if !c.data.is_empty() => {
            let i = c.data[rng.below(c.data.len())];
            c.args[i] = rng.pick(&junk).to_vec();
        }
        _ => {}
    }
    let last = c.args.len();
    c.keys.retain(|k| *k < last);
}

/// Spoils a command whose keys may be anywhere, so that any argument may become any other.
pub fn spoil_anyhow(c: &mut Command, rng: &mut Rng) {
    let junk: [&[u8]; 16] = [
        b"notanumber",
        b"",
        b"1.5",
        b"-1",
        b"9223372036854775807",
        b"18446744073709551616",
        b"\x00\xff\r\n",
        b"nan",
        b"inf",
        b" 1",
        b"0",
        b"LIMIT",
        b"STORE",
        b"WEIGHTS",
        b"COUNT",
        b"{a}set:1",
    ];
    // Nobody waits for hours, and a script's keys stay in one slot.
    let upper = c.args[0].to_ascii_uppercase();
    let begins = |names: &[&str]| names.iter().any(|name| upper.starts_with(name.as_bytes()));
    let waits = begins(&["BL", "BR", "BZ", "XREAD"]);
    if c.keys.is_empty() || begins(&["EVAL", "FCALL"]) {
        return spoil(c, rng);
    }
    match rng.below(4) {
        0 => drop(c.args.pop()),
        1 if !waits => c.args.push(rng.pick(&junk).to_vec()),
        2 if !waits => {
            let at = 1 + rng.below(c.args.len() - 1);
            c.args[at] = rng.pick(&junk).to_vec();
        }
        2 => {
            let at = c.keys[rng.below(c.keys.len())];
            c.args[at] = rng.pick(&junk).to_vec();
        }
        // A value of one with an expiry would be a short one.
        3 if !waits && c.keys.len() > 1 => {
            let (a, b) = (1 + rng.below(c.args.len() - 1), 1 + rng.below(c.args.len() - 1));
            c.args.swap(a, b);
        }
        _ => {}
    }
    let last = c.args.len();
    c.keys.retain(|k| *k < last);
}
