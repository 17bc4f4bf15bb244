//! INFO texts (7.0.15, `INFO everything`) of a cluster's primaries and of a standalone server.

use super::*;

const PRIMARIES: [&[u8]; 3] = [
    include_bytes!("../../../tests/data/info/primary-1.txt"),
    include_bytes!("../../../tests/data/info/primary-2.txt"),
    include_bytes!("../../../tests/data/info/primary-3.txt"),
];
const STANDALONE: &[u8] = include_bytes!("../../../tests/data/info/standalone.txt");

fn merged(parts: &[&[u8]]) -> String {
    let section = "slotway_version:1\nworkers:2\n".into();
    let proxy =
        ProxyInfo { clients: 12, blocked: 3, max_clients: 500, section, ..ProxyInfo::default() };
    String::from_utf8(merge_info(parts, Some(&proxy))).unwrap()
}

fn field(text: &str, name: &str) -> String {
    let value = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':'));
    value.unwrap_or_else(|| panic!("no {name} in {text}")).to_owned()
}

#[test]
fn shows_the_announced_mode() {
    let valkey = b"# Server\r\nserver_mode:cluster\r\n\r\n# Cluster\r\ncluster_enabled:1\r\n";
    for (announce_mode, mode, enabled) in
        [(AnnounceMode::Standalone, "standalone", "0"), (AnnounceMode::Cluster, "cluster", "1")]
    {
        let proxy = ProxyInfo { announce_mode, ..ProxyInfo::default() };
        for (parts, name) in [(&PRIMARIES[..], "redis_mode"), (&[&valkey[..]], "server_mode")] {
            let text = String::from_utf8(merge_info(parts, Some(&proxy))).unwrap();
            assert_eq!(field(&text, name), mode);
            assert_eq!(field(&text, "cluster_enabled"), enabled);
        }
    }
}

/// The field of each primary, as numbers.
fn each(name: &str) -> Vec<u64> {
    let text = |part: &[u8]| String::from_utf8(part.to_vec()).unwrap();
    PRIMARIES.iter().map(|part| field(&text(part), name).parse().unwrap()).collect()
}

#[test]
fn reads_like_a_standalone_server() {
    let text = merged(&PRIMARIES);
    assert_eq!(field(&text, "redis_mode"), "standalone");
    assert_eq!(field(&text, "cluster_enabled"), "0");
    assert_eq!(field(&text, "role"), "master");
    assert_eq!(field(&text, "connected_clients"), "12");
    assert_eq!(field(&text, "blocked_clients"), "3");
    assert_eq!(field(&text, "maxclients"), "500");
    assert!(!text.contains("slave0:"));
    // The same fields in the same order, except for those that depend on earlier commands.
    let fixed = |text: &str| -> Vec<String> {
        let varying = ["cmdstat_", "errorstat_", "latency_percentiles"];
        let lines = text.split("\r\n").take_while(|l| *l != "# Proxy");
        let names = lines.map(|l| l.split(':').next().unwrap_or_default().to_owned());
        names.filter(|n| !varying.iter().any(|v| n.starts_with(v))).collect()
    };
    let mut ours = fixed(&text);
    assert_eq!(ours.pop().as_deref(), Some(""), "the empty line before # Proxy");
    ours.push(String::new());
    assert_eq!(ours, fixed(std::str::from_utf8(STANDALONE).unwrap()));
    assert!(text.ends_with("\r\n\r\n# Proxy\r\nslotway_version:1\r\nworkers:2\r\n"));
}

#[test]
fn a_single_shard_is_unchanged() {
    let text = String::from_utf8(merge_info(&[STANDALONE], None)).unwrap();
    let differing: Vec<_> = text
        .split("\r\n")
        .zip(std::str::from_utf8(STANDALONE).unwrap().split("\r\n"))
        .filter(|(ours, theirs)| ours != theirs)
        .map(|(ours, _)| ours.split(':').next().unwrap())
        .collect();
    // The server samples these some milliseconds before its sums.
    let sampled = ["used_memory_peak_perc", "used_memory_dataset_perc", "mem_fragmentation_ratio"];
    // Paths on the node are hidden.
    let hidden = ["executable", "config_file"];
    let expected = |name: &&str| sampled.contains(name) || hidden.contains(name);
    assert!(differing.iter().all(expected), "{differing:?}");
    let original = std::str::from_utf8(STANDALONE).unwrap();
    let paths: usize = hidden.iter().map(|name| field(original, name).len()).sum();
    assert!(hidden.iter().all(|name| field(&text, name).is_empty()) && paths > 0);
    assert_eq!(text.len() + paths, STANDALONE.len());
}

#[test]
fn sums_and_ratios() {
    let text = merged(&PRIMARIES);
    for name in ["used_memory", "total_commands_processed", "keyspace_misses"] {
        assert_eq!(field(&text, name), each(name).iter().sum::<u64>().to_string(), "{name}");
    }
    assert_eq!(field(&text, "connected_slaves"), "1");
    let used: u64 = each("used_memory").iter().sum();
    assert_eq!(field(&text, "used_memory_human"), format!("{:.2}M", used as f64 / 1048576.0));
    let rss: u64 = each("used_memory_rss").iter().sum();
    let ratio = format!("{:.2}", rss as f64 / used as f64);
    assert_eq!(field(&text, "mem_fragmentation_ratio"), ratio);
    assert_eq!(field(&text, "maxmemory_human"), "0B");
    let recent = *each("client_recent_max_input_buffer").iter().max().unwrap();
    assert_eq!(field(&text, "client_recent_max_input_buffer"), recent.to_string());
    let saved = *each("rdb_last_save_time").iter().min().unwrap();
    assert_eq!(field(&text, "rdb_last_save_time"), saved.to_string());
    let cpu = field(&text, "used_cpu_sys");
    assert_eq!(cpu.split_once('.').unwrap().1.len(), 6, "{cpu}");
}

#[test]
fn statistics_by_command_and_by_database() {
    let text = merged(&PRIMARIES);
    let part = |i: usize, name: &str, key: &str| -> f64 {
        let list = field(std::str::from_utf8(PRIMARIES[i]).unwrap(), name);
        let item = list.split(',').find_map(|item| item.strip_prefix(&format!("{key}=")));
        item.unwrap().parse().unwrap()
    };
    let sum = |name: &str, key: &str| (0..3).map(|i| part(i, name, key)).sum::<f64>();
    let ttl: f64 = (0..3).map(|i| part(i, "db0", "avg_ttl") * part(i, "db0", "expires")).sum();
    let expires = sum("db0", "expires");
    let expected =
        format!("keys={},expires={expires},avg_ttl={:.0}", sum("db0", "keys"), ttl / expires);
    assert_eq!(field(&text, "db0"), expected);

    let (calls, usec) = (sum("cmdstat_get", "calls"), sum("cmdstat_get", "usec"));
    let (rejected, failed) =
        (sum("cmdstat_get", "rejected_calls"), sum("cmdstat_get", "failed_calls"));
    let expected = format!(
        "calls={calls},usec={usec},usec_per_call={:.2},rejected_calls={rejected},\
         failed_calls={failed}",
        usec / calls
    );
    assert_eq!(field(&text, "cmdstat_get"), expected);
    assert_eq!(
        field(&text, "errorstat_MOVED"),
        format!("count={}", sum("errorstat_MOVED", "count"))
    );
    // The first primary sent CLUSTER MEET, so only the others count it.
    assert!(field(&text, "cmdstat_cluster|meet").starts_with("calls="));
    assert_eq!(text.matches("\ncmdstat_set:").count(), 1);
    assert!(field(&text, "latency_percentiles_usec_set").starts_with("p50="));
}

#[test]
fn rules_for_rare_states() {
    let a =
        b"# Memory\r\nmaxmemory:100\r\nmaxmemory_human:100B\r\n\r\n# Persistence\r\nloading:0\r\n\
        aof_last_write_status:ok\r\ncurrent_fork_perc:10.00\r\n\r\n# Stats\r\nodd:x\r\n\
        instantaneous_input_kbps:1.25\r\n";
    let b = b"# Memory\r\nmaxmemory:2000\r\nmaxmemory_human:1.95K\r\n\r\n# Persistence\r\nloading:1\r\n\
        aof_last_write_status:err\r\ncurrent_fork_perc:0.00\r\n\r\n# Stats\r\nodd:7\r\n\
        instantaneous_input_kbps:0.50\r\n\r\n# Extra\r\nonly:here\r\n";
    let text = String::from_utf8(merge_info(&[a, b], None)).unwrap();
    assert_eq!(
        text,
        "# Memory\r\nmaxmemory:2100\r\nmaxmemory_human:2.05K\r\n\r\n# Persistence\r\nloading:1\r\n\
         aof_last_write_status:err\r\ncurrent_fork_perc:5.00\r\n\r\n# Stats\r\nodd:x\r\n\
         instantaneous_input_kbps:1.75\r\n\r\n# Extra\r\nonly:here\r\n"
    );
    let none = b"# Memory\r\nmaxmemory:0\r\nmaxmemory_human:0B\r\n";
    let text = String::from_utf8(merge_info(&[a, none], None)).unwrap();
    assert!(text.starts_with("# Memory\r\nmaxmemory:0\r\nmaxmemory_human:0B\r\n"), "{text}");
}

#[test]
fn arbitrary_input_is_accepted() {
    assert_eq!(merge_info(&[], None), b"");
    let proxy = ProxyInfo { section: "a:1".into(), ..ProxyInfo::default() };
    assert_eq!(merge_info(&[], Some(&proxy)), b"# Proxy\r\na:1\r\n");
    assert_eq!(merge_info(&[], Some(&ProxyInfo::default())), b"");
    assert_eq!(merge_info(&[b"", b"\xff\xfe", b"x:1\r\n", b"# \r\n:\r\n"], None), b"# \r\n:\r\n");
    for cut in (0..PRIMARIES[0].len()).step_by(11) {
        merge_info(&[&PRIMARIES[0][..cut], PRIMARIES[1]], None);
    }
}

#[test]
fn human_readable_sizes_are_the_servers() {
    for (bytes, text) in [
        (0, "0B"),
        (1023, "1023B"),
        (1024, "1.00K"),
        (65 * 1024, "65.00K"),
        (2_014_928, "1.92M"),
        (25_276_510_208, "23.54G"),
        (1 << 40, "1.00T"),
        (u64::MAX, "16384.00P"),
    ] {
        assert_eq!(human(bytes), text);
    }
}
