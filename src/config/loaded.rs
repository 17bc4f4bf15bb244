//! A valid configuration with the origins of its values.

use std::collections::BTreeMap;

use super::{Config, ConfigError, Origin, Problem};

/// A valid configuration with the origins of its values.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    pub(super) origins: BTreeMap<&'static str, Origin>,
}

impl Loaded {
    /// The origin of the value of the key at `path`.
    pub fn origin(&self, path: &str) -> &Origin {
        self.origins.get(path).unwrap_or(&Origin::Default)
    }

    /// Refuses a configuration without seeds. Not part of [`super::load`], because `slotway check`
    /// may check a file whose seeds come from the environment later.
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
