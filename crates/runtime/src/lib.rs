//! What every role shares: configuration, reload, tracing, metrics, health, drain, exit codes.
