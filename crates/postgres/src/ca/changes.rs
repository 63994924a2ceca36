//! What signers tell each other: notifications of the server, which it passes on when their transaction is durable.
//!
//! Whoever may connect to the database can send such notifications, and hear them: they are hints, and hold no secret.

use std::time::Duration;

use async_trait::async_trait;
use ca_store::{Changes, CrlShard, StoreChange, StoreError};
use sqlx::{
    PgConnection,
    postgres::{PgConnectOptions, PgListener, PgPoolOptions},
};

use crate::failure::{Cause, Failure};

const CHANNEL: &str = "chancery_ca";

/// A session that is silent for so long is asked whether it lives, and has as long to answer.
const SILENCE: Duration = Duration::from_secs(5);

/// Tells other signers, when the open transaction is durable.
pub(super) async fn tell(
    connection: &mut PgConnection,
    number: i64,
    changes: &[StoreChange],
) -> Result<(), Failure> {
    if changes.is_empty() {
        return Ok(());
    }
    let messages: Vec<String> = changes.iter().map(|change| format!("{number} {}", write(change))).collect();
    sqlx::query!(
        r#"SELECT count(pg_notify($1, message)) AS "count!" FROM UNNEST($2::text[]) AS m (message)"#,
        CHANNEL,
        &messages
    )
    .fetch_one(connection)
    .await?;
    Ok(())
}

fn write(change: &StoreChange) -> String {
    match change {
        StoreChange::Account(id) => format!("account {id}"),
        StoreChange::Crl(CrlShard { issuer, shard }) => format!("crl {shard} {issuer}"),
        StoreChange::Revoked(CrlShard { issuer, shard }) => format!("revoked {shard} {issuer}"),
        StoreChange::Nodes => "nodes".to_owned(),
        StoreChange::ImportedCrl => "imported-crl".to_owned(),
    }
}

/// The sender's number, and what it says; nothing for what no signer of this version sends.
fn read(message: &str) -> Option<(i64, StoreChange)> {
    let (number, rest) = message.split_once(' ')?;
    let (kind, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    let change = match kind {
        "account" => StoreChange::Account(rest.to_owned()),
        "crl" => StoreChange::Crl(read_shard(rest)?),
        "revoked" => StoreChange::Revoked(read_shard(rest)?),
        "nodes" => StoreChange::Nodes,
        "imported-crl" => StoreChange::ImportedCrl,
        _ => return None,
    };
    Some((number.parse().ok()?, change))
}

fn read_shard(text: &str) -> Option<CrlShard> {
    let (shard, issuer) = text.split_once(' ')?;
    Some(CrlShard { issuer: issuer.to_owned(), shard: shard.parse().ok()? })
}

/// A session that listens.
pub(super) struct Listener {
    session: PgListener,
    number: i64,
}

impl Listener {
    pub(super) async fn open(options: &PgConnectOptions, number: i64) -> Result<Self, Failure> {
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(2 * SILENCE)
            .connect_with(options.clone())
            .await?;
        let mut session = PgListener::connect_with(&pool).await?;
        session.eager_reconnect(false);
        session.listen(CHANNEL).await?;
        Ok(Self { session, number })
    }

    async fn alive(&mut self) -> Result<(), Failure> {
        let question = sqlx::query("SELECT 1").execute(&mut self.session);
        match tokio::time::timeout(SILENCE, question).await {
            Ok(answer) => Ok(answer.map(drop)?),
            Err(late) => Err(Failure::Unavailable(Cause::new(late))),
        }
    }

    async fn heard(&mut self) -> Result<StoreChange, Failure> {
        loop {
            match tokio::time::timeout(SILENCE, self.session.try_recv()).await {
                Ok(Ok(Some(notification))) => match read(notification.payload()) {
                    Some((sender, _)) if sender == self.number => {}
                    Some((_, change)) => return Ok(change),
                    None => tracing::debug!("a notification that no signer of this version sends"),
                },
                Ok(Ok(None)) => return Err(Failure::Unavailable(Cause::new(Gone))),
                Ok(Err(error)) => return Err(error.into()),
                Err(_) => self.alive().await?,
            }
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the session that hears of other signers' changes is gone")]
struct Gone;

#[async_trait]
impl Changes for Listener {
    async fn next(&mut self) -> Result<StoreChange, StoreError> {
        Ok(self.heard().await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_read_back() {
        for change in [
            StoreChange::Account("an id".to_owned()),
            StoreChange::Crl(CrlShard { issuer: "an issuer".to_owned(), shard: 7 }),
            StoreChange::Revoked(CrlShard { issuer: "an issuer".to_owned(), shard: 7 }),
            StoreChange::Nodes,
            StoreChange::ImportedCrl,
        ] {
            assert_eq!(read(&format!("12 {}", write(&change))), Some((12, change)));
        }
        for stray in
            ["", "12", "12 ", "x account a", "12 crl x y", "12 crl 7", "12 revoked", "12 later thing"]
        {
            assert_eq!(read(stray), None, "{stray}");
        }
    }
}
