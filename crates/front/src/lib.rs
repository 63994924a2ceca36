//! The ACME service; the front role.
