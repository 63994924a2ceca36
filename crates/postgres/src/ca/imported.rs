//! CRLs of authorities whose keys are elsewhere.

use ca_store::{ImportCrl, ImportOutcome, ImportedCrl, StoreChange};
use sqlx::PgConnection;

use super::Context;
use crate::{
    failure::Failure,
    lock::Locks,
    stored::{Table, number, seconds},
    writer::Change,
};

const IMPORTED: Table = Table("imported_crls");

/// A CRL as it is stored.
struct Stored {
    authority: String,
    number: i64,
    this_update: i64,
    next_update: i64,
    der: Vec<u8>,
    imported_at: i64,
    imported_by: String,
}

impl Stored {
    fn crl(self) -> Result<ImportedCrl, Failure> {
        Ok(ImportedCrl {
            authority: self.authority,
            number: IMPORTED.unsigned("number", self.number)?,
            this_update: IMPORTED.time("this_update", self.this_update)?,
            next_update: IMPORTED.time("next_update", self.next_update)?,
            der: self.der,
            imported_at: IMPORTED.time("imported_at", self.imported_at)?,
            imported_by: self.imported_by,
        })
    }
}

/// [`imported_crls`](ca_store::CaStore::imported_crls).
pub(super) async fn all(connection: &mut PgConnection) -> Result<Vec<ImportedCrl>, Failure> {
    let rows = sqlx::query_as!(
        Stored,
        "SELECT authority, number, this_update, next_update, der, imported_at, imported_by FROM imported_crls
         ORDER BY authority"
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(Stored::crl).collect()
}

impl Change<Context> for ImportCrl {
    type Outcome = ImportOutcome;

    const LOCKS: Locks = Locks::REVOCATION;

    async fn apply(
        &self,
        connection: &mut PgConnection,
        context: &mut Context,
    ) -> Result<ImportOutcome, Failure> {
        let new = &self.crl;
        let there = all(&mut *connection).await?.into_iter().find(|crl| crl.authority == new.authority);
        if let Some(there) = there
            && (there.number >= new.number || there.this_update >= new.this_update)
        {
            return Ok(ImportOutcome::Superseded(Box::new(there)));
        }
        sqlx::query!(
            "INSERT INTO imported_crls (
                authority, number, this_update, next_update, der, imported_at, imported_by)
             VALUES ($1, $2, $3, $4, $5, $6, $7)
             ON CONFLICT (authority) DO UPDATE SET
                number = excluded.number, this_update = excluded.this_update, next_update = excluded.next_update,
                der = excluded.der, imported_at = excluded.imported_at, imported_by = excluded.imported_by",
            new.authority,
            number(new.number),
            seconds(new.this_update),
            seconds(new.next_update),
            new.der,
            seconds(new.imported_at),
            new.imported_by
        )
        .execute(connection)
        .await?;
        context.audit.extend_from_slice(&self.audit);
        context.changes.push(StoreChange::ImportedCrl);
        Ok(ImportOutcome::Imported)
    }
}
