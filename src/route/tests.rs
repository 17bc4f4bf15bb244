//! Tests of `route`.

use super::*;
use crate::cluster::slot_of;

fn plan(line: &str) -> Plan {
    let router = Router::new(Arc::new(CommandTable::builtin()));
    let ranges = crate::resp::words(line);
    let args = Args::new(line.as_bytes(), &ranges);
    router.plan(ViewId::ROUTED, router.command(&args), &args, &mut Vec::new())
}

fn at(key: &str) -> Plan {
    Plan::Slot(slot_of(key.as_bytes()))
}

#[test]
fn routes_by_keys() {
    assert_eq!(plan("GET foo"), at("foo"));
    assert_eq!(plan("get {a}b"), at("a"));
    let script = |kind, key: &str| Plan::Script(kind, Some(slot_of(key.as_bytes())));
    assert_eq!(plan("EVAL return 2 {x}1 {x}2 {y}"), script(Script::Eval, "x"));
    assert_eq!(plan("EVAL return 2 x y"), Plan::CrossSlot(slot_of(b"x")));
    assert_eq!(plan("EVALSHA_RO 123 2 x y"), Plan::CrossSlot(slot_of(b"x")));
    assert_eq!(plan("FCALL f 2 x y"), Plan::CrossSlot(slot_of(b"x")));
    assert_eq!(plan("EVALSHA_RO 123 1 x"), script(Script::EvalSha, "x"));
    assert_eq!(plan("EVAL return 0"), Plan::Script(Script::Eval, None));
    assert_eq!(plan("CLUSTER GETKEYSINSLOT 7 10"), Plan::Slot(Slot(7)));
    assert_eq!(plan("CLUSTER COUNTKEYSINSLOT 16384"), Plan::Any);
    assert_eq!(plan("XREAD COUNT 2 STREAMS s 0"), at("s"));
    let block = Plan::Block(Some(slot_of(b"s")));
    assert_eq!(plan("XREAD BLOCK 0 STREAMS s 0"), block);
    let block = Plan::Block(Some(slot_of(b"k")));
    assert_eq!(plan("BLPOP k 0"), block);
    assert_eq!(plan("BLMOVE {k}a {k}b LEFT LEFT 0"), block);
    assert_eq!(plan("XREADGROUP GROUP streams c BLOCK 0 STREAMS k >"), block);
    assert_eq!(plan("XREADGROUP GROUP block c STREAMS k >"), at("k"));
    assert_eq!(plan("ZUNIONSTORE {d} 2 {d}a {d}b"), at("d"));
    assert_eq!(plan("OBJECT ENCODING foo"), at("foo"));
    assert_eq!(plan("MEMORY USAGE foo"), at("foo"));
}

#[test]
fn routes_keys_in_several_slots() {
    assert_eq!(plan("MGET a b"), Plan::Split { merge: Merge::Array, step: 1 });
    assert_eq!(plan("MGET {a}1 {a}2"), at("a"));
    assert_eq!(plan("MSET a 1 b 2"), Plan::Split { merge: Merge::AllSucceeded, step: 2 });
    assert_eq!(plan("DEL a b c"), Plan::Split { merge: Merge::Sum, step: 1 });
    let several = |key: &str| Plan::CrossSlot(slot_of(key.as_bytes()));
    assert_eq!(plan("MSETNX a 1 b 2"), several("a"));
    assert_eq!(plan("SINTER a b"), several("a"));
    assert_eq!(plan("BLPOP a b 0"), several("a"));
    assert_eq!(plan("SORT a STORE b"), several("a"));
    assert_eq!(plan("SORT a BY w_* GET #"), several("a"));
    assert_eq!(plan("SORT_RO a GET #"), several("a"));
    assert_eq!(plan("SORT a BY nosort LIMIT get 1 ALPHA"), at("a"));
    assert_eq!(plan("SORT_RO a"), at("a"));
    assert_eq!(plan("MSETNX {a}x 1 {a}y 2"), at("a"));
}

#[test]
fn routes_to_the_whole_cluster() {
    assert_eq!(plan("DBSIZE"), Plan::Fan { to: Fan::Primaries, merge: Merge::Sum });
    assert_eq!(plan("KEYS *"), Plan::Join);
    assert_eq!(plan("SCRIPT LOAD x"), Plan::Script(Script::Load, None));
    assert_eq!(plan("SCRIPT EXISTS x"), Plan::Script(Script::Exists, None));
    assert_eq!(plan("INFO"), Plan::Fan { to: Fan::Primaries, merge: Merge::Info { proxy: true } });
}

#[test]
fn invalid_requests_go_to_a_node() {
    for line in ["GET", "MGET", "MSET a", "DBSIZE x", "NOSUCH a", "CLIENT NOSUCH", "EVAL x"] {
        assert_eq!(plan(line), Plan::Any, "{line}");
    }
}

#[test]
fn commands_answered_or_refused_by_slotway() {
    assert_eq!(plan("PING"), Plan::Local(Local::Ping));
    assert_eq!(plan("CLIENT SETINFO LIB-NAME x"), Plan::Local(Local::ClientSetInfo));
    assert_eq!(plan("CLIENT LIST"), Plan::Local(Local::ClientEveryone));
    assert_eq!(plan("CLIENT KILL ID 1"), Plan::Local(Local::ClientEveryone));
    let subscribe = PubSub::Subscribe(crate::channel::TopicKind::Channel);
    assert_eq!(plan("SUBSCRIBE a"), Plan::PubSub(subscribe, None));
    let spublish = Plan::PubSub(PubSub::ShardPublish, Some(slot_of(b"a")));
    assert_eq!(plan("SPUBLISH a b"), spublish);
    assert_eq!(plan("PUBSUB CHANNELS a b"), Plan::Any);
    assert_eq!(plan("PUBSUB HELP"), Plan::Any);
    assert_eq!(plan("MULTI"), Plan::Transaction(Transaction::Multi));
    assert_eq!(plan("SHUTDOWN"), Plan::Refuse(RefusalReason::Dangerous));
    let password = "CONFIG SET maxmemory 0 RequirePass x";
    assert_eq!(plan(password), Plan::Refuse(RefusalReason::NodesAccess));
    for name in ["cluster-announce-ip", "Replica-Announce-Port"] {
        let line = format!("CONFIG SET maxmemory 0 {name} x");
        assert_eq!(plan(&line), Plan::Refuse(RefusalReason::NodesAccess), "{line}");
    }
    for (line, filter) in [
        ("config get *", Filter::ConfigGet),
        ("CONFIG GET a b", Filter::ConfigGet),
        ("ACL LIST", Filter::AclList),
        ("ACL LIST x", Filter::AclList),
        ("ACL GETUSER u", Filter::AclGetUser),
        ("MODULE LIST", Filter::ModuleList),
    ] {
        let filtered = Plan::Fan { to: Fan::One, merge: Merge::Filtered(filter) };
        assert_eq!(plan(line), filtered, "{line}");
    }
    let to_all = Plan::Fan { to: Fan::Nodes, merge: Merge::AllSucceeded };
    assert_eq!(plan("CONFIG SET maxmemory 0"), to_all);
    assert_eq!(plan("CLUSTER SLOTS"), Plan::Local(Local::Cluster));
    assert_eq!(plan("CLUSTER NOSUCH"), Plan::Local(Local::Cluster));
    assert_eq!(plan("CLUSTER FAILOVER"), Plan::Refuse(RefusalReason::Dangerous));
}

/// The plan with these lists of rules, and the error text if it refuses.
fn plan_with(deny: &[&str], allow: &[&str], line: &str) -> (Plan, String) {
    let rule = |text: &&str| {
        crate::command::Rule::parse(text, &CommandTable::builtin(), |_, _| None).expect(text)
    };
    let rules = Rules {
        deny: deny.iter().map(rule).collect(),
        allow: allow.iter().map(rule).collect(),
        ..Rules::default()
    };
    let router = Router::with_rules(Arc::new(CommandTable::builtin()), rules, Arc::default());
    let ranges = crate::resp::words(line);
    let args = Args::new(line.as_bytes(), &ranges);
    let command = router.command(&args);
    let plan = router.plan(ViewId::ROUTED, command, &args, &mut Vec::new());
    let text = match plan {
        Plan::Refuse(why) => router.refusal(command, why).to_string(),
        _ => String::new(),
    };
    (plan, text)
}

#[test]
fn denied_commands() {
    let denied = Plan::Refuse(RefusalReason::Denied);
    let (plan, text) = plan_with(&["@dangerous"], &[], "KEYS *");
    assert_eq!(plan, denied);
    assert!(text.starts_with("NOPERM KEYS is denied by commands.deny"), "{text}");
    assert!(text.contains("\"@dangerous\"") && text.contains("commands.allow"), "{text}");
    // The number of arguments is checked first, as in Redis, but not by a node.
    let (plan, text) = plan_with(&["get"], &[], "GET");
    assert_eq!(plan, Plan::Refuse(RefusalReason::Arity));
    assert_eq!(text, "ERR wrong number of arguments for 'get' command");
    // Unknown commands are denied as well.
    let (plan, text) = plan_with(&["@all"], &["@read"], "NOSUCH x");
    assert_eq!(plan, denied);
    assert!(text.contains("\"@all\""), "{text}");
    assert_eq!(plan_with(&["@all"], &["@read"], "GET a").0, at("a"));
}

/// Slotway answers some subcommands that a 7.0 cluster does not have, and does not know a module's
/// commands before it has the cluster's table.
#[test]
fn commands_missing_in_the_table_can_be_denied() {
    let deny = ["client|setinfo", "json.set", "ft.config|set"];
    for line in ["client SetInfo lib-name x", "Json.Set k $ 1", "FT.CONFIG SET a b"] {
        assert_eq!(plan_with(&deny, &[], line).0, Plan::Refuse(RefusalReason::Denied), "{line}");
    }
    for line in ["JSON.GET k", "FT.CONFIG GET a", "FT.CONFIG"] {
        assert_eq!(plan_with(&deny, &[], line).0, Plan::Any, "{line}");
    }
    assert_eq!(plan_with(&deny, &[], "CLIENT ID").0, Plan::Local(Local::ClientId));
}

#[test]
fn allowed_commands_are_routed_by_their_data() {
    let dangerous = Plan::Refuse(RefusalReason::Dangerous);
    assert_eq!(plan_with(&[], &[], "SWAPDB 0 1").0, dangerous);
    assert_eq!(plan_with(&["flushall"], &["config"], "SWAPDB 0 1").0, dangerous);
    assert_eq!(plan_with(&[], &["swapdb"], "SWAPDB 0 1").0, Plan::Any);
    assert_eq!(plan_with(&[], &["@dangerous"], "MIGRATE h 1 k 0 1").0, at("k"));
    // An allow list does not open commands that are refused without it.
    assert_eq!(plan_with(&["@all"], &["@write"], "SET a b").0, at("a"));
    assert_eq!(plan_with(&["@all"], &["@write"], "MIGRATE h 1 k 0 1").0, dangerous);
    assert_eq!(plan_with(&["flushall"], &["@all"], "SHUTDOWN").0, dangerous);
    assert_eq!(plan_with(&["@all"], &["migrate"], "MIGRATE h 1 k 0 1").0, at("k"));
    assert_eq!(plan_with(&[], &["debug"], "DEBUG OBJECT k").0, at("k"));
    assert_eq!(plan_with(&[], &["debug"], "DEBUG SLEEP 0").0, Plan::Any);
    let everywhere = Plan::Fan { to: Fan::Primaries, merge: Merge::AllSucceeded };
    assert_eq!(plan_with(&[], &["debug"], "DEBUG SET-ACTIVE-EXPIRE 0").0, everywhere);
    // A command without a reply, or with a stream, would shift the replies of all clients.
    let takeover = Plan::Refuse(RefusalReason::Takeover);
    assert_eq!(plan_with(&[], &["replconf"], "REPLCONF ACK 0").0, takeover);
    assert_eq!(plan_with(&[], &["@dangerous"], "PSYNC ? -1").0, takeover);
    assert_eq!(plan_with(&[], &["script"], "SCRIPT DEBUG YES").0, takeover);
    // Denied by name takes precedence over allowed.
    assert_eq!(
        plan_with(&["debug"], &["debug"], "DEBUG SLEEP 0").0,
        Plan::Refuse(RefusalReason::Denied)
    );
    // Harmless commands keep their plan.
    assert_eq!(plan_with(&[], &["@all"], "GET a").0, at("a"));
}

/// It blocks without a key; on a shared connection it would block all clients.
#[test]
fn waitaof_never_uses_a_shared_connection() {
    let policy = "*2\r\n+request_policy:all_shards\r\n+response_policy:agg_min\r\n";
    for (flag, tips) in [("blocking", policy), ("noscript", policy), ("blocking", "*0\r\n")] {
        let length = flag.len();
        let reply = format!(
            "*1\r\n*10\r\n$7\r\nwaitaof\r\n:4\r\n*1\r\n${length}\r\n{flag}\r\n:0\r\n:0\r\n:0\r\n\
             *0\r\n{tips}*0\r\n*0\r\n"
        );
        let table = CommandTable::builtin().overlay(reply.as_bytes()).expect("a table");
        let waitaof = table.get(table.by_name("waitaof").expect("it is known"));
        assert_eq!(behaviour_of(waitaof), Behaviour::Wait, "{flag}");
    }
}

/// The rules cover commands that only the cluster knows.
#[test]
fn commands_of_newer_servers_obey_the_rules() {
    let reply =
        b"*1\r\n*7\r\n$8\r\njson.set\r\n:-3\r\n*1\r\n+write\r\n:1\r\n:1\r\n:1\r\n*1\r\n+@write\r\n";
    let table = Arc::new(CommandTable::builtin().overlay(reply).expect("a table"));
    for entry in ["json.set", "@write"] {
        let rule = crate::command::Rule::parse(entry, &CommandTable::builtin(), |_, _| None);
        let rules = Rules { deny: vec![rule.expect(entry)], ..Rules::default() };
        let router = Router::with_rules(Arc::clone(&table), rules, Arc::default());
        let id = table.by_name("json.set").expect("it is known");
        let arg = crate::resp::ArgRange { start: 0, end: 0 };
        let ranges = [arg; 3];
        let args = Args::new(b"", &ranges);
        assert_eq!(
            router.plan(ViewId::ROUTED, id, &args, &mut Vec::new()),
            Plan::Refuse(RefusalReason::Denied)
        );
    }
}
