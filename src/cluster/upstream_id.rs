//! Identities of upstreams.

/// An upstream, by its place in the configuration; 0 is the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct UpstreamId(pub u8);

impl UpstreamId {
    /// The first upstream.
    pub const FIRST: UpstreamId = UpstreamId(0);
    /// Limit on upstreams.
    pub const MAX: usize = 64;

    /// The index into lists of upstreams.
    pub fn at(self) -> usize {
        usize::from(self.0)
    }
}
