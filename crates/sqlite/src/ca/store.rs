//! [`CaStore`], method by method: reads on a reading connection, writes through the writer.

use std::time::Duration;

use async_trait::async_trait;
use ca_store::{
    AbandonOutcome, Abandonment, AccountFilter, AccountMembers, AccountRecord, AccountRow, AccountSelector,
    AccountUpdate, AuditEvent, AuditHead, AuditRecord, Authority, AuthorityChanges, AuthoritySelector,
    BeginCrl, BlockedAfter, BlockedKeyRow, CaStore, CertificateQuery, Changes, Clock, CrlDraft, CrlEdits,
    CrlEntries, CrlJournal, CrlPiece, CrlShardRow, CrlSince, Digest, Epoch, Evidence, FollowMembers,
    ImportCrl, ImportOutcome, ImportedCrl, IncidentMember, IncidentRow, Info, IntentOutcome, JoinTokenRow,
    JournalEntry, JournalKey, LeaseOutcome, LedgerEntry, Limit, MemberCount, NewAccount, NewIntent,
    NewMember, NewRevocation, NodeRow, Page, Paged, PublishCrl, PublishOutcome, PutOutcome, RecordOutcome,
    RefusalCount, RegisterOutcome, RegistrationRow, Registry, RevokeOutcome, Revoked, RevokedAfter, Sealed,
    SignedRow, StoreChange, StoreError, UpdateOutcome,
};
use ca_store::{Serial, Timestamp};
use sqlx::Connection;

use super::{
    Ca, Write, account, audit, authority, certificates, crl, entry, imported, incident, limit, meta, node,
    orphan, registry, revocation,
};
use crate::failure::Failure;

#[async_trait]
impl CaStore for Ca {
    async fn info(&self) -> Result<Info, StoreError> {
        Ok(meta::info(&mut *self.readers.take().await?, self.number).await?)
    }

    async fn advance_clock(&self, now: Timestamp) -> Result<Clock, StoreError> {
        self.change(meta::AdvanceClock(now)).await
    }

    async fn begin_epoch(&self, random: [u8; 16], audit: Vec<AuditEvent>) -> Result<Epoch, StoreError> {
        self.change(meta::BeginEpoch { random, audit }).await
    }

    async fn claim_lease(&self, name: &str, ttl: Duration) -> Result<LeaseOutcome, StoreError> {
        self.change(meta::ClaimLease { name: name.to_owned(), ttl }).await
    }

    async fn registry(&self) -> Result<Registry, StoreError> {
        Ok(registry::registry(&mut *self.readers.take().await?).await?)
    }

    async fn put_authority(&self, changes: AuthorityChanges) -> Result<PutOutcome, StoreError> {
        self.change(changes).await
    }

    async fn authority(&self, selector: &AuthoritySelector) -> Result<Option<Authority>, StoreError> {
        Ok(authority::authority(&mut *self.readers.take().await?, selector).await?)
    }

    async fn registrations(
        &self,
        directory: Option<&str>,
        page: &Page,
    ) -> Result<Paged<Sealed<RegistrationRow>>, StoreError> {
        Ok(authority::registrations(&mut *self.readers.take().await?, directory, page).await?)
    }

    async fn nodes(&self) -> Result<Vec<Sealed<NodeRow>>, StoreError> {
        Ok(node::nodes(&mut *self.readers.take().await?).await?)
    }

    async fn join_token(&self, digest: &Digest) -> Result<Option<Sealed<JoinTokenRow>>, StoreError> {
        Ok(node::join_token(&mut *self.readers.take().await?, digest).await?)
    }

    async fn deactivated(&self, authorizations: &[String]) -> Result<Vec<String>, StoreError> {
        Ok(authority::deactivated(&mut *self.readers.take().await?, authorizations).await?)
    }

    async fn blocked_after(&self, after: &BlockedAfter) -> Result<Vec<BlockedKeyRow>, StoreError> {
        Ok(node::blocked_after(&mut *self.readers.take().await?, after).await?)
    }

    async fn blocked_keys(&self, keys: &[Digest]) -> Result<Vec<BlockedKeyRow>, StoreError> {
        Ok(node::blocked_keys(&mut *self.readers.take().await?, keys).await?)
    }

    async fn register_account(&self, account: NewAccount) -> Result<RegisterOutcome, StoreError> {
        self.change(account).await
    }

    async fn account(&self, selector: &AccountSelector) -> Result<Option<AccountRecord>, StoreError> {
        Ok(account::record(&mut *self.readers.take().await?, selector).await?)
    }

    async fn accounts(
        &self,
        filter: &AccountFilter,
        page: &Page,
    ) -> Result<Paged<Sealed<AccountRow>>, StoreError> {
        Ok(account::page(&mut *self.readers.take().await?, filter, page).await?)
    }

    async fn update_account(&self, update: AccountUpdate) -> Result<UpdateOutcome, StoreError> {
        self.change(update).await
    }

    async fn commit_intents(&self, intents: Vec<NewIntent>) -> Result<Vec<IntentOutcome>, StoreError> {
        Ok(self.writer.write(intents, Write::Intents).await?)
    }

    async fn record_certificates(&self, rows: Vec<SignedRow>) -> Result<Vec<RecordOutcome>, StoreError> {
        Ok(self.writer.write(rows, Write::Records).await?)
    }

    async fn abandon(&self, rows: Vec<Abandonment>) -> Result<Vec<AbandonOutcome>, StoreError> {
        self.change(orphan::Abandon(rows)).await
    }

    async fn claim_orphans(&self, lease: Duration, limit: u32) -> Result<Vec<JournalEntry>, StoreError> {
        self.change(orphan::Claim { lease, limit }).await
    }

    async fn extend_leases(&self, serials: &[Serial], lease: Duration) -> Result<u64, StoreError> {
        self.change(orphan::Extend { serials: serials.to_vec(), lease }).await
    }

    async fn journal(&self, key: &JournalKey) -> Result<Vec<JournalEntry>, StoreError> {
        Ok(entry::by_key(&mut *self.readers.take().await?, key).await?)
    }

    async fn evidence(&self, serial: &Serial) -> Result<Option<Evidence>, StoreError> {
        Ok(entry::evidence(&mut *self.readers.take().await?, serial).await?)
    }

    async fn reached_limits(&self, limits: &[Limit]) -> Result<Vec<Option<Timestamp>>, StoreError> {
        Ok(limit::newest(&mut *self.readers.take().await?, limits).await?)
    }

    async fn certificates(&self, query: &CertificateQuery) -> Result<Paged<JournalEntry>, StoreError> {
        Ok(certificates::page(&mut *self.readers.take().await?, query).await?)
    }

    async fn revoke(&self, revocations: Vec<NewRevocation>) -> Result<Vec<RevokeOutcome>, StoreError> {
        self.change(revocation::Revoke(revocations)).await
    }

    async fn crl_shards(&self, issuer: Option<&str>) -> Result<Vec<CrlShardRow>, StoreError> {
        let mut reader = self.readers.take().await?;
        let mut snapshot = reader.begin().await.map_err(Failure::from)?;
        Ok(crl::shards(&mut snapshot, issuer).await?)
    }

    async fn ledger(&self, serials: &[Serial]) -> Result<Vec<LedgerEntry>, StoreError> {
        Ok(entry::ledger(&mut *self.readers.take().await?, serials).await?)
    }

    async fn revoked_after(&self, after: &RevokedAfter) -> Result<Vec<Revoked>, StoreError> {
        Ok(revocation::after(&mut *self.readers.take().await?, after).await?)
    }

    async fn begin_crl(&self, begin: BeginCrl) -> Result<CrlDraft, StoreError> {
        self.change(begin).await
    }

    async fn crl_entries(&self, entries: &CrlEntries) -> Result<CrlPiece, StoreError> {
        Ok(crl::entries(&mut *self.readers.take().await?, entries).await?)
    }

    async fn crl_edits(&self, since: &CrlSince) -> Result<Option<CrlEdits>, StoreError> {
        Ok(crl::edits(&mut *self.readers.take().await?, since).await?)
    }

    async fn journal_crl(&self, crl: CrlJournal) -> Result<(), StoreError> {
        self.change(crl).await
    }

    async fn publish_crl(&self, publish: PublishCrl) -> Result<PublishOutcome, StoreError> {
        self.change(publish).await
    }

    async fn import_crl(&self, import: ImportCrl) -> Result<ImportOutcome, StoreError> {
        self.change(import).await
    }

    async fn imported_crls(&self) -> Result<Vec<ImportedCrl>, StoreError> {
        Ok(imported::all(&mut *self.readers.take().await?).await?)
    }

    async fn incident(&self, id: &str) -> Result<Option<Sealed<IncidentRow>>, StoreError> {
        Ok(incident::by_id(&mut *self.readers.take().await?, id).await?)
    }

    async fn incidents(&self, current: bool, page: &Page) -> Result<Paged<Sealed<IncidentRow>>, StoreError> {
        Ok(incident::list(&mut *self.readers.take().await?, current, page).await?)
    }

    async fn add_members(
        &self,
        incident: &str,
        members: Vec<NewMember>,
        audit: Vec<AuditEvent>,
    ) -> Result<Option<u64>, StoreError> {
        self.change(incident::Add { incident: incident.to_owned(), members, audit }).await
    }

    async fn members(
        &self,
        incident: &str,
        left: bool,
        page: &Page,
    ) -> Result<Paged<IncidentMember>, StoreError> {
        Ok(incident::members(&mut *self.readers.take().await?, incident, left, page).await?)
    }

    async fn follow_members(&self, follow: FollowMembers) -> Result<Vec<IncidentMember>, StoreError> {
        let looked = incident::look(&mut *self.readers.take().await?, &follow).await?;
        // Whoever has nothing to write does not wait for the writer.
        if let Some(note) = incident::Note::of(&follow.incident, &looked) {
            self.change(note).await?;
        }
        Ok(looked.into_iter().map(|looked| looked.member).collect())
    }

    async fn member_counts(&self, incident: &str) -> Result<Vec<MemberCount>, StoreError> {
        Ok(incident::counts(&mut *self.readers.take().await?, incident).await?)
    }

    async fn account_members(
        &self,
        incident: &str,
        page: &Page,
    ) -> Result<Paged<AccountMembers>, StoreError> {
        Ok(incident::accounts(&mut *self.readers.take().await?, incident, page).await?)
    }

    async fn incidents_of(
        &self,
        serial: &Serial,
    ) -> Result<Vec<(Sealed<IncidentRow>, IncidentMember)>, StoreError> {
        Ok(incident::of(&mut *self.readers.take().await?, serial).await?)
    }

    async fn append_audit(
        &self,
        events: Vec<AuditEvent>,
        refusals: Vec<RefusalCount>,
    ) -> Result<(), StoreError> {
        self.change(audit::Append { events, refusals }).await
    }

    async fn audit(&self, incarnation: u64, after: u64, limit: u32) -> Result<Vec<AuditRecord>, StoreError> {
        Ok(audit::page(&mut *self.readers.take().await?, incarnation, after, limit).await?)
    }

    async fn audit_heads(&self) -> Result<Vec<AuditHead>, StoreError> {
        Ok(audit::heads(&mut *self.readers.take().await?).await?)
    }

    async fn refusals(&self, since: Timestamp) -> Result<Vec<RefusalCount>, StoreError> {
        Ok(audit::refusals(&mut *self.readers.take().await?, since).await?)
    }

    async fn watch(&self) -> Result<Box<dyn Changes>, StoreError> {
        Ok(Box::new(NobodyElse))
    }

    async fn close(&self) {
        self.writer.close().await;
        self.readers.close(self.options.readers).await;
    }
}

/// The database serves one signer: there is nothing to hear.
struct NobodyElse;

#[async_trait]
impl Changes for NobodyElse {
    async fn next(&mut self) -> Result<StoreChange, StoreError> {
        std::future::pending().await
    }
}
