//! The rules of [`super`] as a table: the view in use, the nodes' replies, the result.

use super::*;
use crate::cluster::{Node, NodeAddr, NodeState, Role, SLOTS, Shard, UpstreamId};

/// Builds a cluster from a short form, `p1 p2+r2 (p3)`: one shard after the other, each
/// `primary+replica+…`; the slots are divided evenly among those not in parentheses. `!` before a
/// primary: it has failed.
fn cluster(text: &str) -> Snapshot {
    let mut snapshot = Snapshot::empty();
    let shards: Vec<&str> = text.split_whitespace().collect();
    let owning: Vec<usize> = (0..shards.len()).filter(|&i| !shards[i].starts_with('(')).collect();
    for (slot, place) in snapshot.slots.iter_mut().enumerate() {
        if !owning.is_empty() {
            *place = owning[slot * owning.len() / usize::from(SLOTS)] as u16;
        }
    }
    for shard in shards {
        let mut of = Shard::default();
        for (i, name) in shard.trim_matches(['(', ')']).split('+').enumerate() {
            let (name, online) = (name.trim_start_matches('!'), !name.starts_with('!'));
            let index = snapshot.nodes.len() as u16;
            let role = if i == 0 { Role::Primary } else { Role::Replica };
            match role {
                Role::Primary if online => of.primary = Some(index),
                _ => of.replicas.push(index),
            }
            snapshot.nodes.push(Node {
                id: name.into(),
                addr: NodeAddr { host: name.into(), port: 1 },
                hostname: "".into(),
                socket: None,
                role,
                state: if online { NodeState::Online } else { NodeState::Failed },
                upstream: UpstreamId::FIRST,
            });
        }
        snapshot.shards.push(of);
    }
    snapshot
}

/// Builds a reply from `witness epoch state cluster`.
struct Said(&'static str, u64, bool, &'static str);

const OK: bool = true;
const FAIL: bool = false;
const ADOPT: ViewVerdict = ViewVerdict::Adopt;
const OLD: &str = "a+ar b+br c+cr";

fn with_views<T>(said: &[Said], then: impl FnOnce(&[View]) -> T) -> T {
    let snapshots: Vec<Snapshot> = said.iter().map(|said| cluster(said.3)).collect();
    let views: Vec<View> = said
        .iter()
        .zip(&snapshots)
        .map(|(said, snapshot)| View {
            witness: said.0,
            info: Info { state_ok: said.2, epoch: said.1, ..Info::default() },
            snapshot,
        })
        .collect();
    then(&views)
}

#[test]
fn one_answer() {
    let few = |kept, of| ViewVerdict::NeedWitness(Doubt::FewKnown { kept, of });
    let older = |epoch| ViewVerdict::Reject(RejectReason::Older { epoch, known: 6 });
    const FOREIGN: ViewVerdict = ViewVerdict::Reject(RejectReason::Foreign);
    let cases: &[(&str, &str, Said, ViewVerdict)] = &[
        ("the same", OLD, Said("a", 6, OK, OLD), ADOPT),
        ("a failover", OLD, Said("br", 7, OK, "a+ar br+b c+cr"), ADOPT),
        ("a node less", OLD, Said("a", 6, OK, "a b+br c+cr"), ADOPT),
        ("a shard more", OLD, Said("a", 9, OK, "a+ar b+br c+cr d+dr"), ADOPT),
        ("a new node tells", OLD, Said("d", 9, OK, "a+ar b+br c+cr d+dr"), ADOPT),
        ("two of six replaced", OLD, Said("a", 9, OK, "a+ar b+xr x+cr"), ADOPT),
        ("another cluster", OLD, Said("x", 11, OK, "x+xr y+yr"), FOREIGN),
        ("one node, epoch 0", OLD, Said("x", 0, OK, "x"), FOREIGN),
        ("a replica that was reset, with its ID", OLD, Said("ar", 11, OK, "x+ar y+yr"), FOREIGN),
        ("a primary that was reset, with its ID", OLD, Said("a", 11, OK, "a+xr y+yr"), FOREIGN),
        ("a node of that cluster", OLD, Said("x", 11, OK, "x+ar y+yr"), few(1, 6)),
        ("two nodes moved", OLD, Said("ar", 11, OK, "x+ar y+br"), few(1, 5)),
        ("three of six replaced", OLD, Said("a", 9, OK, "a+xr b+yr z+cr"), few(2, 5)),
        ("cut off", OLD, Said("b", 5, OK, OLD), older(5)),
        ("cut off, and in state fail", OLD, Said("b", 5, FAIL, OLD), older(5)),
        ("reset", OLD, Said("b", 9, OK, "(b)"), ViewVerdict::Reject(RejectReason::NoSlots)),
        ("failed", OLD, Said("b", 6, FAIL, OLD), ViewVerdict::NeedWitness(Doubt::Failing)),
        (
            "slots without a primary",
            OLD,
            Said("b", 6, OK, "!a+ar b+br c+cr"),
            ViewVerdict::NeedWitness(Doubt::LosesSlots(5462)),
        ),
        ("and they are back", "!a+ar b+br c+cr", Said("b", 7, OK, "ar+a b+br c+cr"), ADOPT),
        ("a cluster of one", "a", Said("a", 6, OK, "a"), ADOPT),
        ("that grows", "a", Said("a", 7, OK, "a+ar b+br"), ADOPT),
        ("another of one", "a", Said("x", 7, OK, "x"), FOREIGN),
        ("two shrink to one", "a b", Said("a", 7, OK, "a"), few(0, 1)),
        ("one of two joins another", "a b", Said("a", 7, OK, "a x"), FOREIGN),
    ];
    for (name, before, said, verdict) in cases {
        let before = cluster(before);
        let in_use = InUse { snapshot: &before, epoch: 6 };
        let got = with_views(std::slice::from_ref(said), |views| judge(&in_use, &views[0]));
        assert_eq!(got, *verdict, "{name}");
    }
}

#[test]
fn all_answers_of_a_round() {
    const NEVER: RoundEnd = RoundEnd { patience_over: false, all_seeds_answered: true };
    const OVER: RoundEnd = RoundEnd { patience_over: true, all_seeds_answered: true };
    const NOT_ALL: RoundEnd = RoundEnd { patience_over: true, all_seeds_answered: false };
    let continued = |i| Some((i, AdoptionRule::Continued));
    let restored = |i| Some((i, AdoptionRule::Restored));
    let replaced = |i| Some((i, AdoptionRule::Replaced));
    let lost = "!a+ar b+br c+cr";
    type Case<'a> = (&'a str, &'a str, &'a [Said], RoundEnd, Option<(usize, AdoptionRule)>);
    let cases: &[Case] = &[
        ("nobody answers", OLD, &[], OVER, None),
        ("a loss that one tells", OLD, &[Said("b", 6, OK, lost)], OVER, None),
        (
            "and another",
            OLD,
            &[Said("b", 6, OK, lost), Said("c", 6, OK, lost)],
            NEVER,
            continued(0),
        ),
        ("the same one twice", OLD, &[Said("b", 6, OK, lost), Said("b", 6, OK, lost)], OVER, None),
        (
            "a loss that another contradicts",
            OLD,
            &[Said("b", 6, OK, lost), Said("c", 6, FAIL, OLD)],
            NEVER,
            continued(1),
        ),
        (
            "a loss that only another cluster confirms",
            OLD,
            &[Said("b", 6, OK, lost), Said("x", 6, OK, "x")],
            OVER,
            None,
        ),
        ("the cluster fails", OLD, &[Said("b", 6, FAIL, OLD)], NEVER, continued(0)),
        (
            "the newer of two that fail",
            OLD,
            &[Said("b", 6, FAIL, OLD), Said("c", 7, FAIL, OLD)],
            NEVER,
            continued(1),
        ),
        (
            "a primary that has come back and thinks that it is one",
            OLD,
            &[Said("a", 6, FAIL, OLD), Said("b", 6, FAIL, lost), Said("c", 6, FAIL, lost)],
            NEVER,
            continued(1),
        ),
        ("one moved to another cluster", OLD, &[Said("x", 9, OK, "x+ar y")], OVER, None),
        (
            "two moved to another cluster, four are left",
            OLD,
            &[
                Said("ar", 9, OK, "x+ar y+br"),
                Said("br", 9, OK, "x+ar y+br"),
                Said("a", 5, OK, "a b c"),
                Said("b", 5, OK, "a b c"),
                Said("c", 5, OK, "a b c"),
            ],
            NEVER,
            None,
        ),
        (
            "most nodes replaced, two known ones tell",
            OLD,
            &[Said("a", 9, OK, "a+ar x+xr y+yr"), Said("ar", 9, OK, "a+ar x+xr y+yr")],
            NEVER,
            continued(0),
        ),
        ("one known one is not enough", OLD, &[Said("a", 9, OK, "a+ar x+xr y+yr")], OVER, None),
        ("the last one of two", "a b", &[Said("a", 9, OK, "a")], NEVER, continued(0)),
        (
            "while the other is there",
            "a b",
            &[Said("a", 9, OK, "a"), Said("b", 5, OK, "a b")],
            NEVER,
            None,
        ),
        ("a cut-off node", OLD, &[Said("a", 5, OK, OLD)], OVER, None),
        (
            "the nodes before they have heard of the newest epoch",
            OLD,
            &[
                Said("a", 5, OK, OLD),
                Said("b", 5, OK, OLD),
                Said("c", 5, OK, OLD),
                Said("ar", 5, OK, OLD),
            ],
            NEVER,
            None,
        ),
        (
            "all nodes restored",
            OLD,
            &[
                Said("a", 2, OK, OLD),
                Said("b", 3, OK, OLD),
                Said("c", 2, OK, OLD),
                Said("ar", 2, OK, OLD),
            ],
            OVER,
            restored(1),
        ),
        (
            "half of the nodes restored",
            OLD,
            &[Said("a", 2, OK, OLD), Said("b", 3, OK, OLD), Said("c", 2, OK, OLD)],
            OVER,
            None,
        ),
        (
            "another cluster, two witnesses",
            OLD,
            &[Said("x", 1, OK, "x y"), Said("y", 1, OK, "x y")],
            OVER,
            replaced(0),
        ),
        ("but not at once", OLD, &[Said("x", 1, OK, "x y"), Said("y", 1, OK, "x y")], NEVER, None),
        ("nor by one witness", OLD, &[Said("x", 0, OK, "x")], OVER, None),
        (
            "nor while a seed is silent",
            OLD,
            &[Said("x", 1, OK, "x y"), Said("y", 1, OK, "x y")],
            NOT_ALL,
            None,
        ),
        (
            "nor while seeds disagree",
            OLD,
            &[Said("x", 1, OK, "x y"), Said("z", 1, OK, "z")],
            OVER,
            None,
        ),
        (
            "nor while a known node answers",
            OLD,
            &[Said("x", 1, OK, "x y"), Said("y", 1, OK, "x y"), Said("a", 5, FAIL, OLD)],
            OVER,
            None,
        ),
        (
            "nor while it is not whole",
            OLD,
            &[Said("x", 1, FAIL, "x !y"), Said("y", 1, FAIL, "x !y")],
            OVER,
            None,
        ),
    ];
    for (name, before, said, end, wanted) in cases {
        let before = cluster(before);
        let in_use = InUse { snapshot: &before, epoch: 6 };
        let got = with_views(said, |views| decide(&in_use, views, end));
        assert_eq!(got, *wanted, "{name}");
    }
}

#[test]
fn the_first_round() {
    type Case<'a> = (&'a str, &'a [Said], Result<Option<usize>, Disagreement>);
    let cases: &[Case] = &[
        ("nobody", &[], Ok(None)),
        ("one", &[Said("a", 6, OK, OLD)], Ok(Some(0))),
        ("the better one", &[Said("a", 6, FAIL, OLD), Said("b", 6, OK, OLD)], Ok(Some(1))),
        (
            "one not known to all yet",
            &[Said("a", 6, OK, OLD), Said("b", 6, OK, "a b c")],
            Ok(Some(0)),
        ),
        ("two clusters", &[Said("a", 6, OK, OLD), Said("x", 0, OK, "x")], Err(Disagreement(0, 1))),
        (
            "the other first",
            &[Said("x", 0, OK, "x"), Said("a", 6, FAIL, OLD)],
            Err(Disagreement(0, 1)),
        ),
        (
            "one moved",
            &[Said("a", 6, OK, OLD), Said("ar", 9, OK, "x+ar y z")],
            Err(Disagreement(1, 0)),
        ),
        ("a node of its own", &[Said("a", 6, OK, OLD), Said("x", 0, FAIL, "(x)")], Ok(Some(0))),
        ("no cluster yet", &[Said("x", 0, FAIL, "(x)"), Said("y", 0, FAIL, "(y)")], Ok(Some(0))),
    ];
    for (name, said, wanted) in cases {
        assert_eq!(with_views(said, first), *wanted, "{name}");
    }
}

#[test]
fn the_epoch_of_a_node_that_is_cut_off_is_no_measure() {
    let cases: &[(&str, &[Said], u64)] = &[
        ("in state ok", &[Said("a", 9, OK, OLD)], 9),
        ("alone", &[Said("a", 9, FAIL, OLD)], 0),
        ("higher than the others", &[Said("a", 9, FAIL, OLD), Said("b", 7, FAIL, OLD)], 7),
        ("all fail", &[Said("a", 9, FAIL, OLD), Said("b", 9, FAIL, OLD)], 9),
        ("another cluster", &[Said("a", 9, FAIL, OLD), Said("x", 9, OK, "x y")], 0),
    ];
    for (name, said, wanted) in cases {
        assert_eq!(with_views(said, |views| confirmed_epoch(views, 0)), *wanted, "{name}");
    }
}
