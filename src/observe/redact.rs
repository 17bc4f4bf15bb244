//! Arguments of commands as the slow log shows them: truncated, and without secrets.

use crate::command::{REDACTED, is_secret_argument};
use crate::resp::Args;

/// Most arguments in an entry; the last one says how many more there are. As in Redis's own log.
const MAX_ARGUMENTS: usize = 32;
/// Bytes of an argument that are shown; its number of further bytes follows. As in Redis's own log.
const MAX_BYTES: usize = 128;

/// The arguments as Redis's own slow log shows them, secrets replaced by [`REDACTED`].
///
/// <https://redis.io/docs/latest/commands/slowlog-get/>
pub fn logged_args(args: &Args) -> Vec<Vec<u8>> {
    let shown = if args.len() > MAX_ARGUMENTS { MAX_ARGUMENTS - 1 } else { args.len() };
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
    shown(arg.get(..MAX_BYTES).unwrap_or(arg), arg.len())
}

/// The beginning of an argument of `len` bytes, followed by the number of missing bytes.
fn shown(beginning: &[u8], len: usize) -> Vec<u8> {
    let mut shown = beginning.to_vec();
    if len > beginning.len() {
        let more = format!("... ({} more bytes)", len - beginning.len());
        shown.extend_from_slice(more.as_bytes());
    }
    shown
}

/// Arguments kept for the slow log, in reusable buffers: the request of a split command is gone
/// when the command turns out to be slow. Only for commands without secret arguments.
#[derive(Debug, Default)]
pub struct KeptArgs {
    /// The beginnings of the shown arguments, concatenated.
    bytes: Vec<u8>,
    /// For each shown argument, the end of its beginning in `bytes` and its full length.
    spans: Vec<(usize, usize)>,
    /// Number of all arguments.
    count: usize,
}

impl KeptArgs {
    /// Replaces the kept arguments by `args`.
    pub fn keep(&mut self, args: &Args) {
        self.bytes.clear();
        self.spans.clear();
        self.count = args.len();
        for arg in args.iter().take(MAX_ARGUMENTS) {
            self.bytes.extend_from_slice(arg.get(..MAX_BYTES).unwrap_or(arg));
            self.spans.push((self.bytes.len(), arg.len()));
        }
    }

    /// The arguments as [`logged_args`] returns them.
    pub fn logged(&self) -> Vec<Vec<u8>> {
        let whole = if self.count > MAX_ARGUMENTS { MAX_ARGUMENTS - 1 } else { self.count };
        let mut start = 0;
        let mut logged = Vec::with_capacity(MAX_ARGUMENTS);
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
