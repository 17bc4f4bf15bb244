//! What is seen of commands as they pass.

pub(crate) mod seen;
pub(crate) mod traced;
