//! Tests of `value`.

use super::super::node_zone::parse_node_zone;
use super::*;

#[test]
fn durations_read_back() {
    for (text, millis) in
        [("0", 0), ("1ms", 1), ("1500ms", 1500), ("5s", 5000), ("2m", 120_000), ("1h", 3_600_000)]
    {
        let duration = parse_duration(text).unwrap();
        assert_eq!(duration, Duration::from_millis(millis));
        assert_eq!(show_duration(duration), text);
    }
    for wrong in ["", "5", "s", "5sec", "1.5s", "-1s", "99999999999999999999s", "9999999999999999h"]
    {
        parse_duration(wrong).unwrap_err();
    }
}

#[test]
fn sizes_read_back() {
    for (text, bytes) in
        [("0B", 0), ("100B", 100), ("512KiB", 512 << 10), ("64MiB", 64 << 20), ("1GiB", 1 << 30)]
    {
        assert_eq!(parse_size(text).unwrap(), bytes);
        assert_eq!(show_size(bytes), text);
    }
    for wrong in ["", "5", "MiB", "5MB", "5mib", "1.5GiB", "-1B", "99999999999GiB", "5x"] {
        parse_size(wrong).unwrap_err();
    }
    assert!(parse_size("64mb").unwrap_err().contains("\"64MiB\""));
}

#[test]
fn addresses_read_back() {
    for url in ["redis://:hunter2@h:1", "redis://u:hunter2@h", "hunter2@h:1"] {
        assert!(!parse_address(url, 1).unwrap_err().contains("hunter2"), "{url}");
    }
    for text in ["127.0.0.1:6379", "[::1]:6379", "redis-0.redis.svc.cluster.local:7000", "a_b.:1"] {
        assert_eq!(parse_address(text, 1).unwrap().to_string(), text);
    }
    assert_eq!(parse_address("localhost:0", 0).unwrap().port, 0);
    for wrong in [
        "",
        "localhost",
        ":6379",
        "::1",
        "::1:6379",
        "[::1]",
        "[x]:1",
        "a:0",
        "a:65536",
        "a:x",
        "a b:1",
        "10.0.0.256:1",
        "a..b:1",
        "-a:1",
        "redis://a:1",
    ] {
        parse_address(wrong, 1).unwrap_err();
    }
}

#[test]
fn zones_of_nodes_read_back() {
    for text in ["10.0.0.1=a", "::1=eu-1a", "[::1]:7000=b", "redis-0.redis:7000=c"] {
        assert_eq!(parse_node_zone(text).unwrap().to_string(), text);
    }
    for wrong in ["", "a", "=z", "10.0.0.1=", "10.0.0.1=a b", "a:x=z", "10.0.0.256=z"] {
        parse_node_zone(wrong).unwrap_err();
    }
}

#[test]
fn networks_read_back() {
    for text in ["10.0.0.0/8", "0.0.0.0/0", "10.1.2.3/32", "2001:db8::/32", "::/0", "::1/128"] {
        assert_eq!(parse_network(text).unwrap().to_string(), text);
    }
    assert_eq!(parse_network("10.1.2.3").unwrap().to_string(), "10.1.2.3/32");
    for wrong in [
        "",
        "a",
        "10.0.0.0/",
        "10.0.0.0/33",
        "10.0.0.0/-1",
        "::/129",
        "10.0.0/8",
        "::ffff:1.2.3.4/96",
    ] {
        parse_network(wrong).unwrap_err();
    }
    for (network, ip, contains) in [
        ("10.0.0.0/8", "10.255.0.1", true),
        ("10.0.0.0/8", "11.0.0.1", false),
        ("10.9.9.9/8", "10.0.0.1", true),
        ("10.0.0.0/8", "::ffff:10.0.0.1", true),
        ("10.0.0.0/8", "a00::1", false),
        ("0.0.0.0/0", "1.2.3.4", true),
        ("0.0.0.0/0", "::1", false),
        ("::/0", "2001::1", true),
        ("::/0", "1.2.3.4", false),
        ("10.1.2.3", "10.1.2.3", true),
        ("10.1.2.3", "10.1.2.2", false),
        ("2001:db8::/33", "2001:db8:7fff::1", true),
        ("2001:db8::/33", "2001:db8:8000::1", false),
    ] {
        let found = parse_network(network).unwrap().contains(ip.parse().unwrap());
        assert_eq!(found, contains, "{ip} in {network}");
    }
}

#[test]
fn listeners_read_back() {
    for text in ["0.0.0.0:6379", "unix:/run/slotway.sock", "unix:relative.sock"] {
        assert_eq!(parse_listen(text).unwrap().to_string(), text);
    }
    assert!(parse_listen("/run/slotway.sock").unwrap_err().contains("\"unix:/run/slotway.sock\""));
    parse_listen("unix:").unwrap_err();
    parse_listen(&format!("unix:/{}", "x".repeat(106))).unwrap();
    parse_listen(&format!("unix:/{}", "x".repeat(107))).unwrap_err();
}

#[test]
fn levels_are_checked() {
    for right in ["info", "off", "info,slotway::upstream=debug", "warn, slotway=trace"] {
        parse_level(right).unwrap();
    }
    for wrong in ["", "inof", "info,", "slotway=loud", "=info", "a b=info"] {
        parse_level(wrong).unwrap_err();
    }
    assert!(parse_level("inof").unwrap_err().contains("\"info\""));
}

#[test]
fn secrets_are_not_shown() {
    assert!(!format!("{:?}", Secret::new("hunter2")).contains("hunter2"));
}
