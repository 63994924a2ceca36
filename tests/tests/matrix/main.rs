//! The client matrix: every client by every way that it knows, as docs/clients.md tells it. One test a client; each has a CA
//! of its own. Those of the module `chroot` are left out of `make test` (`.config/nextest.toml`).

mod certbot;
mod chroot;
mod document;
mod lego;
mod libraries;
mod servers;
mod shell;
