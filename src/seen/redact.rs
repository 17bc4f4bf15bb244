//! A command's arguments as a slow log shows them: cut, and without secrets.

use crate::resp::Args;

/// What stands in the place of a secret.
pub const REDACTED: &str = "(redacted)";
/// More arguments are only counted, the last one shown says how many.
const ARGUMENTS: usize = 32;
/// More bytes of an argument are only counted.
const BYTES: usize = 128;
/// Settings of a node whose values are secret.
const SECRET_SETTINGS: [&str; 5] =
    ["requirepass", "masterauth", "masteruser", "tls-key-file-pass", "tls-client-key-file-pass"];

/// The arguments as Redis's own slow log shows them.
pub fn logged_args(args: &Args) -> Vec<Vec<u8>> {
    let shown = if args.len() > ARGUMENTS { ARGUMENTS - 1 } else { args.len() };
    let mut logged: Vec<Vec<u8>> = args
        .iter()
        .take(shown)
        .enumerate()
        .map(|(i, arg)| if is_secret(args, i) { REDACTED.into() } else { cut(arg) })
        .collect();
    if shown < args.len() {
        logged.push(format!("... ({} more arguments)", args.len() - shown).into());
    }
    logged
}

fn cut(arg: &[u8]) -> Vec<u8> {
    let mut cut = arg.get(..BYTES).unwrap_or(arg).to_vec();
    if arg.len() > BYTES {
        cut.extend_from_slice(format!("... ({} more bytes)", arg.len() - BYTES).as_bytes());
    }
    cut
}

/// Argument `i` is nothing for others to read.
fn is_secret(args: &Args, i: usize) -> bool {
    let name = args.get(0).unwrap_or_default();
    let is = |word: &str| name.eq_ignore_ascii_case(word.as_bytes());
    // HELLO 3 AUTH user password, MIGRATE … AUTH password, MIGRATE … AUTH2 user password.
    let after = |word: &str, many: usize| (1..=many).any(|n| i > n && args.is(i - n, word));
    if is("auth") {
        i > 0
    } else if is("hello") {
        i > 2 && after("auth", 2)
    } else if is("migrate") {
        after("auth", 1) || after("auth2", 2)
    } else if is("acl") {
        i > 1 && args.is(1, "setuser")
    } else if is("config") {
        let secret = |setting: &str| i % 2 == 1 && args.is(i - 1, setting);
        i > 2 && args.is(1, "set") && SECRET_SETTINGS.iter().any(|s| secret(s))
    } else {
        false
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
        assert_eq!(logged("SET auth hunter2"), "SET auth hunter2");
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
