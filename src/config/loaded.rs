//! A valid configuration, and where its values come from.

use std::collections::BTreeMap;

use super::{Config, ConfigError, Origin, Problem};

/// A valid configuration, and where it comes from.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    pub(super) origins: BTreeMap<&'static str, Origin>,
}

impl Loaded {
    /// Where the value of the key `path` comes from.
    pub fn origin(&self, path: &str) -> &Origin {
        self.origins.get(path).unwrap_or(&Origin::Default)
    }

    /// Refuses a configuration that names no cluster. Apart from [`super::load`], because
    /// `slotway check` may look at a file whose seeds will come from the environment.
    pub fn require_seeds(&self) -> Result<(), ConfigError> {
        if !self.config.seeds.is_empty() {
            return Ok(());
        }
        Err(ConfigError {
            problems: vec![Problem {
                origin: self.origin("seeds").clone(),
                key: "seeds".into(),
                reason: "none given, so there is no cluster to connect to; name one or more of \
                         its nodes: --seeds 10.0.0.1:7000,10.0.0.2:7000, or \
                         SLOTWAY_SEEDS=10.0.0.1:7000,10.0.0.2:7000, or in the file \
                         seeds = [\"10.0.0.1:7000\", \"10.0.0.2:7000\"]"
                    .into(),
            }],
        })
    }
}
