//! The control thread: accepting, topology refresh, signals, drain.
