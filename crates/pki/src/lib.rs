//! Names, CSRs, profiles, lints, TBS assembly, CRL and OCSP encoding: bytes in, bytes out.
