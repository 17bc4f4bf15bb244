//! Tests of `question`.

use super::*;
use crate::resp::ArgRange;

fn parse(line: &str) -> Result<Question, Failure> {
    parse_as(line, Grammar::Redis70)
}

fn parse_as(line: &str, grammar: Grammar) -> Result<Question, Failure> {
    let (mut buf, mut ranges) = (Vec::new(), Vec::new());
    for word in line.split(' ') {
        let start = buf.len() as u32;
        buf.extend_from_slice(word.as_bytes());
        ranges.push(ArgRange { start, end: buf.len() as u32 });
    }
    Question::parse(&Args::new(&buf, &ranges), grammar, 7, |user| user == b"default")
}

/// Texts of Redis 7.0.15; tests/clients.rs compares many more with a running server.
#[test]
fn errors() {
    for (line, text) in [
        ("CLIENT LIST TYPE", "ERR syntax error"),
        ("CLIENT LIST TYPE x", "ERR Unknown client type 'x'"),
        ("CLIENT LIST ID 1 x", "ERR Invalid client ID"),
        ("CLIENT LIST TYPE normal ID 3", "ERR syntax error"),
        ("CLIENT KILL ID 0", "ERR client-id should be greater than 0"),
        ("CLIENT KILL ID 1 TYPE", "ERR syntax error"),
        ("CLIENT KILL USER foo ID 1", "ERR No such user 'foo'"),
        ("CLIENT KILL ID 1 SKIPME x", "ERR syntax error"),
        ("CLIENT KILL MAXAGE 1", "ERR syntax error"),
        ("CLIENT PAUSE x", "ERR timeout is not an integer or out of range"),
        ("CLIENT PAUSE -1", "ERR timeout is negative"),
        ("CLIENT PAUSE 1 x", "ERR CLIENT PAUSE mode must be WRITE or ALL"),
        ("CLIENT UNBLOCK x", "ERR value is not an integer or out of range"),
        ("CLIENT UNBLOCK 1 x", "ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR"),
    ] {
        assert_eq!(parse(line).map_err(|e| e.to_string()), Err(text.to_owned()), "{line}");
    }
    let text = parse("CLIENT Pause 1 ALL x").unwrap_err();
    let want = "unknown subcommand or wrong number of arguments for 'Pause'. Try CLIENT HELP.";
    assert_eq!(text.to_string(), format!("ERR {want}"));
}

#[test]
fn who_is_closed() {
    let matching = |words: &str, lines: &[Line]| -> Vec<u64> {
        let Ok(Question::Kill { filter, .. }) = parse(&format!("CLIENT KILL {words}")) else {
            panic!("{words}")
        };
        lines.iter().filter(|l| filter.matches(l)).map(|l| l.id).collect()
    };
    let lines = [6, 7, 8].map(|id| Line {
        id,
        addr: format!("127.0.0.1:{id}"),
        laddr: "127.0.0.1:6380".into(),
        user: "default".into(),
        ..Line::default()
    });
    assert_eq!(matching("TYPE normal", &lines), [6, 8]);
    assert_eq!(matching("TYPE normal SKIPME no", &lines), [6, 7, 8]);
    assert!(matching("TYPE pubsub", &lines).is_empty());
    assert!(matching("TYPE replica SKIPME no", &lines).is_empty());
    assert_eq!(matching("ID 8 ADDR 127.0.0.1:8", &lines), [8]);
    assert!(matching("ID 8 ADDR 127.0.0.1:6", &lines).is_empty());
    assert_eq!(matching("LADDR 127.0.0.1:6380 USER default", &lines), [6, 8]);
    assert!(matching("LADDR 127.0.0.1:1", &lines).is_empty());
    // The old form closes the named client, even the requesting one.
    assert_eq!(matching("127.0.0.1:7", &lines), [7]);
}

#[test]
fn lines_in_the_order_asked() {
    let lines = || vec![(3, b"c".to_vec()), (1, b"a".to_vec()), (2, b"b".to_vec())];
    assert_eq!(Selection::Matching(Filter::default()).ordered(lines()), b"abc");
    assert_eq!(Selection::Ids(Ids::new(vec![3, 9, 1, 3])).ordered(lines()), b"cac");
}

#[test]
fn the_longer_and_stricter_pause_wins() {
    let at = |ms| Instant::now() + Duration::from_millis(ms);
    let (short, long) = (at(60_000), at(90_000));
    let strict = Pause { until: short, all: true };
    let lax = Pause { until: long, all: false };
    assert_eq!(lax.joined(Some(strict)), Pause { until: long, all: true });
    assert_eq!(strict.joined(Some(lax)), Pause { until: long, all: true });
    let over = Pause { until: Instant::now(), all: true };
    assert_eq!(lax.joined(Some(over)), lax);
    assert!(parse(&format!("CLIENT PAUSE {}", i64::MAX)).is_ok());
}

#[test]
fn newer_filters() {
    let line = |id, age, flags: &str| Line {
        id,
        age,
        flags: flags.into(),
        addr: format!("[::1]:{id}"),
        user: "default".into(),
        lib_name: if id == 8 { b"lib".to_vec() } else { Vec::new() },
        capa: if id == 8 { "r" } else { "" },
        ..Line::default()
    };
    let lines = [line(6, 5, "N"), line(7, 1, "N"), line(8, 90, "bx")];
    let listed = |words: &str| -> Vec<u64> {
        let asked = parse_as(&format!("CLIENT LIST {words}"), Grammar::Valkey90);
        let Ok(Question::List(selection)) = asked else { panic!("{words}: {asked:?}") };
        lines.iter().filter(|l| selection.wants(l)).map(|l| l.id).collect()
    };
    assert_eq!(listed("ID 8 6 TYPE normal"), [6, 8]);
    assert_eq!(listed("ID 8 ID 6"), [6, 8]);
    assert_eq!(listed("NOT-ID 8 6 SKIPME no"), [7]);
    assert_eq!(listed("SKIPME yes"), [6, 8]);
    assert_eq!(listed("MAXAGE 5"), [6, 8]);
    assert_eq!(listed("IP ::1 NOT-FLAGS b"), [6, 7]);
    assert_eq!(listed("FLAGS xb CAPA r LIB-NAME lib DB 0"), [8]);
    assert_eq!(listed("NOT-LIB-NAME lib NOT-CAPA r"), [6, 7]);
    assert!(listed("NAME x").is_empty() && listed("NOT-DB 0").is_empty());
    assert!(listed("USER default NOT-USER default").is_empty());
    assert_eq!(listed("FLAGS N FLAGS b"), [8], "the last one counts");
    for (grammar, line) in [
        (Grammar::Redis70, "CLIENT KILL MAXAGE 1"),
        (Grammar::Redis74, "CLIENT KILL ID 1 2"),
        (Grammar::Redis74, "CLIENT LIST MAXAGE 1"),
        (Grammar::Valkey81, "CLIENT LIST NOT-ID 1"),
        (Grammar::Valkey90, "CLIENT LIST NOT-MAXAGE 1"),
        (Grammar::Valkey90, "CLIENT LIST ID 1 x"),
    ] {
        assert_eq!(parse_as(line, grammar), Err(Failure::Syntax), "{line}");
    }
    assert!(parse_as("CLIENT KILL MAXAGE 1", Grammar::Redis74).is_ok());
    assert!(parse_as("CLIENT LIST TYPE primary", Grammar::Valkey80).is_ok());
    assert!(parse_as("CLIENT LIST TYPE primary", Grammar::Redis74).is_err());
}
