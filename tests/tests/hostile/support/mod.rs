//! A signer of its own for these tests, on the folder of a demo that has ended; clients' words; the database's file.

mod client;
mod database;
mod documented;
mod system;

pub(crate) use client::{Client, csr_by, csr_for, digest, encode, json_of, nonce};
pub(crate) use database::{Database, PROTECTED};
pub(crate) use documented::documented;
pub(crate) use system::System;
