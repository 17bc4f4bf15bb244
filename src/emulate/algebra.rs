//! Union, intersection and difference of sets and sorted sets, with Redis's rules.

use std::cmp::Ordering;

use crate::hash::{KeyedMap, KeyedSet};

/// A set operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// Members of all sets.
    Inter,
    /// Members of any set.
    Union,
    /// Members of the first set that are in no other.
    Diff,
}

/// How the scores of one member are combined (`AGGREGATE`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Aggregate {
    /// The sum.
    Sum,
    /// The smallest score.
    Min,
    /// The largest score.
    Max,
}

impl Aggregate {
    fn of(self, target: f64, value: f64) -> f64 {
        match self {
            // The sum of infinities of opposite sign is 0, as in Redis.
            Aggregate::Sum => zero_for_nan(target + value),
            Aggregate::Min if value < target => value,
            Aggregate::Max if value > target => value,
            Aggregate::Min | Aggregate::Max => target,
        }
    }
}

fn zero_for_nan(score: f64) -> f64 {
    if score.is_nan() { 0.0 } else { score }
}

/// Combines sets; each member appears once.
pub fn sets<'a>(op: Op, all: &[Vec<&'a [u8]>]) -> Vec<&'a [u8]> {
    let Some((first, others)) = all.split_first() else { return Vec::new() };
    let member = |members: &Vec<&'a [u8]>| members.iter().copied().collect::<KeyedSet<_>>();
    let mut seen = KeyedSet::default();
    match op {
        Op::Union => all.iter().flatten().copied().filter(|m| seen.insert(*m)).collect(),
        Op::Diff => {
            let others: KeyedSet<&[u8]> = others.iter().flatten().copied().collect();
            first.iter().copied().filter(|m| !others.contains(m) && seen.insert(*m)).collect()
        }
        Op::Inter => {
            if all.iter().any(Vec::is_empty) {
                return Vec::new();
            }
            // Looks up the members of the smallest set in the others.
            let at = (0..all.len()).min_by_key(|&i| all.get(i).map_or(0, Vec::len)).unwrap_or(0);
            let rest = all.iter().enumerate().filter(|(i, _)| *i != at);
            let rest: Vec<KeyedSet<&[u8]>> = rest.map(|(_, members)| member(members)).collect();
            let smallest = all.get(at).unwrap_or(first);
            let everywhere = |m: &&[u8]| rest.iter().all(|set| set.contains(m));
            smallest.iter().copied().filter(|m| everywhere(m) && seen.insert(*m)).collect()
        }
    }
}

/// A sorted set and its weight. A plain set is one whose scores are all 1.
#[derive(Debug, Clone)]
pub(super) struct WeightedSet<'a> {
    /// Members with their scores.
    pub members: Vec<(&'a [u8], f64)>,
    /// The factor for the scores (`WEIGHTS`).
    pub weight: f64,
}

/// Combines sorted sets; the result is ordered by score, then by member.
pub(super) fn sorted_sets<'a>(
    op: Op,
    aggregate: Aggregate,
    mut all: Vec<WeightedSet<'a>>,
) -> Vec<(&'a [u8], f64)> {
    if op != Op::Diff {
        // Redis adds scores in this order, and the order shows in a sum of doubles.
        all.sort_by_key(|source| source.members.len());
    }
    let Some((first, others)) = all.split_first() else { return Vec::new() };
    let mut result: Vec<(&[u8], f64)> = match op {
        Op::Union => {
            let mut scores: KeyedMap<&[u8], f64> = KeyedMap::default();
            for source in &all {
                for &(member, score) in &source.members {
                    let score = zero_for_nan(source.weight * score);
                    let add = |old: &mut f64| *old = aggregate.of(*old, score);
                    scores.entry(member).and_modify(add).or_insert(score);
                }
            }
            scores.into_iter().collect()
        }
        Op::Inter => {
            let maps: Vec<(KeyedMap<&[u8], f64>, f64)> =
                others.iter().map(|s| (s.members.iter().copied().collect(), s.weight)).collect();
            let combined = |&(member, score): &(&'a [u8], f64)| {
                let mut total = zero_for_nan(first.weight * score);
                for (map, weight) in &maps {
                    total = aggregate.of(total, map.get(member)? * weight);
                }
                Some((member, total))
            };
            first.members.iter().filter_map(combined).collect()
        }
        Op::Diff => {
            let others: KeyedSet<&[u8]> =
                others.iter().flat_map(|s| s.members.iter().map(|(m, _)| *m)).collect();
            first.members.iter().copied().filter(|(m, _)| !others.contains(m)).collect()
        }
    };
    result.sort_by(|a, b| {
        a.1.partial_cmp(&b.1).unwrap_or(Ordering::Equal).then_with(|| a.0.cmp(b.0))
    });
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(text: &str) -> Vec<&[u8]> {
        text.split(' ').filter(|t| !t.is_empty()).map(str::as_bytes).collect()
    }

    fn sorted(op: Op, all: &[&str]) -> Vec<String> {
        let all: Vec<Vec<&[u8]>> = all.iter().map(|t| members(t)).collect();
        let mut found: Vec<String> =
            sets(op, &all).iter().map(|m| String::from_utf8_lossy(m).into_owned()).collect();
        found.sort();
        found
    }

    #[test]
    fn combines_sets() {
        assert_eq!(sorted(Op::Inter, &["a b c", "b c d", "c b"]), ["b", "c"]);
        assert_eq!(sorted(Op::Inter, &["a", ""]), [""; 0]);
        assert_eq!(sorted(Op::Union, &["a b", "", "b c"]), ["a", "b", "c"]);
        assert_eq!(sorted(Op::Diff, &["a b c", "b", "x"]), ["a", "c"]);
        assert_eq!(sorted(Op::Diff, &["a b", "a b"]), [""; 0]);
        assert_eq!(sorted(Op::Inter, &["a b"]), ["a", "b"]);
    }

    fn z<'a>(members: &[(&'a str, f64)], weight: f64) -> WeightedSet<'a> {
        let members = members.iter().map(|(m, s)| (m.as_bytes(), *s)).collect();
        WeightedSet { members, weight }
    }

    #[test]
    fn combines_sorted_sets() {
        let inf = f64::INFINITY;
        let a = || z(&[("x", 1.0), ("y", 2.0)], 2.0);
        let b = || z(&[("y", 3.0), ("z", 0.5)], 1.0);
        let union = sorted_sets(Op::Union, Aggregate::Sum, vec![a(), b()]);
        assert_eq!(union, [(&b"z"[..], 0.5), (b"x", 2.0), (b"y", 7.0)]);
        let inter = sorted_sets(Op::Inter, Aggregate::Max, vec![a(), b()]);
        assert_eq!(inter, [(&b"y"[..], 4.0)]);
        let diff = sorted_sets(Op::Diff, Aggregate::Sum, vec![a(), b()]);
        assert_eq!(diff, [(&b"x"[..], 1.0)], "scores of a difference are not weighed");
        // Infinities that cancel each other, and an infinity multiplied by 0.
        let both = vec![z(&[("m", inf)], 1.0), z(&[("m", inf)], -1.0)];
        assert_eq!(sorted_sets(Op::Union, Aggregate::Sum, both), [(&b"m"[..], 0.0)]);
        let none = vec![z(&[("m", inf)], 0.0), z(&[("m", -5.0)], 1.0)];
        assert_eq!(sorted_sets(Op::Inter, Aggregate::Min, none.clone()), [(&b"m"[..], -5.0)]);
        assert_eq!(sorted_sets(Op::Union, Aggregate::Max, none), [(&b"m"[..], 0.0)]);
        let equal = vec![z(&[("b", 1.0), ("a", 1.0)], 1.0)];
        let equal = sorted_sets(Op::Union, Aggregate::Sum, equal);
        assert_eq!(equal, [(&b"a"[..], 1.0), (b"b", 1.0)], "by name where scores are equal");
    }
}
