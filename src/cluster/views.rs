//! What a client sees of several upstreams: one keyspace made of some of them. No I/O.

use super::{KeyRoutes, Slot, SlotMap, SlotSpace, UpstreamId};

/// A view, by its place in [`Views`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct ViewId(u8);

impl ViewId {
    /// The view of clients for which nothing else is configured: keys go by the routes, and those
    /// that none fits to the first upstream.
    pub const ROUTED: ViewId = ViewId(0);

    /// The view of clients that have this upstream and no other.
    pub fn of(upstream: UpstreamId) -> ViewId {
        ViewId(upstream.0 + 1)
    }

    /// The upstream, if it is the only one.
    pub fn upstream(self) -> Option<UpstreamId> {
        self.0.checked_sub(1).map(UpstreamId)
    }
}

/// A set of upstreams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UpstreamSet(u64);

impl UpstreamSet {
    /// All upstreams.
    pub const ALL: UpstreamSet = UpstreamSet(u64::MAX);

    /// The upstreams in it.
    pub fn iter(self) -> impl Iterator<Item = UpstreamId> {
        (0..u64::BITS as u8).map(UpstreamId).filter(move |&upstream| self.contains(upstream))
    }

    /// Whether the upstream is in it.
    #[inline]
    pub fn contains(self, upstream: UpstreamId) -> bool {
        self.0 >> (upstream.0 & 63) & 1 == 1
    }
}

impl FromIterator<UpstreamId> for UpstreamSet {
    fn from_iter<I: IntoIterator<Item = UpstreamId>>(all: I) -> Self {
        UpstreamSet(all.into_iter().fold(0, |set, upstream| set | 1 << (upstream.0 & 63)))
    }
}

/// One view: which slots the keys are in, and which upstreams there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    upstream: UpstreamId,
    home: SlotSpace,
    routes: KeyRoutes,
    upstreams: UpstreamSet,
    /// The upstreams of channels, by prefix.
    channels: Box<[(Box<[u8]>, UpstreamId)]>,
}

impl View {
    /// The slot of `key`.
    #[inline]
    pub fn slot_of(&self, key: &[u8]) -> Slot {
        if self.routes.is_empty() {
            return self.home.slot_of(key);
        }
        self.space_of(key).slot_of(key)
    }

    /// The slots of the upstream on which all keys are that fit a pattern of SORT, such as
    /// `weight_*`; `None`: they may be on several upstreams.
    pub fn space_of_pattern(&self, pattern: &[u8]) -> Option<SlotSpace> {
        let fixed = pattern.split(|&byte| byte == b'*').next().unwrap_or_default();
        let is_open = fixed.len() < pattern.len();
        let deeper = is_open && self.routes.is_below(fixed);
        (!deeper).then(|| self.space_of(fixed))
    }

    /// The slots among which `key` has its own.
    pub fn space_of(&self, key: &[u8]) -> SlotSpace {
        self.routes.space_of(key).unwrap_or(self.home)
    }

    /// The upstream of commands without keys.
    pub fn upstream(&self) -> UpstreamId {
        self.upstream
    }

    /// The upstream that a channel or pattern belongs to: that of the longest prefix that it begins
    /// with, otherwise that of commands without keys.
    pub fn upstream_of_channel(&self, name: &[u8]) -> UpstreamId {
        let fits = self.channels.iter().filter(|(prefix, _)| name.starts_with(prefix));
        fits.max_by_key(|(prefix, _)| prefix.len()).map_or(self.upstream, |(_, upstream)| *upstream)
    }

    /// The upstreams that channels can belong to.
    pub fn channel_upstreams(&self) -> UpstreamSet {
        let routed = self.channels.iter().map(|(_, upstream)| *upstream);
        routed.chain([self.upstream]).collect()
    }

    /// The slots of that upstream.
    pub fn home(&self) -> SlotSpace {
        self.home
    }

    /// Stands for the slot of commands without keys.
    pub fn keyless(&self) -> Slot {
        Slot::keyless(self.upstream)
    }

    /// The upstreams that its keys can be in.
    pub fn upstreams(&self) -> UpstreamSet {
        self.upstreams
    }

    /// Whether all keys are on one server, so that any of them may be used together.
    pub fn is_one_server(&self) -> bool {
        self.home.is_one() && self.routes.is_empty()
    }

    /// The prefix of the route that decides on `key`, if there is one.
    fn route_of(&self, key: &[u8]) -> Option<&[u8]> {
        self.routes.prefix_of(key)
    }
}

/// The views of all clients, and where the slots of the upstreams lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Views {
    map: SlotMap,
    names: Box<[Box<str>]>,
    /// [`ViewId::ROUTED`], then that of each upstream alone.
    all: Box<[View]>,
}

impl Default for Views {
    /// Those of one cluster.
    fn default() -> Self {
        Views::new(SlotMap::default(), &["main"], [], [])
    }
}

impl Views {
    /// The views of upstreams with these names, whose slots lie as `map` says; `routes`: prefixes of keys, and the
    /// upstream that keys with this prefix belong to.
    pub fn new<'a>(
        map: SlotMap,
        names: &[&str],
        routes: impl IntoIterator<Item = (&'a [u8], UpstreamId)>,
        channels: impl IntoIterator<Item = (&'a [u8], UpstreamId)>,
    ) -> Views {
        let routes: Vec<(&[u8], UpstreamId)> = routes.into_iter().collect();
        let reached = routes.iter().map(|(_, upstream)| *upstream);
        let routed = View {
            upstream: UpstreamId::FIRST,
            home: map.space(UpstreamId::FIRST),
            channels: channels.into_iter().map(|(prefix, of)| (prefix.into(), of)).collect(),
            upstreams: reached.chain([UpstreamId::FIRST]).collect(),
            routes: KeyRoutes::new(
                routes.iter().map(|(prefix, upstream)| (*prefix, map.space(*upstream))),
            ),
        };
        let alone = (0..map.upstreams()).map(|at| {
            let upstream = UpstreamId(at as u8);
            View {
                upstream,
                home: map.space(upstream),
                channels: Box::default(),
                routes: KeyRoutes::default(),
                upstreams: [upstream].into_iter().collect(),
            }
        });
        let all = std::iter::once(routed).chain(alone).collect();
        Views { map, names: names.iter().map(|name| (*name).into()).collect(), all }
    }

    /// Where the slots of the upstreams lie.
    pub fn map(&self) -> &SlotMap {
        &self.map
    }

    /// The name of an upstream.
    pub fn name(&self, upstream: UpstreamId) -> &str {
        self.names.get(upstream.at()).map_or("main", |name| name)
    }

    /// Where a key is, for messages: the name of the upstream, and the route that leads to it.
    pub fn place_of(&self, view: ViewId, key: &[u8]) -> String {
        let view = self.get(view);
        let name = self.name(self.map.upstream_of(view.slot_of(key)));
        match view.route_of(key) {
            Some(prefix) => format!("{name} (route \"{}\")", String::from_utf8_lossy(prefix)),
            None => name.to_owned(),
        }
    }

    /// A view; [`ViewId::ROUTED`] in the place of one that does not exist.
    ///
    /// # Panics
    /// Never: there is at least one view.
    #[inline]
    pub fn get(&self, view: ViewId) -> &View {
        static NOTHING: std::sync::LazyLock<View> = std::sync::LazyLock::new(|| View {
            upstream: UpstreamId::FIRST,
            home: SlotSpace::CLUSTER,
            channels: Box::default(),
            routes: KeyRoutes::default(),
            upstreams: UpstreamSet::ALL,
        });
        self.all.get(usize::from(view.0)).or(self.all.first()).unwrap_or_else(|| &NOTHING)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{SlotCount, slot_of};

    fn views() -> Views {
        let map = SlotMap::new(&[SlotCount::Cluster, SlotCount::One, SlotCount::One]).unwrap();
        Views::new(
            map,
            &["main", "queues", "other"],
            [(&b"rq:"[..], UpstreamId(1))],
            [(&b"rq"[..], UpstreamId(1)), (b"rqx", UpstreamId(2))],
        )
    }

    #[test]
    fn keys_go_by_the_routes_and_otherwise_to_the_first_upstream() {
        let views = views();
        let routed = views.get(ViewId::ROUTED);
        assert_eq!(routed.slot_of(b"rq:job:1"), Slot(16384));
        assert_eq!(routed.slot_of(b"rq"), slot_of(b"rq"));
        assert_eq!((routed.route_of(b"rq:1"), routed.route_of(b"a")), (Some(&b"rq:"[..]), None));
        let place = |key| views.place_of(ViewId::ROUTED, key);
        assert_eq!(place(b"rq:1"), "queues (route \"rq:\")");
        assert_eq!(place(b"a"), "main");
        assert!(!routed.is_one_server());
        assert_eq!(routed.keyless(), Slot::NONE);
        let has = |at| routed.upstreams().contains(UpstreamId(at));
        assert_eq!([0, 1, 2].map(has), [true, true, false], "those that its keys can be in");
    }

    #[test]
    fn keys_of_a_pattern_are_on_one_upstream_or_may_be_on_several() {
        let views = views();
        let routed = views.get(ViewId::ROUTED);
        let first = |pattern| routed.space_of_pattern(pattern).map(|space| space.first().0);
        assert_eq!(first(b"rq:weight_*"), Some(16384));
        assert_eq!(first(b"weight_*->f"), Some(0));
        assert_eq!(first(b"r*"), None);
        assert_eq!(first(b"*"), None);
        assert_eq!(first(b"r"), Some(0), "no pattern");
    }

    #[test]
    fn channels_have_routes_of_their_own() {
        let views = views();
        let of = |view, name| views.get(view).upstream_of_channel(name).0;
        let names = [&b"rq:a"[..], b"rqx:a", b"r", b"rq*"];
        assert_eq!(names.map(|name| of(ViewId::ROUTED, name)), [1, 2, 0, 1]);
        assert_eq!(names.map(|name| of(ViewId::of(UpstreamId(2)), name)), [2; 4]);
    }

    #[test]
    fn a_view_of_one_upstream_has_its_keys_only() {
        let views = views();
        let alone = views.get(ViewId::of(UpstreamId(2)));
        assert_eq!(alone.slot_of(b"rq:job:1"), Slot(16385));
        assert!(alone.is_one_server());
        assert_eq!(alone.keyless().keyless_of(), Some(UpstreamId(2)));
        let has = |at| alone.upstreams().contains(UpstreamId(at));
        assert_eq!([0, 1, 2].map(has), [false, false, true]);
        assert!(!views.get(ViewId::of(UpstreamId(0))).is_one_server());
        assert_eq!(views.get(ViewId::of(UpstreamId(9))), views.get(ViewId::ROUTED));
    }

    #[test]
    fn one_upstream_has_the_slots_that_it_always_had() {
        let views = Views::default();
        for view in [ViewId::ROUTED, ViewId::of(UpstreamId::FIRST)] {
            let view = views.get(view);
            assert_eq!((view.slot_of(b"foo"), view.keyless()), (slot_of(b"foo"), Slot::NONE));
        }
        let one = Views::new(SlotMap::new(&[SlotCount::One]).unwrap(), &["main"], [], []);
        assert_eq!(one.get(ViewId::ROUTED).slot_of(b"foo"), Slot(0));
    }
}
