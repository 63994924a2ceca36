//! The front role alone.

fn main() {}
