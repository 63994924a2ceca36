//! The validator role alone.

fn main() {}
