mod blocking;
pub use blocking::{WaitTime, left_of, wait_time};
