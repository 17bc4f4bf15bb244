//! Tests of `server`.

use super::*;

fn merged(server: ReportMerge, protocol: Protocol, parts: &[&str]) -> String {
    let parts: Vec<(&str, &[u8])> =
        parts.iter().zip(["a:1", "b:2", "c:3"]).map(|(p, n)| (n, p.as_bytes())).collect();
    let mut out = Vec::new();
    server.merge(&parts, protocol, &mut out);
    String::from_utf8(out).unwrap()
}

fn both(server: ReportMerge, parts: &[&str]) -> String {
    let one = merged(server, Protocol::Resp2, parts);
    assert_eq!(one, merged(server, Protocol::Resp3, parts));
    one
}

#[test]
fn slow_log() {
    let a = "*2\r\n*2\r\n:7\r\n:30\r\n*2\r\n:6\r\n:10\r\n";
    let b = "*2\r\n*2\r\n:9\r\n:30\r\n*2\r\n:8\r\n:20\r\n";
    assert_eq!(
        both(ReportMerge::SlowLog(Some(3)), &[a, b]),
        "*3\r\n*2\r\n:9\r\n:30\r\n*2\r\n:7\r\n:30\r\n*2\r\n:8\r\n:20\r\n"
    );
    assert!(both(ReportMerge::SlowLog(None), &[a, b, "*0\r\n"]).starts_with("*4\r\n"));
}

/// Redis before 7.0 logs CONFIG SET unredacted.
#[test]
fn slow_logs_of_old_nodes_are_redacted() {
    let entry = |last: &str| {
        format!(
            "*1\r\n*4\r\n:1\r\n:2\r\n:3\r\n*4\r\n$6\r\nCONFIG\r\n$3\r\nSET\r\n$11\r\nrequirepass\r\n\
             ${}\r\n{last}\r\n",
            last.len()
        )
    };
    let told = both(ReportMerge::SlowLog(Some(3)), &[&entry("hunter2")]);
    assert_eq!(told, entry("(redacted)"));
}

#[test]
fn acl_log() {
    let resp2 = ["*1\r\n*2\r\n$11\r\nage-seconds\r\n$5\r\n3.250\r\n"; 2];
    let newer2 = "*1\r\n*2\r\n$11\r\nage-seconds\r\n$5\r\n1.250\r\n";
    let log = merged(ReportMerge::AclLog(Some(2)), Protocol::Resp2, &[resp2[0], newer2, resp2[1]]);
    assert_eq!(log, format!("*2\r\n{}{}", &newer2[4..], &resp2[0][4..]));
    let older3 = "*1\r\n%1\r\n$11\r\nage-seconds\r\n,3.25\r\n";
    let newer3 = "*1\r\n%1\r\n$11\r\nage-seconds\r\n,1.25\r\n";
    let log = merged(ReportMerge::AclLog(DEFAULT_COUNT), Protocol::Resp3, &[older3, newer3]);
    assert_eq!(log, format!("*2\r\n{}{}", &newer3[4..], &older3[4..]));
    assert_eq!(both(ReportMerge::AclLog(DEFAULT_COUNT), &["+OK\r\n", "+OK\r\n"]), "+OK\r\n");
}

#[test]
fn latency() {
    let a = "*2\r\n*2\r\n:1\r\n:5\r\n*2\r\n:3\r\n:5\r\n";
    let b = "*2\r\n*2\r\n:2\r\n:9\r\n*2\r\n:3\r\n:6\r\n";
    assert_eq!(
        both(ReportMerge::LatencyHistory, &[a, b]),
        "*3\r\n*2\r\n:1\r\n:5\r\n*2\r\n:2\r\n:9\r\n*2\r\n:3\r\n:6\r\n"
    );
    let a = "*1\r\n*4\r\n$4\r\nfork\r\n:10\r\n:1\r\n:9\r\n";
    let b = "*2\r\n*4\r\n$4\r\nfork\r\n:20\r\n:2\r\n:3\r\n*4\r\n$3\r\ncmd\r\n:1\r\n:1\r\n:1\r\n";
    assert_eq!(
        both(ReportMerge::LatencyLatest, &[a, b]),
        "*2\r\n*4\r\n$4\r\nfork\r\n:20\r\n:2\r\n:9\r\n*4\r\n$3\r\ncmd\r\n:1\r\n:1\r\n:1\r\n"
    );
}

#[test]
fn slot_statistics() {
    let entry =
        |slot: i64, keys: i64| format!("*2\r\n:{slot}\r\n*2\r\n$9\r\nkey-count\r\n:{keys}\r\n");
    let a = format!("*2\r\n{}{}", entry(7, 1), entry(9, 5));
    let b = format!("*1\r\n{}", entry(8, 3));
    let by_slot = ReportMerge::SlotStats(SlotOrder::BySlot);
    let all = format!("*3\r\n{}{}{}", entry(7, 1), entry(8, 3), entry(9, 5));
    assert_eq!(both(by_slot, &[&a, &b]), all);
    let order = |line: &str| by_slot.with(&Args::new(line.as_bytes(), &crate::resp::words(line)));
    let top = order("CLUSTER SLOT-STATS ORDERBY key-count LIMIT 2");
    assert_eq!(both(top, &[&a, &b]), format!("*2\r\n{}{}", entry(9, 5), entry(8, 3)));
    let least = order("CLUSTER SLOT-STATS orderby KEY-COUNT asc limit 1");
    assert_eq!(both(least, &[&b, &a]), format!("*1\r\n{}", entry(7, 1)));
    assert_eq!(order("CLUSTER SLOT-STATS SLOTSRANGE 0 9"), by_slot);
}

#[test]
fn latency_histograms() {
    let a = "%1\r\n$3\r\nset\r\n%2\r\n$5\r\ncalls\r\n:3\r\n$14\r\nhistogram_usec\r\n%2\r\n:1\r\n:1\r\n:4\r\n:3\r\n";
    let b =
        "%1\r\n$3\r\nset\r\n%2\r\n$5\r\ncalls\r\n:2\r\n$14\r\nhistogram_usec\r\n%1\r\n:2\r\n:2\r\n";
    let sum = "%1\r\n$3\r\nset\r\n%2\r\n$5\r\ncalls\r\n:5\r\n$14\r\nhistogram_usec\r\n%3\r\n:1\r\n:1\r\n:2\r\n:3\r\n:4\r\n:5\r\n";
    assert_eq!(merged(ReportMerge::LatencyHistogram, Protocol::Resp3, &[a, b]), sum);
    let flat = |map: &str| {
        let flat = map.replace("%1\r\n", "*2\r\n").replace("%2\r\n", "*4\r\n");
        flat.replace("%3\r\n", "*6\r\n")
    };
    let resp2 = merged(ReportMerge::LatencyHistogram, Protocol::Resp2, &[&flat(a), &flat(b)]);
    assert_eq!(resp2, flat(sum));
}

#[test]
fn reports() {
    assert_eq!(
        merged(ReportMerge::Texts, Protocol::Resp3, &["=6\r\ntxt:hi\r\n"; 3]),
        "=6\r\ntxt:hi\r\n"
    );
    assert_eq!(merged(ReportMerge::Texts, Protocol::Resp3, &["$2\r\nhi\r\n"; 3]), "$2\r\nhi\r\n");
    assert_eq!(
        merged(ReportMerge::Texts, Protocol::Resp2, &["$2\r\nhi\r\n", "$2\r\nho\r\n"]),
        "$18\r\n# a:1\nhi\n# b:2\nho\n\r\n"
    );
}

#[test]
fn memory() {
    let node = |total: i64, keys: i64, double: &str| {
        format!(
            "%5\r\n$14\r\npeak.allocated\r\n:{}\r\n$15\r\ntotal.allocated\r\n:{total}\r\n$4\r\ndb.0\r\n%1\r\n$4\r\nmain\r\n:3\r\n$10\r\nkeys.count\r\n:{keys}\r\n$15\r\npeak.percentage\r\n{double}\r\n",
            total * 2
        )
    };
    let [a, b] = [node(100, 1, ",50"), node(300, 2, ",50")];
    assert_eq!(
        merged(ReportMerge::MemoryStats, Protocol::Resp3, &[&a, &b]),
        node(400, 3, ",50").replace(":3\r\n$10", ":6\r\n$10")
    );
    let [a, b] = [node(100, 1, "$4\r\n50.1"), node(300, 2, "$4\r\n49.9")]
        .map(|n| n.replace("%5", "*10").replace("%1", "*2"));
    let sum = merged(ReportMerge::MemoryStats, Protocol::Resp2, &[&a, &b]);
    assert!(sum.starts_with("*10\r\n") && sum.ends_with("$2\r\n50\r\n"), "{sum}");
}

#[test]
fn running_functions() {
    let idle = "%2\r\n$14\r\nrunning_script\r\n_\r\n$7\r\nengines\r\n%0\r\n";
    let busy =
        "%2\r\n$14\r\nrunning_script\r\n%1\r\n$11\r\nduration_ms\r\n:9\r\n$7\r\nengines\r\n%0\r\n";
    assert_eq!(merged(ReportMerge::FunctionStats, Protocol::Resp3, &[idle, busy, idle]), busy);
    assert_eq!(merged(ReportMerge::FunctionStats, Protocol::Resp3, &[idle, idle]), idle);
    let idle = "*4\r\n$14\r\nrunning_script\r\n$-1\r\n$7\r\nengines\r\n*0\r\n";
    let busy =
        "*4\r\n$14\r\nrunning_script\r\n*2\r\n$11\r\nduration_ms\r\n:9\r\n$7\r\nengines\r\n*0\r\n";
    assert_eq!(merged(ReportMerge::FunctionStats, Protocol::Resp2, &[idle, busy]), busy);
}

#[test]
fn role() {
    let node = "*3\r\n$6\r\nmaster\r\n:7\r\n*1\r\n*3\r\n$1\r\nh\r\n$1\r\n1\r\n$1\r\n7\r\n";
    assert_eq!(both(ReportMerge::Role, &[node, node]), "*3\r\n$6\r\nmaster\r\n:14\r\n*0\r\n");
}

#[test]
fn random_keys_by_weight() {
    let parts: [(&str, &[u8]); 6] = [
        ("x", b":3\r\n"),
        ("y", b":0\r\n"),
        ("x", b"$1\r\na\r\n"),
        ("y", b"$-1\r\n"),
        ("z", b"$1\r\nb\r\n"),
        ("z", b":1\r\n"),
    ];
    let pick = |random| {
        let mut out = Vec::new();
        random_key(&parts, Protocol::Resp2, random, &mut out);
        String::from_utf8(out).unwrap()
    };
    let picked: String = (0..8).map(|n| pick(n).chars().nth(4).unwrap()).collect();
    assert_eq!(picked, "aaabaaab");
    assert_eq!(merged(ReportMerge::RandomKey, Protocol::Resp3, &["_\r\n", ":0\r\n"]), "_\r\n");
}

#[test]
fn counts() {
    let count = |line: &str| {
        let ranges = crate::resp::words(line);
        let args = Args::new(line.as_bytes(), &ranges);
        (ReportMerge::SlowLog(None).with(&args), ReportMerge::AclLog(None).with(&args))
    };
    let both = |n| (ReportMerge::SlowLog(n), ReportMerge::AclLog(n));
    assert_eq!(count("SLOWLOG GET"), both(Some(10)));
    assert_eq!(count("SLOWLOG GET 3"), both(Some(3)));
    assert_eq!(count("SLOWLOG GET -1"), (ReportMerge::SlowLog(None), ReportMerge::AclLog(Some(0))));
    assert_eq!(count("ACL LOG RESET"), both(Some(10)));
}

/// A node may send anything.
#[test]
fn unexpected_replies_do_not_panic() {
    let all = [
        ReportMerge::SlowLog(Some(2)),
        ReportMerge::AclLog(Some(2)),
        ReportMerge::LatencyHistory,
        ReportMerge::LatencyLatest,
        ReportMerge::LatencyHistogram,
        ReportMerge::Texts,
        ReportMerge::MemoryStats,
        ReportMerge::FunctionStats,
        ReportMerge::Role,
        ReportMerge::SlotStats(SlotOrder::BySlot),
        ReportMerge::SlotStats(SlotOrder::ByMetric { metric: "", ascending: true, limit: 1 }),
        ReportMerge::RandomKey,
    ];
    for server in all {
        for frame in [
            "+OK\r\n",
            ":1\r\n",
            "*1\r\n*0\r\n",
            "*2\r\n_\r\n$-1\r\n",
            "%1\r\n*0\r\n:1\r\n",
            "_\r\n",
        ] {
            merged(server, Protocol::Resp3, &[frame, "*0\r\n"]);
            merged(server, Protocol::Resp2, &["*0\r\n", frame]);
        }
    }
}
