//! Whether the server keeps what it has acknowledged (DESIGN §5).

use sqlx::PgConnection;

use crate::failure::Failure;

/// Refuses a server that may lose a commit.
pub(crate) async fn check(connection: &mut PgConnection) -> Result<(), Failure> {
    let found = sqlx::query_as!(
        Settings,
        r#"SELECT current_setting('fsync') AS "fsync!", current_setting('full_page_writes') AS "full_page_writes!",
                  current_setting('synchronous_commit') AS "synchronous_commit!",
                  current_setting('synchronous_standby_names') AS "synchronous_standby_names!",
                  (SELECT count(*) FROM pg_stat_replication) AS "standbys!",
                  (SELECT count(*) FROM pg_replication_slots WHERE slot_type = 'physical' AND NOT temporary)
                      AS "slots!""#
    )
    .fetch_one(connection)
    .await?;
    match found.objection() {
        Some(setting) => Err(Failure::NotDurable { setting }),
        None => Ok(()),
    }
}

struct Settings {
    fsync: String,
    full_page_writes: String,
    synchronous_commit: String,
    synchronous_standby_names: String,
    /// Servers, and backups, that receive what this one writes. Their state is for monitoring roles to see, their number
    /// for everyone.
    standbys: i64,
    /// Places kept for servers that may be away at this moment.
    slots: i64,
}

impl Settings {
    /// The first thing that makes it lose commits.
    fn objection(&self) -> Option<String> {
        if self.fsync != "on" {
            return Some(format!("fsync = {}: a crash of the host loses commits", self.fsync));
        }
        if self.full_page_writes != "on" {
            return Some(format!(
                "full_page_writes = {}: a crash of the host tears pages",
                self.full_page_writes
            ));
        }
        // `remote_write` is less than `on` only with a standby; what a role of it was meant for is not known here.
        if !matches!(self.synchronous_commit.as_str(), "on" | "remote_apply") {
            return Some(format!(
                "synchronous_commit = {} for this role: an acknowledged commit may be lost",
                self.synchronous_commit
            ));
        }
        if self.synchronous_standby_names.is_empty() && self.standbys + self.slots > 0 {
            return Some(format!(
                "{} standbys are attached and {} expected (physical replication slots), but \
                 synchronous_standby_names is empty: a failover loses commits",
                self.standbys, self.slots
            ));
        }
        None
    }
}
