//! The SQLite backend of both stores, for one host.
