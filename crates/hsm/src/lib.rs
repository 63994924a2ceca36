//! The only user of PKCS#11: worker process, sessions, queues, recovery.
