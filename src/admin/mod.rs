//! HTTP beside the traffic: metrics, health.
