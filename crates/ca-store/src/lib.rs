//! Rows, trait and contract suite of the signers' database.
