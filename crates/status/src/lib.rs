//! CRL, AIA and OCSP over HTTP; the status role.
