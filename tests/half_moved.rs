//! Slots in the middle of a migration: some of their keys are at the old node, some at the new one.
//! What can be sent key by key is, in order; what cannot waits, and says for what.

use crate::common;
use crate::common::errors::{DEADLINES, named, says};
use slotway::cluster::slot_of;
use slotway::errors::Unanswered;
use slotway::sandbox::{Cluster, Conn, Node, Reply};

/// A slot in the middle of its move: some of its keys are here, some there.
struct HalfMoved<'a> {
    cluster: &'a Cluster,
    from: Node,
    to: Node,
}

impl<'a> HalfMoved<'a> {
    const TAG: &'static str = "{half}";
    const KEYS: usize = 12;

    fn slot() -> slotway::cluster::Slot {
        slot_of(Self::TAG.as_bytes())
    }

    fn key(i: usize) -> String {
        format!("{}{i}", Self::TAG)
    }

    fn keys() -> Vec<String> {
        (0..Self::KEYS).map(Self::key).collect()
    }

    /// Sets all keys by `set` and moves half of them.
    fn new(setting: &'a common::Setting, set: impl Fn(&str) -> Vec<String>) -> Self {
        let cluster = &setting.cluster;
        let from = cluster.owner_of(Self::slot()).expect("an owner");
        let primaries: Vec<Node> = cluster.primaries().expect("the primaries");
        let to = primaries.into_iter().find(|p| p.id != from.id).expect("another primary");
        let mut conn = setting.proxy.connect();
        for key in Self::keys() {
            let reply = conn.command(&set(&key)).expect("a reply");
            assert!(!matches!(reply, Reply::Error(_)), "{key}: {reply:?}");
        }
        cluster.begin_move(Self::slot(), &from, &to).expect("to begin a move");
        let half = HalfMoved { cluster, from, to };
        half.move_half();
        half
    }

    /// Moves half of what is still at the old node.
    fn move_half(&self) {
        let moved = self.cluster.move_keys(Self::slot(), &self.from, &self.to, Self::KEYS / 2);
        assert_eq!(moved.expect("to move keys"), Self::KEYS / 2);
    }

    /// Keys of the slot that a node holds itself.
    fn at(&self, node: &Node) -> Reply {
        let mut conn = Conn::tcp(node.addr).expect("a connection to a node");
        conn.command(&["CLUSTER", "COUNTKEYSINSLOT", &Self::slot().0.to_string()]).expect("a count")
    }

    fn finish(&self) {
        while self.cluster.move_keys(Self::slot(), &self.from, &self.to, 100).expect("to move") > 0
        {
        }
        self.cluster.finish_move(Self::slot(), &self.from, &self.to).expect("to finish a move");
    }
}

fn command(name: &str, keys: &[String]) -> Vec<String> {
    std::iter::once(name.to_owned()).chain(keys.iter().cloned()).collect()
}

fn bulk(text: &str) -> Reply {
    Reply::Bulk(text.as_bytes().to_vec())
}

#[test]
fn keys_of_a_half_moved_slot_are_asked_one_by_one() {
    let setting = common::setting(&["--set", "timeouts.command=20s"]);
    let half = HalfMoved::new(&setting, |key| vec!["SET".into(), key.into(), format!("of {key}")]);
    let keys = HalfMoved::keys();
    let missing = format!("{}missing", HalfMoved::TAG);
    for protocol in [2, 3] {
        let mut conn = match protocol {
            2 => setting.proxy.connect(),
            _ => setting.proxy.connect3(),
        };
        conn.set_timeout(Some(common::PATIENCE)).expect("a timeout");
        // In the order asked, the one that nobody has in its place, one twice.
        let mut asked = keys.clone();
        asked.reverse();
        asked.insert(3, missing.clone());
        asked.push(keys[0].clone());
        let mut values: Vec<Reply> = asked.iter().map(|key| bulk(&format!("of {key}"))).collect();
        values[3] = Reply::Nil;
        assert_eq!(conn.command(&command("MGET", &asked)).expect("MGET"), Reply::Array(values));
        let all = asked.len() as i64 - 1;
        assert_eq!(conn.command(&command("EXISTS", &asked)).expect("EXISTS"), Reply::Int(all));
        assert_eq!(conn.command(&command("TOUCH", &asked)).expect("TOUCH"), Reply::Int(all));
        // Keys of other slots beside them: each slot's part on its own.
        let mut wide = vec!["{elsewhere}".to_owned(), keys[0].clone(), keys[11].clone()];
        wide.push("{nowhere}".to_owned());
        let expected = [Reply::Nil, bulk(&format!("of {}", keys[0]))];
        let expected = expected.into_iter().chain([bulk(&format!("of {}", keys[11])), Reply::Nil]);
        assert_eq!(
            conn.command(&command("MGET", &wide)).expect("MGET"),
            Reply::Array(expected.collect()),
        );
        assert_eq!(conn.command(&command("EXISTS", &wide)).expect("EXISTS"), Reply::Int(2));
        // A key twice: the last value is the one that stays.
        let mut mset = vec!["MSET".to_owned()];
        for value in ["first", "of"] {
            for key in &keys {
                mset.extend([key.clone(), format!("{value} {key}")]);
            }
        }
        assert_eq!(conn.command(&mset).expect("MSET"), Reply::Simple("OK".into()));
        let values = keys.iter().map(|key| bulk(&format!("of {key}"))).collect();
        assert_eq!(conn.command(&command("MGET", &keys)).expect("MGET"), Reply::Array(values));
        // MSET makes keys at both nodes no more than a server does: the new ones are at the new.
        assert_eq!((half.at(&half.from), half.at(&half.to)), (Reply::Int(6), Reply::Int(6)));
    }
    let mut conn = setting.proxy.connect();
    conn.set_timeout(Some(common::PATIENCE)).expect("a timeout");
    let unlinked = conn.command(&command("UNLINK", &[keys[0].clone(), keys[1].clone()]));
    assert_eq!(unlinked.expect("UNLINK"), Reply::Int(2));
    let deleted = conn.command(&command("DEL", &keys)).expect("DEL");
    assert_eq!(deleted, Reply::Int(HalfMoved::KEYS as i64 - 2));
    assert_eq!((half.at(&half.from), half.at(&half.to)), (Reply::Int(0), Reply::Int(0)));
    let refused = setting.proxy.metric("slotway_redirections_total", "kind=\"tryagain\"");
    let sent = setting.proxy.metric("slotway_key_by_key_total", "");
    assert!(refused > 0.0 && sent > 0.0, "{refused} refused, {sent} sent key by key");
    // Each refusal has led to it at once: nothing was asked a second time in vain.
    assert_eq!(refused, sent);
    half.finish();
    let nothing = vec![Reply::Nil; keys.len()];
    assert_eq!(conn.command(&command("MGET", &keys)).expect("MGET"), Reply::Array(nothing));
}

#[test]
fn commands_sent_key_by_key_keep_their_order() {
    let setting = common::setting(&["--set", "timeouts.command=20s"]);
    let half = HalfMoved::new(&setting, |key| vec!["SET".into(), key.into(), "0".into()]);
    let keys = HalfMoved::keys();
    let mut conn = setting.proxy.connect();
    conn.set_timeout(Some(common::PATIENCE)).expect("a timeout");
    // The slot is known to be in motion from here on.
    assert_eq!(conn.command(&command("EXISTS", &keys)).expect("EXISTS"), Reply::Int(12));
    let (mut commands, mut expected) = (Vec::new(), Vec::new());
    for turn in 0..30 {
        let value = format!("turn {turn}");
        let mut mset = vec!["MSET".to_owned()];
        keys.iter().for_each(|key| mset.extend([key.clone(), value.clone()]));
        let single = vec!["APPEND".to_owned(), keys[turn % keys.len()].clone(), "!".to_owned()];
        let mut values = vec![bulk(&value); keys.len()];
        values[turn % keys.len()] = bulk(&format!("{value}!"));
        commands.extend([mset, single, command("MGET", &keys), command("DEL", &keys)]);
        commands.push(command("EXISTS", &keys));
        expected.extend([
            Reply::Simple("OK".into()),
            Reply::Int(value.len() as i64 + 1),
            Reply::Array(values),
            Reply::Int(keys.len() as i64),
            Reply::Int(0),
        ]);
        // What was deleted is made at the new node, so that some have to be put where they were.
        if turn % 10 == 5 {
            let replies = conn.pipeline(&std::mem::take(&mut commands)).expect("replies");
            assert_eq!(replies, std::mem::take(&mut expected), "turn {turn}");
            let mut old = Conn::tcp(half.from.addr).expect("a connection to a node");
            half.cluster.begin_move(HalfMoved::slot(), &half.from, &half.to).expect("a move");
            let slot = HalfMoved::slot().0.to_string();
            assert_eq!(
                old.command(&["CLUSTER", "SETSLOT", &slot, "STABLE"]).expect("SETSLOT"),
                Reply::Simple("OK".into())
            );
            for key in &keys[..6] {
                old.command(&["SET", key, "old"]).expect("SET");
            }
            half.cluster.begin_move(HalfMoved::slot(), &half.from, &half.to).expect("a move");
        }
    }
    let replies = conn.pipeline(&commands).expect("replies");
    assert_eq!(replies, expected);
    assert!(setting.proxy.metric("slotway_key_by_key_total", "") > 0.0);
}

#[test]
fn what_cannot_be_sent_key_by_key_waits_and_says_for_what() {
    let setting = common::setting(&["--set", "timeouts.command=1s"]);
    let half = HalfMoved::new(&setting, |key| vec!["SADD".into(), key.into(), "member".into()]);
    let keys = HalfMoved::keys();
    let eval = |keys: &[String]| {
        let count = keys.len().to_string();
        let mut eval = vec!["EVAL".to_owned(), "return #KEYS".to_owned(), count];
        eval.extend_from_slice(keys);
        eval
    };
    let mut msetnx = vec!["MSETNX".to_owned()];
    keys.iter().for_each(|key| msetnx.extend([key.clone(), "value".to_owned()]));
    let mut pop = command("BZPOPMIN", &keys);
    pop.push("1".to_owned());
    let transaction = [vec!["MULTI".to_owned()], command("EXISTS", &keys), vec!["EXEC".to_owned()]];
    let mut several = vec![vec![command("SINTER", &keys)], vec![eval(&keys)], vec![msetnx]];
    several.extend([vec![pop], transaction.to_vec()]);
    for commands in several {
        let name = &commands.last().expect("a command")[0];
        // Now and then the deadline comes while a node has it once more, which it cannot be taken
        // back from.
        common::eventually(&format!("{name} was not with a node at its deadline"), || {
            let mut conn = setting.proxy.connect();
            conn.set_timeout(Some(common::PATIENCE)).expect("a timeout");
            let replies = conn.pipeline(&commands).expect("replies");
            let Some(Reply::Error(text)) = replies.last() else { panic!("{name}: {replies:?}") };
            let error = named(text);
            assert!(DEADLINES.contains(&error.id), "{name}: {text}");
            // With the outcome is why.
            let outcome = error.field("outcome").unwrap_or_default();
            let (slot, from, to) = (HalfMoved::slot().0, half.from.addr, half.to.addr);
            for said in [&slot.to_string(), &from.to_string(), &to.to_string(), name] {
                assert!(outcome.contains(said), "{name}: no '{said}' in: {text}");
            }
            let waited = says(&error, Unanswered::NotExecuted);
            assert!(!waited || text.starts_with("TRYAGAIN "), "{name}: {text}");
            waited
        });
    }
}

#[test]
fn what_waits_for_a_half_moved_slot_goes_when_it_has_moved() {
    let setting = common::setting(&["--set", "timeouts.command=30s"]);
    let half = HalfMoved::new(&setting, |key| vec!["SADD".into(), key.into(), "member".into()]);
    let mut conn = setting.proxy.connect();
    conn.set_timeout(Some(common::PATIENCE)).expect("a timeout");
    conn.send(&command("SINTER", &HalfMoved::keys())).expect("to send");
    common::eventually("it was refused several times", || {
        setting.proxy.metric("slotway_redirections_total", "kind=\"tryagain\"") >= 3.0
    });
    half.finish();
    assert_eq!(conn.receive().expect("a reply"), Reply::Array(vec![bulk("member")]));
}
