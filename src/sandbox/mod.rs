//! Starts and stops a local cluster of real servers, for `make run`, tests and benches.
