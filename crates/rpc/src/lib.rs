//! Generated gRPC, conversions, mutual TLS with reload, peer identity and roles.
