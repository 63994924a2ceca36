//! Rows, trait and contract suite of the fronts' database.
