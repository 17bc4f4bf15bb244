//! Sessions of which every byte is compared: with a server and with slotway.

use super::Proxy;
use slotway::sandbox::{Conn, Standalone};
use std::io;

/// All bytes that come for a session's commands, sent in one go, up to an ECHO behind them or to
/// the end of the connection.
fn session(mut conn: Conn, protocol: u8, line: &str) -> String {
    if protocol == 3 {
        conn.command(&["HELLO", "3"]).expect("HELLO");
    }
    for command in line.split('|') {
        let words: Vec<&str> = command.split(' ').collect();
        conn.send(&words).expect("to send");
    }
    let mut all = Vec::new();
    // It may be closed by now.
    let _ = conn.send(&["ECHO", "the end"]);
    loop {
        match conn.receive_raw() {
            Ok(frame) if frame == b"$7\r\nthe end\r\n" => break,
            Ok(frame) => all.extend(frame),
            Err(error) if is_closed(&error) => {
                all.extend(b"(closed)");
                break;
            }
            Err(error) => panic!("{line}: {error}, after {}", all.escape_ascii()),
        }
    }
    all.escape_ascii().to_string()
}

pub fn is_closed(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), UnexpectedEof | ConnectionReset | BrokenPipe)
}

/// Each of `lines` is a session, `|` parts its commands. The same bytes must come from the server and
/// from slotway, in both protocols.
pub fn assert_same(server: &Standalone, proxy: &Proxy, lines: &[&str]) {
    let mut different = Vec::new();
    for protocol in [2, 3] {
        for line in lines {
            let want = session(server.connect().expect("a connection"), protocol, line);
            let got = session(proxy.connect(), protocol, line);
            if want != got {
                different.push(format!("{line} (RESP{protocol})\n  {want}\n  {got}"));
            }
        }
    }
    assert!(different.is_empty(), "server, slotway:\n{}", different.join("\n"));
}
