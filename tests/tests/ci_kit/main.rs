//! `chancery demo --serve --pebble` in place of Pebble, as docs/ci.md tells it: with real clients, on real roles.

mod calls;
mod clock;
mod document;
mod faults;
mod support;
