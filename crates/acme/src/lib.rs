//! RFC 8555 objects, strict JWS, states, problem documents, receipts and ids, without IO.
