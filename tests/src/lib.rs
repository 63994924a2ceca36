//! End-to-end tests: real programs, real clients, a SoftHSM token of its own per test.
