//! The status role alone.

fn main() {}
