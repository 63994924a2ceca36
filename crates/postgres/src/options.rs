//! Where a database is, and the settings of our sessions with it.

use std::{net::IpAddr, str::FromStr, time::Duration};

use sqlx::{
    ConnectOptions, PgConnection,
    postgres::{PgConnectOptions, PgSslMode},
};

use crate::failure::{Cause, Failure};

/// How to open a database.
#[derive(Clone, Debug)]
pub struct Options {
    server: PgConnectOptions,
    /// At most how many reads run at once; each is a session of the server. Writes have one more session.
    pub readers: usize,
    /// The operator knows that a commit may be lost, and wants to go on: see [`Ca::open`](crate::Ca::open).
    pub accept_lost_commits: bool,
}

/// Why an address of a database is none.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// It does not parse.
    #[error("not a URL like postgres://USER@HOST/DATABASE?sslrootcert=FILE")]
    Url(#[source] sqlx::Error),
    /// It names another kind of database.
    #[error("not a URL that begins with postgres://")]
    Scheme,
    /// It has a password in it, which would be read by whoever reads the configuration.
    #[error("the URL holds a password: give it in a file of its own")]
    Password,
    /// It does not say which database.
    #[error("the URL names no database")]
    Database,
    /// It sets what this program sets itself.
    #[error("the URL sets options of the session: those are this program's own")]
    SessionOptions,
}

impl Options {
    /// From a URL: `postgres://USER@HOST:PORT/DATABASE?sslrootcert=FILE`, or
    /// `postgres:///DATABASE?host=/run/postgresql&user=USER` for a socket of the same host. Other hosts are verified by
    /// their certificate unless the URL says otherwise (`sslmode`). Without a password here it comes from libpq's places:
    /// `PGPASSFILE`, `~/.pgpass`.
    ///
    /// # Errors
    /// When the URL does not parse, has a password in it, or names no database.
    pub fn from_url(url: &str) -> Result<Self, AddressError> {
        let rest = url
            .strip_prefix("postgres://")
            .or_else(|| url.strip_prefix("postgresql://"))
            .ok_or(AddressError::Scheme)?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let keys = || query.split('&').filter_map(|pair| pair.split('=').next());
        let authority = rest.split('/').next().unwrap_or_default();
        let user = authority.rsplit_once('@').map_or("", |(user, _)| user);
        if user.contains(':') || keys().any(|key| key == "password") {
            return Err(AddressError::Password);
        }
        if keys().any(|key| key == "options" || key.starts_with("options[")) {
            return Err(AddressError::SessionOptions);
        }
        let mut server = PgConnectOptions::from_str(url).map_err(AddressError::Url)?;
        if server.get_database().is_none() {
            return Err(AddressError::Database);
        }
        let chosen = keys().any(|key| key == "sslmode" || key == "ssl-mode");
        if !chosen && server.get_socket().is_none() && !is_this_host(server.get_host()) {
            server = server.ssl_mode(PgSslMode::VerifyFull);
        }
        Ok(Self { server, readers: READERS, accept_lost_commits: false })
    }

    /// With the password of the role.
    #[must_use]
    pub fn with_password(mut self, password: &str) -> Self {
        self.server = self.server.password(password);
        self
    }

    /// For the session that writes. Its statements have no time limit: one that ends while a commit waits for a standby
    /// would make the server answer as if the standby had it. Locks have, and [`PATIENCE`] is ours.
    pub(crate) fn writing(&self, schema: &'static str) -> PgConnectOptions {
        self.session(schema).options([
            ("lock_timeout", "10s"),
            ("default_transaction_isolation", "read committed"),
            // A signer that is stopped in the middle must not hold its locks for long.
            ("idle_in_transaction_session_timeout", "15s"),
        ])
    }

    /// For sessions that read.
    pub(crate) fn reading(&self, schema: &'static str) -> PgConnectOptions {
        self.session(schema).options([
            ("default_transaction_read_only", "on"),
            // A read of several statements is one snapshot.
            ("default_transaction_isolation", "repeatable read"),
            ("statement_timeout", "30s"),
            ("idle_in_transaction_session_timeout", "15s"),
        ])
    }

    /// For a session that listens.
    pub(crate) fn listening(&self, schema: &'static str) -> PgConnectOptions {
        self.session(schema)
    }

    /// For migrations, by the owner of the schema.
    pub(crate) fn migrating(&self, schema: &'static str) -> PgConnectOptions {
        self.server.clone().application_name("chancery migration").options([("search_path", schema)])
    }

    /// Every statement finds its rows by an index, and its plan must not depend on what the server believes about how
    /// many there are: a plan that is made while a table is empty is used when it has millions.
    fn session(&self, schema: &'static str) -> PgConnectOptions {
        self.server
            .clone()
            .application_name(&format!("chancery {schema}"))
            .statement_cache_capacity(256)
            .disable_statement_logging()
            .options([
                ("search_path", schema),
                ("plan_cache_mode", "force_generic_plan"),
                ("enable_seqscan", "off"),
                ("enable_hashjoin", "off"),
                ("enable_mergejoin", "off"),
                ("jit", "off"),
                ("tcp_keepalives_idle", "30"),
                ("tcp_keepalives_interval", "10"),
                ("tcp_keepalives_count", "3"),
            ])
    }
}

/// Sessions that read: what two cores can use.
const READERS: usize = 8;

/// How long a server may take to let us in.
const CONNECT: Duration = Duration::from_secs(10);

/// How long a transaction may take before its session is given up: longer than the server takes to give up a lock.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Opens a session.
pub(crate) async fn connect(options: &PgConnectOptions) -> Result<PgConnection, Failure> {
    match tokio::time::timeout(CONNECT, options.connect()).await {
        Ok(connection) => Ok(connection?),
        Err(late) => Err(Failure::Unavailable(Cause::new(late))),
    }
}

fn is_this_host(host: &str) -> bool {
    host == "localhost"
        || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|host| host.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        for good in [
            "postgres://signer@db.example:5433/chancery?sslrootcert=/etc/ca.pem",
            "postgresql:///chancery?host=/run/postgresql&user=signer",
            "postgres://signer@127.0.0.1/chancery",
        ] {
            assert!(Options::from_url(good).is_ok(), "{good}");
        }
        for (bad, message) in [
            ("postgres://signer:secret@db.example/chancery", "holds a password"),
            ("postgres://db.example/chancery?user=a&password=secret", "holds a password"),
            ("postgres://signer@db.example/chancery?options=-c%20fsync%3Doff", "this program's own"),
            ("postgres://signer@db.example", "no database"),
            ("mysql://signer@db.example/chancery", "begins with postgres://"),
        ] {
            let error = Options::from_url(bad).unwrap_err();
            assert!(error.to_string().contains(message), "{bad}: {error}");
        }
    }

    /// Another host has to show who it is; whoever wants less says so.
    #[test]
    fn other_hosts_are_verified() {
        let mode = |url: &str| format!("{:?}", Options::from_url(url).unwrap().server.get_ssl_mode());
        assert_eq!(mode("postgres://a@db.example/c"), "VerifyFull");
        assert_eq!(mode("postgres://a@192.0.2.1/c"), "VerifyFull");
        assert_eq!(mode("postgres://a@db.example/c?sslmode=require"), "Require");
        assert_eq!(mode("postgres://a@localhost/c"), "Prefer");
        assert_eq!(mode("postgres://a@[::1]/c"), "Prefer");
    }
}
