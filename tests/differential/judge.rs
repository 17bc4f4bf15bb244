//! Compares the replies to commands in a row: those of a transaction are all in that of its EXEC.

use super::frame;
use super::grammar::Command;
use super::rules::{Rules, report};

/// What has been queued on a connection; what EXEC's reply is made of.
pub type Queued = Vec<Command>;

/// What differs between the two replies to `c`, if something does.
pub fn compare(
    rules: &mut Rules,
    queued: &mut Queued,
    c: &Command,
    reference: &[u8],
    theirs: &[u8],
) -> Option<String> {
    if reference == b"+QUEUED\r\n" {
        queued.push(c.clone());
    }
    let is = |name: &[u8]| c.args.first().is_some_and(|a| a.eq_ignore_ascii_case(name));
    let over = is(b"EXEC") || is(b"DISCARD") || is(b"RESET");
    let within = if over && !frame::is_error(reference) { std::mem::take(queued) } else { vec![] };
    if reference.starts_with(b"-EXECABORT") {
        queued.clear();
    }
    if reference == theirs {
        return None;
    }
    if is(b"EXEC")
        && let (Some(a), Some(b)) = (frame::parts(reference), frame::parts(theirs))
        && a.len() == within.len()
        && b.len() == within.len()
    {
        let each = within.iter().zip(a.into_iter().zip(b));
        let different: Vec<String> = each
            .filter(|(c, (a, b))| !rules.same(c, a, b))
            .map(|(c, (a, b))| report(c, a, b))
            .collect();
        let text = format!("in a transaction of {}:\n{}", within.len(), different.concat());
        return (!different.is_empty()).then_some(text);
    }
    if rules.same(c, reference, theirs) {
        return None;
    }
    let before: Vec<String> =
        within.iter().map(|c| format!("  queued     {}\n", c.show())).collect();
    Some(before.concat() + &report(c, reference, theirs))
}
