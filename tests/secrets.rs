//! The nodes' secrets, which slotway logs in with and no client gets: passwords, their hashes,
//! passphrases of keys.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use crate::common::Proxy;
use slotway::sandbox::{Cluster, ClusterOptions, Conn, Reply};
use slotway::users::Hash;

const NODES: &str = "s3cret-nodes";
const REPLICAS: &str = "s3cret-replicas";
const PASSPHRASE: &str = "s3cret-key";
const REPLICATOR: &str = "s3cret-replicator";

/// Nodes with a password, another one for their replicas, and a passphrase.
fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| {
        let conf = vec![
            format!("user {REPLICATOR} on >{REPLICAS} ~* &* +@all"),
            format!("masteruser {REPLICATOR}"),
            format!("masterauth {REPLICAS}"),
            format!("tls-key-file-pass {PASSPHRASE}"),
            format!("tls-client-key-file-pass {PASSPHRASE}"),
            "slowlog-log-slower-than 0".into(),
        ];
        let password = Some(NODES.into());
        Cluster::start(ClusterOptions { password, conf, ..Default::default() }).expect("a cluster")
    })
}

fn ask(conn: &mut Conn, line: &str) -> Reply {
    let words: Vec<&str> = line.split(' ').collect();
    conn.command(&words).expect(line)
}

/// All texts of a reply, in their order.
fn texts(reply: &Reply) -> Vec<String> {
    match reply {
        Reply::Map(pairs) => {
            pairs.iter().flat_map(|(k, v)| [texts(k), texts(v)].concat()).collect()
        }
        Reply::Array(items) | Reply::Set(items) | Reply::Push(items) => {
            items.iter().flat_map(texts).collect()
        }
        other => other.text().or(other.error().map(str::to_owned)).into_iter().collect(),
    }
}

fn names(reply: &Reply) -> BTreeSet<String> {
    texts(reply).into_iter().step_by(2).collect()
}

fn node() -> Conn {
    let mut conn = Conn::tcp(cluster().addrs()[0]).expect("a node");
    assert!(ask(&mut conn, &format!("AUTH {NODES}")).is_ok());
    conn
}

/// One slotway for each way in which clients log in, and what its clients send first.
fn proxies() -> Vec<(&'static str, Proxy, Option<String>)> {
    let mut admin = node();
    let hash = Hash::of(b"pw").hex();
    for addr in cluster().addrs() {
        let mut conn = Conn::tcp(addr).expect("a node");
        assert!(ask(&mut conn, &format!("AUTH {NODES}")).is_ok());
        assert!(ask(&mut conn, &format!("ACL SETUSER secrets-pt on #{hash} ~* &* +@all")).is_ok());
    }
    assert!(!texts(&ask(&mut admin, "CONFIG GET requirepass")).is_empty());
    let password = format!("upstream.password={NODES}");
    let start = |more: &[&str]| {
        let mut args = vec!["--set", &password];
        args.extend(more.iter().flat_map(|setting| ["--set", setting]));
        Proxy::start(cluster(), &args)
    };
    vec![
        ("open", start(&[]), None),
        ("own", start(&["users=me on >pw ~* &* +@all"]), Some("AUTH me pw".into())),
        ("passthrough", start(&["auth=passthrough"]), Some("AUTH secrets-pt pw".into())),
        ("split", start(&["transactions.cross_slot=split"]), None),
    ]
}

fn connect(proxy: &Proxy, protocol: &str, login: Option<&String>) -> Conn {
    let mut conn = proxy.connect();
    if let Some(login) = login {
        assert!(ask(&mut conn, login).is_ok());
    }
    assert!(ask(&mut conn, &format!("HELLO {protocol}")).error().is_none());
    conn
}

#[test]
fn no_client_gets_the_secrets_of_the_nodes() {
    let all = names(&ask(&mut node(), "CONFIG GET *"));
    let secret = ["masterauth", "masteruser", "requirepass", "tls-key-file-pass"];
    let secret: BTreeSet<String> =
        secret.into_iter().chain(["tls-client-key-file-pass"]).map(str::to_owned).collect();
    let hashes = [NODES, REPLICAS].map(|password| Hash::of(password.as_bytes()).hex());
    let shows = |reply: &Reply| {
        let said = texts(reply).join(" ");
        let secrets = [NODES, REPLICAS, PASSPHRASE].into_iter().chain(hashes.iter().map(|h| &**h));
        secrets.filter(|secret| said.contains(secret)).count()
    };
    for (way, proxy, login) in proxies() {
        for protocol in ["2", "3"] {
            let mut conn = connect(&proxy, protocol, login.as_ref());
            // Everything but the secrets, as from a server that does not have these settings.
            let shown = names(&ask(&mut conn, "CONFIG GET *"));
            assert_eq!(all.difference(&shown).cloned().collect::<BTreeSet<_>>(), secret, "{way}");
            assert!(all.is_superset(&shown), "{way}");
            for line in [
                "CONFIG GET requirepass",
                "config get REQUIREPASS",
                "CONFIG GET masterauth",
                "CONFIG GET masteruser",
                "CONFIG GET tls-key-file-pass",
                "CONFIG GET r?quirepas[s]",
                "CONFIG GET masterauth masteruser requirepass",
            ] {
                assert!(names(&ask(&mut conn, line)).is_empty(), "{way} {line}");
                assert!(ask(&mut conn, "MULTI").is_ok());
                ask(&mut conn, "SET {s}k v");
                let queued = ask(&mut conn, line);
                assert_eq!(queued.text().as_deref(), Some("QUEUED"), "{way} {line}");
                let replies = ask(&mut conn, "EXEC");
                let [set, got] = replies.items().unwrap_or_default() else {
                    panic!("{way} {line}: {replies:?}")
                };
                assert!(set.is_ok() && texts(got).is_empty(), "{way} {line}: {replies:?}");
            }
            let both = ask(&mut conn, "CONFIG GET maxmemory requirepass");
            assert_eq!(texts(&both), ["maxmemory", "0"], "{way}");
            // Other commands that tell what nodes know.
            for line in ["INFO all", "MODULE LIST", "CLIENT LIST", "SLOWLOG GET 128", "ROLE"] {
                let reply = ask(&mut conn, line);
                assert!(reply.error().is_none() && shows(&reply) == 0, "{way} {line}: {reply:?}");
            }
            let logs = ask(&mut conn, "PROXY SLOWLOG NODES GET -1");
            assert!(logs.error().is_none() && shows(&logs) == 0, "{way}: {logs:?}");
            let info = ask(&mut conn, "INFO server").text().expect("a text");
            assert!(
                info.contains("executable:\r\n") && info.contains("config_file:\r\n"),
                "{info}"
            );
            // The nodes' users, unless the nodes themselves have let this user see them.
            for line in ["ACL LIST", "ACL GETUSER default", &format!("ACL GETUSER {REPLICATOR}")] {
                let reply = ask(&mut conn, line);
                assert!(reply.error().is_none(), "{way} {line}: {reply:?}");
                let hidden =
                    if way == "passthrough" { shows(&reply) > 0 } else { shows(&reply) == 0 };
                assert!(hidden, "{way} {line}: {reply:?}");
                if way == "open" {
                    assert!(texts(&reply).join(" ").contains("(redacted)"), "{way} {line}");
                }
            }
            assert_eq!(ask(&mut conn, "ACL GETUSER nobody"), Reply::Nil, "{way}");
        }
    }
}

/// Who could set where nodes log in to each other would be told their password there.
#[test]
fn no_client_has_nodes_log_in_elsewhere() {
    for (way, proxy, login) in proxies() {
        let mut conn = connect(&proxy, "2", login.as_ref());
        for line in [
            "CONFIG SET requirepass s3cret-mine",
            "CONFIG SET maxmemory 0 RequirePass s3cret-mine",
            "CONFIG SET cluster-announce-ip 192.0.2.1",
            "CONFIG SET replica-announce-ip 192.0.2.1",
            "REPLICAOF 192.0.2.1 6379",
            "SLAVEOF 192.0.2.1 6379",
            "FAILOVER TO 192.0.2.1 6379",
            "CLUSTER MEET 192.0.2.1 6379",
            "MIGRATE 192.0.2.1 6379 k 0 1000",
            "PSYNC ? -1",
        ] {
            let refused = ask(&mut conn, line);
            let text = refused.error().unwrap_or_default();
            assert!(text.starts_with("NOPERM"), "{way} {line}: {refused:?}");
            assert!(!text.contains("s3cret"), "{way} {line}: {text}");
        }
        assert!(ask(&mut conn, "CONFIG SET maxmemory-samples 5").is_ok(), "{way}");
        let value = texts(&ask(&mut node(), "CONFIG GET requirepass"));
        assert_eq!(value, ["requirepass", NODES], "{way}");
    }
}
