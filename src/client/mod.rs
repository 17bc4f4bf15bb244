//! One downstream connection: its state, its ordered reply queue, its limits.
