//! http-01 and the receipts of validation; the validator role.
