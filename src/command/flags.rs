//! A command's flags.

macro_rules! flags {
    ($($name:ident = $bit:literal, $word:literal;)*) => {
        bitflags::bitflags! {
            /// A set of command flags. Words that slotway does not know are ignored.
            #[derive(Clone, Copy, PartialEq, Eq, Default, Hash)]
            pub struct Flags: u32 {
                $(
                    #[allow(missing_docs)] // the server's words, explained in its COMMAND page
                    const $name = 1 << $bit;
                )*
            }
        }

        impl Flags {
            const WORDS: &'static [(&'static str, Flags)] = &[$(($word, Flags::$name)),*];
        }
    };
}

flags! {
    WRITE = 0, "write";
    READONLY = 1, "readonly";
    DENYOOM = 2, "denyoom";
    ADMIN = 3, "admin";
    PUBSUB = 4, "pubsub";
    NOSCRIPT = 5, "noscript";
    BLOCKING = 6, "blocking";
    LOADING = 7, "loading";
    STALE = 8, "stale";
    SKIP_MONITOR = 9, "skip_monitor";
    SKIP_SLOWLOG = 10, "skip_slowlog";
    ASKING = 11, "asking";
    FAST = 12, "fast";
    NO_AUTH = 13, "no_auth";
    MAY_REPLICATE = 14, "may_replicate";
    NO_MANDATORY_KEYS = 15, "no_mandatory_keys";
    NO_MULTI = 16, "no_multi";
    MOVABLEKEYS = 17, "movablekeys";
    ALLOW_BUSY = 18, "allow_busy";
    NO_ASYNC_LOADING = 19, "no_async_loading";
    MODULE = 20, "module";
    RANDOM = 21, "random";
    SORT_FOR_SCRIPT = 22, "sort_for_script";
}

impl Flags {
    /// The flag for a server's word; no flag for an unknown word.
    pub(super) fn of_word(word: &str) -> Flags {
        Self::WORDS.iter().find(|(w, _)| *w == word).map_or(Flags::empty(), |(_, f)| *f)
    }

    /// The server's words for the flags.
    pub fn words(self) -> impl Iterator<Item = &'static str> {
        Self::WORDS.iter().filter(move |(_, f)| self.contains(*f)).map(|(w, _)| *w)
    }
}

impl std::fmt::Debug for Flags {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.words()).finish()
    }
}
