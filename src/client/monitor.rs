//! MONITOR's line for a command that no node sees, because slotway answers it.
//!
//! <https://redis.io/docs/latest/commands/monitor/>

use std::time::Duration;

use crate::command::{REDACTED, is_secret_argument};
use crate::resp::Args;

/// The line as a simple string in Redis's format: Unix time, the client's address, the quoted
/// command and arguments.
pub fn monitor_line(at: Duration, addr: &str, args: &Args) -> Vec<u8> {
    let mut out = format!("+{}.{:06} [0 {addr}]", at.as_secs(), at.subsec_micros()).into_bytes();
    for (i, arg) in args.iter().enumerate() {
        if is_secret_argument(args, i) {
            out.extend_from_slice(format!(" \"{REDACTED}\"").as_bytes());
            continue;
        }
        out.extend_from_slice(b" \"");
        arg.iter().for_each(|&byte| quote(byte, &mut out));
        out.push(b'"');
    }
    out.extend_from_slice(b"\r\n");
    out
}

fn quote(byte: u8, out: &mut Vec<u8>) {
    match byte {
        b'\\' | b'"' => out.extend_from_slice(&[b'\\', byte]),
        b'\n' => out.extend_from_slice(b"\\n"),
        b'\r' => out.extend_from_slice(b"\\r"),
        b'\t' => out.extend_from_slice(b"\\t"),
        7 => out.extend_from_slice(b"\\a"),
        8 => out.extend_from_slice(b"\\b"),
        b' '..=b'~' => out.push(byte),
        _ => out.extend_from_slice(format!("\\x{byte:02x}").as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::ArgRange;

    #[test]
    fn as_redis_writes_it() {
        let text = b"ECHOa \"\\\n\x01\xc3";
        let ranges = [ArgRange { start: 0, end: 4 }, ArgRange { start: 4, end: 11 }];
        let args = Args::new(text, &ranges);
        let line = monitor_line(Duration::from_micros(1_700_000_000_000_042), "1.2.3.4:5", &args);
        assert_eq!(
            String::from_utf8(line).unwrap(),
            "+1700000000.000042 [0 1.2.3.4:5] \"ECHO\" \"a \\\"\\\\\\n\\x01\\xc3\"\r\n"
        );
    }
}
