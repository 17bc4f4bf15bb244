mod blocking;
pub use blocking::{WaitTime, with_time_left, wait_time};
