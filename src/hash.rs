//! The hash tables of the whole program. No other module names a hash function.
//!
//! - [`KeyedMap`], [`KeyedSet`]: for keys that a client or a node chooses: names of channels and
//!   patterns, members of sets, script digests, addresses, field names. SipHash-1-3 with a random
//!   key per table, so that nobody can choose keys that collide.
//! - [`IntMap`], [`IntSet`]: for integers that slotway itself assigns (indices, generations, slots,
//!   realms). Keys must implement the sealed trait [`IntKey`].
//! - [`fingerprint`]: a keyed hash that identifies bytes.
//! - [`Unkeyed`]: a hash that all slotway processes agree on. Must not be used in a table.
//!
//! Compared with FxHash, a lookup of a 16-byte name costs about 10 ns more, of a 100-byte name
//! about 20 ns. `clippy.toml` forbids the types of `rustc_hash` everywhere else.
#![allow(clippy::disallowed_types)]

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::marker::PhantomData;
use std::sync::LazyLock;

use rustc_hash::FxHasher;

use crate::cluster::Slot;
use crate::dest::{ClientId, ConnId, NodeId};

/// A map whose keys a client or a node may choose.
pub type KeyedMap<K, V> = HashMap<K, V, RandomState>;

/// A set whose elements a client or a node may choose.
pub type KeyedSet<T> = HashSet<T, RandomState>;

/// A map whose keys are integers assigned by slotway.
pub type IntMap<K, V> = HashMap<K, V, IntState<K>>;

/// A set of integers assigned by slotway.
pub type IntSet<T> = HashSet<T, IntState<T>>;

mod sealed {
    pub trait Sealed {}
}

/// Integers and pairs of integers. Never bytes, which belong in a [`KeyedMap`].
pub trait IntKey: sealed::Sealed + Hash + Eq {}

macro_rules! int_keys {
    ($($int:ty),*) => {
        $(
            impl sealed::Sealed for $int {}
            impl IntKey for $int {}
        )*
    };
}
int_keys!(u8, u16, u32, u64, usize, ClientId, ConnId, NodeId, Slot);

impl<A: IntKey, B: IntKey> sealed::Sealed for (A, B) {}
impl<A: IntKey, B: IntKey> IntKey for (A, B) {}

/// Builds the hashers of an [`IntMap`]. The bound on `K` excludes other keys.
pub struct IntState<K: IntKey>(PhantomData<fn(K)>);

impl<K: IntKey> Default for IntState<K> {
    fn default() -> Self {
        IntState(PhantomData)
    }
}

impl<K: IntKey> Clone for IntState<K> {
    fn clone(&self) -> Self {
        IntState(PhantomData)
    }
}

impl<K: IntKey> std::fmt::Debug for IntState<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("IntState")
    }
}

impl<K: IntKey> BuildHasher for IntState<K> {
    type Hasher = FxHasher;

    #[inline]
    fn build_hasher(&self) -> FxHasher {
        FxHasher::default()
    }
}

/// A keyed hash of `bytes`: the same in all threads and different in every process, so that nobody
/// can choose two byte strings with the same hash.
pub fn fingerprint(bytes: &[u8]) -> u64 {
    static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    KEY.hash_one(bytes)
}

/// A hash without a key, the same in every process, for numbers on which slotway processes agree.
#[derive(Default)]
pub struct Unkeyed(FxHasher);

impl std::fmt::Debug for Unkeyed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Unkeyed").field(&self.finish()).finish()
    }
}

impl Unkeyed {
    /// Adds bytes.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.0.write(bytes);
    }

    /// Adds a number.
    pub fn number(&mut self, number: u64) {
        self.0.write_u64(number);
    }

    /// The hash of everything added. Its upper half is mixed best.
    pub fn finish(&self) -> u64 {
        self.0.finish()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use rustc_hash::FxBuildHasher;

    use super::*;

    thread_local! {
        static COMPARISONS: Cell<usize> = const { Cell::new(0) };
    }

    #[derive(Debug)]
    struct Counted<'a>(&'a [u8]);

    impl Hash for Counted<'_> {
        fn hash<H: Hasher>(&self, state: &mut H) {
            self.0.hash(state);
        }
    }

    impl PartialEq for Counted<'_> {
        fn eq(&self, other: &Self) -> bool {
            COMPARISONS.set(COMPARISONS.get() + 1);
            self.0 == other.0
        }
    }

    impl Eq for Counted<'_> {}

    /// Names of 16 bytes whose first half is the constant that FxHash combines with, so that their
    /// hashes are equal whatever the second half is.
    fn colliding(count: u64) -> Vec<Vec<u8>> {
        let constant = 0x243f_6a88_85a3_08d3u64.to_le_bytes();
        (0..count).map(|n| [constant, n.to_be_bytes()].concat()).collect()
    }

    /// Number of comparisons to insert all `names` and find them again.
    fn comparisons<S: BuildHasher + Default>(names: &[Vec<u8>]) -> usize {
        COMPARISONS.set(0);
        let mut map: HashMap<Counted, (), S> = HashMap::default();
        for name in names {
            map.insert(Counted(name), ());
        }
        for name in names {
            assert!(map.contains_key(&Counted(name)));
        }
        assert_eq!(map.len(), names.len());
        COMPARISONS.get()
    }

    #[test]
    fn chosen_names_do_not_collide_in_a_keyed_map() {
        let names = colliding(2_000);
        let fast = comparisons::<FxBuildHasher>(&names);
        assert!(fast > 2_000 * 2_000 / 2, "{fast} comparisons: these names do not collide");
        let names = colliding(20_000);
        let keyed = comparisons::<RandomState>(&names);
        assert!(keyed < 2 * names.len(), "{keyed} comparisons for {} names", names.len());
        let fingerprints: KeyedSet<u64> = names.iter().map(|name| fingerprint(name)).collect();
        assert_eq!(fingerprints.len(), names.len());
    }

    #[test]
    fn each_keyed_map_has_a_key_of_its_own() {
        let hash = |map: &KeyedMap<&str, ()>| map.hasher().hash_one("a name");
        assert_ne!(hash(&KeyedMap::default()), hash(&KeyedMap::default()));
    }

    #[test]
    fn the_unkeyed_hash_never_changes() {
        // The hash is part of SCAN cursors, which another slotway or a later version must
        // understand.
        let mut hash = Unkeyed::default();
        hash.bytes(b"07c37dfeb235213a872192d90877d0cd55635b91");
        let of_bytes = hash.finish();
        hash.number(7);
        assert_eq!((of_bytes, hash.finish()), (11051169074687827386, 2586002744335487171));
    }
}
