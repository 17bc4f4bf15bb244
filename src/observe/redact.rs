//! A command's arguments as a slow log shows them: cut, and without secrets.

use crate::command::{REDACTED, is_secret_argument};
use crate::resp::Args;

/// More arguments are only counted, the last one shown says how many.
const ARGUMENTS: usize = 32;
/// More bytes of an argument are only counted.
const BYTES: usize = 128;

/// The arguments as Redis's own slow log shows them.
pub fn logged_args(args: &Args) -> Vec<Vec<u8>> {
    let shown = if args.len() > ARGUMENTS { ARGUMENTS - 1 } else { args.len() };
    let mut logged: Vec<Vec<u8>> = args
        .iter()
        .take(shown)
        .enumerate()
        .map(|(i, arg)| if is_secret_argument(args, i) { REDACTED.into() } else { cut(arg) })
        .collect();
    if shown < args.len() {
        logged.push(format!("... ({} more arguments)", args.len() - shown).into());
    }
    logged
}

fn cut(arg: &[u8]) -> Vec<u8> {
    shown(arg.get(..BYTES).unwrap_or(arg), arg.len())
}

/// The beginning of an argument, and how many of its `len` bytes are missing.
fn shown(beginning: &[u8], len: usize) -> Vec<u8> {
    let mut shown = beginning.to_vec();
    if len > beginning.len() {
        let more = format!("... ({} more bytes)", len - beginning.len());
        shown.extend_from_slice(more.as_bytes());
    }
    shown
}

/// What a slow log will show of a request, in buffers that are used again: of a command that is
/// answered in parts the request is gone when it turns out to be slow. For commands without secrets.
#[derive(Debug, Default)]
pub struct KeptArgs {
    bytes: Vec<u8>,
    /// Of each argument that is shown the end of its beginning in `bytes`, and its length.
    spans: Vec<(usize, usize)>,
    /// Arguments in all.
    count: usize,
}

impl KeptArgs {
    /// Keeps these in the place of what was kept.
    pub fn keep(&mut self, args: &Args) {
        self.bytes.clear();
        self.spans.clear();
        self.count = args.len();
        for arg in args.iter().take(ARGUMENTS) {
            self.bytes.extend_from_slice(arg.get(..BYTES).unwrap_or(arg));
            self.spans.push((self.bytes.len(), arg.len()));
        }
    }

    /// The arguments as [`logged_args`] gives them.
    pub fn logged(&self) -> Vec<Vec<u8>> {
        let whole = if self.count > ARGUMENTS { ARGUMENTS - 1 } else { self.count };
        let mut start = 0;
        let mut logged = Vec::with_capacity(ARGUMENTS);
        for &(end, len) in self.spans.iter().take(whole) {
            logged.push(shown(self.bytes.get(start..end).unwrap_or_default(), len));
            start = end;
        }
        if whole < self.count {
            logged.push(format!("... ({} more arguments)", self.count - whole).into());
        }
        logged
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logged(line: &str) -> String {
        let ranges = crate::resp::words(line);
        let args = logged_args(&Args::new(line.as_bytes(), &ranges));
        String::from_utf8(args.join(&b' ')).unwrap()
    }

    #[test]
    fn secrets_are_not_shown() {
        assert_eq!(logged("AUTH hunter2"), "AUTH (redacted)");
        assert_eq!(logged("auth me hunter2"), "auth (redacted) (redacted)");
        assert_eq!(
            logged("HELLO 3 AUTH me hunter2 SETNAME x"),
            "HELLO 3 AUTH (redacted) (redacted) SETNAME x"
        );
        assert_eq!(
            logged("ACL SETUSER me on >hunter2"),
            "ACL SETUSER (redacted) (redacted) (redacted)"
        );
        assert_eq!(logged("ACL GETUSER me"), "ACL GETUSER me");
        assert_eq!(
            logged("CONFIG SET maxmemory 5 RequirePass hunter2"),
            "CONFIG SET maxmemory 5 RequirePass (redacted)"
        );
        assert_eq!(
            logged("MIGRATE h 1 k 0 9 AUTH2 me hunter2 KEYS k"),
            "MIGRATE h 1 k 0 9 AUTH2 (redacted) (redacted) KEYS k"
        );
        assert_eq!(
            logged("CONFIG SET search.password hunter2"),
            "CONFIG SET search.password (redacted)"
        );
        assert_eq!(logged("MODULE LOAD /m.so hunter2"), "MODULE LOAD /m.so (redacted)");
        assert_eq!(logged("SET auth hunter2"), "SET auth hunter2");
    }

    #[test]
    fn what_is_kept_is_logged_in_the_same_form() {
        let long = "x".repeat(200);
        let many: Vec<String> = (0..40).map(|i| i.to_string()).collect();
        let mut kept = KeptArgs::default();
        for line in [&many.join(" "), &many[..32].join(" "), &format!("MSET k {long} l v"), "MGET"]
        {
            let ranges = crate::resp::words(line);
            let args = Args::new(line.as_bytes(), &ranges);
            kept.keep(&args);
            assert_eq!(kept.logged(), logged_args(&args), "{line}");
        }
    }

    #[test]
    fn much_is_cut_as_redis_does() {
        let many: Vec<String> = (0..40).map(|i| i.to_string()).collect();
        let text = logged(&many.join(" "));
        assert!(text.ends_with("29 30 ... (9 more arguments)"), "{text}");
        assert_eq!(logged(&many[..32].join(" ")), many[..32].join(" "));
        let long = format!("SET k {}", "x".repeat(200));
        assert!(logged(&long).ends_with("xx... (72 more bytes)"), "{}", logged(&long));
        assert_eq!(logged(&long).len(), 6 + 128 + "... (72 more bytes)".len());
    }
}
