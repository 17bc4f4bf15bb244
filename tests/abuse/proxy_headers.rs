//! PROXY protocol headers where none is expected, none where one is, wrong ones, late ones, and
//! some from those who must not send any.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use slotway::errors::{FailureId, identify};
use slotway::sandbox::{Conn, Reply, free_port};

use crate::common::{PATIENCE, Proxy, eventually, shared};

const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

fn start(trusted: &str) -> (Proxy, u16) {
    let port = free_port().expect("a port");
    let address = format!("127.0.0.1:{port}");
    let listen = format!("proxy_protocol.listen={address}");
    let trusted = format!("proxy_protocol.trusted={trusted}");
    let mut args = vec!["--workers", "1", "--listen", &address];
    for setting in [&*listen, &*trusted, "proxy_protocol.timeout=300ms", "limits.clients=40"] {
        args.extend(["--set", setting]);
    }
    (Proxy::start(&shared().cluster, &args), port)
}

fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

/// Sends all of this, and gives what is answered until the connection ends.
fn answer(port: u16, bytes: &[u8]) -> String {
    let mut stream = connect(port);
    stream.write_all(bytes).expect("to send");
    read_all(&mut stream)
}

fn read_all(stream: &mut TcpStream) -> String {
    let (mut text, mut piece) = (Vec::new(), [0; 1024]);
    while let Ok(n @ 1..) = stream.read(&mut piece) {
        text.extend_from_slice(&piece[..n]);
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// The error that is all of what came.
fn refusal(text: &str) -> Option<FailureId> {
    let line = text.strip_prefix('-')?.strip_suffix("\r\n")?;
    identify(line).filter(|_| !line.contains('\n')).map(|error| error.id)
}

fn headers(proxy: &Proxy, result: &str) -> f64 {
    proxy.metric("slotway_proxy_protocol_headers_total", &format!("result=\"{result}\""))
}

#[test]
fn plain_clients_and_wrong_headers_get_an_error_where_one_is_expected() {
    let (proxy, port) = start("127.0.0.0/8");
    let mut quiet = proxy.connect();
    let plain =
        [&b"PING\r\n"[..], b"*1\r\n$4\r\nPING\r\n", b"\r\n\r\nPING\r\n", b"\x16\x03\x01\x00"];
    for bytes in plain {
        let text = answer(port, bytes);
        assert_eq!(refusal(&text), Some(FailureId::ProxyHeader), "{text}");
        assert!(text.contains("proxy_protocol.listen"), "{text}");
    }
    assert_eq!(headers(&proxy, "missing"), 4.0);
    let endless = [b"PROXY UNKNOWN ".to_vec(), vec![b'x'; 1 << 20]].concat();
    let huge = [V2_SIGNATURE, b"\x21\x11\xff\xff", &[0; 65535]].concat();
    let version_3 = [V2_SIGNATURE, b"\x31\x11\x00\x0c", &[0; 12]].concat();
    let spoiled = b"PROXY TCP4 999.0.2.1 198.51.100.9 1 2\r\nGET k\r\n".to_vec();
    for bytes in [endless, huge, version_3, spoiled] {
        let mut stream = connect(port);
        // It may be closed before it has sent all of it.
        let _ = stream.write_all(&bytes);
        let text = read_all(&mut stream);
        assert!(text.is_empty() || refusal(&text) == Some(FailureId::ProxyHeader), "{text}");
    }
    eventually("they are counted", || headers(&proxy, "invalid") == 4.0);
    assert!(proxy.log().contains("no PROXY protocol header"));

    // Closed in the middle, and without a byte.
    let mut cut = connect(port);
    cut.write_all(b"PROXY TCP4 192.0.2.1").expect("to send");
    cut.shutdown(Shutdown::Write).expect("to close");
    read_all(&mut cut);
    drop(connect(port));
    eventually("they are counted", || headers(&proxy, "closed") == 2.0);
    assert!(quiet.command(&["SET", "k", "v"]).expect("SET").is_ok());
}

#[test]
fn whoever_sends_no_header_in_time_is_closed_and_counts_as_a_client_until_then() {
    let (proxy, port) = start("127.0.0.1");
    let mut quiet = proxy.connect();
    assert!(quiet.command(&["SET", "k", "v"]).expect("SET").is_ok());
    let mut silent: Vec<TcpStream> = (0..60).map(|_| connect(port)).collect();
    let texts: Vec<String> = silent.iter_mut().map(read_all).collect();
    let of = |id| texts.iter().filter(|text| refusal(text) == Some(id)).count();
    let (late, refused) = (of(FailureId::ProxyHeaderLate), of(FailureId::TooManyClients));
    assert_eq!(late + refused, 60, "{texts:?}");
    // The first 39 had a place, and others when those were closed.
    assert!(late >= 39, "{late}");
    // Each keeps its place until it has closed its side, or has had a second for it.
    drop(silent);
    eventually("all are gone", || headers(&proxy, "timeout") as usize == late);
    assert_eq!(quiet.command(&["GET", "k"]).expect("GET"), Reply::Bulk(b"v".to_vec()));
    // All places are free again.
    let mut others: Vec<Conn> = (0..39).map(|_| proxy.connect()).collect();
    assert!(others.iter_mut().all(|conn| conn.command(&["GET", "k"]).is_ok()));
}

#[test]
fn headers_are_believed_of_nobody_else() {
    let (proxy, port) = start("10.0.0.0/8,::1");
    let text = answer(port, b"PROXY TCP4 192.0.2.1 198.51.100.9 1 2\r\nPING\r\n");
    assert!(text.is_empty() || refusal(&text) == Some(FailureId::ProxyUntrusted), "{text}");
    eventually("it is counted", || headers(&proxy, "untrusted") == 1.0);
    assert!(proxy.log().contains("proxy_protocol.trusted"));
    assert_eq!(proxy.metric("slotway_clients_accepted_total", ""), 0.0);
}

#[test]
fn a_header_where_none_is_expected_is_no_command() {
    let (proxy, _) = start("127.0.0.1");
    let v2 = [V2_SIGNATURE, b"\x21\x11\x00\x0c", &[9; 12], b"PING\r\n"].concat();
    for header in [
        b"PROXY TCP4 192.0.2.1 198.51.100.9 1 2\r\nPING\r\n".to_vec(),
        b"PROXY TCP6 ::1 ::1 1 2\r\nPING\r\n".to_vec(),
        b"PROXY UNKNOWN\r\nPING\r\n".to_vec(),
        v2,
    ] {
        let text = answer(proxy.listen.port(), &header);
        assert_eq!(refusal(&text), Some(FailureId::ProxyHeaderUnexpected), "{text}");
        assert!(text.contains("proxy_protocol.listen"), "{text}");
    }
    assert!(proxy.log().contains("begins with a PROXY protocol header"));
    // Slotway's own command of that name is no header.
    let help = proxy.connect().command(&["PROXY", "HELP"]).expect("PROXY HELP");
    assert!(help.items().is_some_and(|lines| lines.len() > 3), "{help:?}");
}
