//! A command and a snapshot give a plan.
