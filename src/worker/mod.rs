//! One core: owns its clients and upstreams, and runs them.
