//! Retries are carried out: gates are served, the budget is kept, and slots whose primary is
//! missing for too long fail fast. The policy itself is pure: [`crate::placement`].

use crate::config::Config;
use crate::nodes::retries::Want;

use crate::placement::{Budget, Retries};

/// A worker's retries, none of which waits.
pub(super) fn of(config: &Config) -> Retries<Want> {
    let (percent, min) = (config.retries.budget_percent, config.retries.min_per_second);
    Retries::new(Budget::new(percent, min))
}
