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
    SignedRow, StoreError, UpdateOutcome,
};
use ca_store::{Serial, Timestamp};

use super::{
    Ca, Write, account, audit, authority, certificates, changes, crl, entry, imported, incident, limit, meta,
    node, orphan, registry, revocation,
};
use crate::reader::read;

#[async_trait]
impl CaStore for Ca {
    async fn info(&self) -> Result<Info, StoreError> {
        Ok(read!(self.readers, |connection| meta::info(connection, self.number))?)
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
        Ok(read!(self.readers, |connection| registry::registry(connection))?)
    }

    async fn put_authority(&self, changes: AuthorityChanges) -> Result<PutOutcome, StoreError> {
        self.change(changes).await
    }

    async fn authority(&self, selector: &AuthoritySelector) -> Result<Option<Authority>, StoreError> {
        Ok(read!(self.readers, |connection| authority::authority(connection, selector))?)
    }

    async fn registrations(
        &self,
        directory: Option<&str>,
        page: &Page,
    ) -> Result<Paged<Sealed<RegistrationRow>>, StoreError> {
        Ok(read!(self.readers, |connection| authority::registrations(connection, directory, page))?)
    }

    async fn nodes(&self) -> Result<Vec<Sealed<NodeRow>>, StoreError> {
        Ok(read!(self.readers, |connection| node::nodes(connection))?)
    }

    async fn join_token(&self, digest: &Digest) -> Result<Option<Sealed<JoinTokenRow>>, StoreError> {
        Ok(read!(self.readers, |connection| node::join_token(connection, digest))?)
    }

    async fn deactivated(&self, authorizations: &[String]) -> Result<Vec<String>, StoreError> {
        Ok(read!(self.readers, |connection| authority::deactivated(connection, authorizations))?)
    }

    async fn blocked_after(&self, after: &BlockedAfter) -> Result<Vec<BlockedKeyRow>, StoreError> {
        Ok(read!(self.readers, |connection| node::blocked_after(connection, after))?)
    }

    async fn blocked_keys(&self, keys: &[Digest]) -> Result<Vec<BlockedKeyRow>, StoreError> {
        Ok(read!(self.readers, |connection| node::blocked_keys(connection, keys))?)
    }

    async fn register_account(&self, account: NewAccount) -> Result<RegisterOutcome, StoreError> {
        self.change(account).await
    }

    async fn account(&self, selector: &AccountSelector) -> Result<Option<AccountRecord>, StoreError> {
        Ok(read!(self.readers, |connection| account::record(connection, selector))?)
    }

    async fn accounts(
        &self,
        filter: &AccountFilter,
        page: &Page,
    ) -> Result<Paged<Sealed<AccountRow>>, StoreError> {
        Ok(read!(self.readers, |connection| account::page(connection, filter, page))?)
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
        Ok(read!(self.readers, |connection| entry::by_key(connection, key))?)
    }

    async fn evidence(&self, serial: &Serial) -> Result<Option<Evidence>, StoreError> {
        Ok(read!(self.readers, |connection| entry::evidence(connection, serial))?)
    }

    async fn reached_limits(&self, limits: &[Limit]) -> Result<Vec<Option<Timestamp>>, StoreError> {
        Ok(read!(self.readers, |connection| limit::newest(connection, limits))?)
    }

    async fn certificates(&self, query: &CertificateQuery) -> Result<Paged<JournalEntry>, StoreError> {
        Ok(read!(self.readers, |connection| certificates::page(connection, query))?)
    }

    async fn revoke(&self, revocations: Vec<NewRevocation>) -> Result<Vec<RevokeOutcome>, StoreError> {
        self.change(revocation::Revoke(revocations)).await
    }

    async fn crl_shards(&self, issuer: Option<&str>) -> Result<Vec<CrlShardRow>, StoreError> {
        Ok(read!(self.readers, |connection| crl::shards(connection, issuer))?)
    }

    async fn ledger(&self, serials: &[Serial]) -> Result<Vec<LedgerEntry>, StoreError> {
        Ok(read!(self.readers, |connection| entry::ledger(connection, serials))?)
    }

    async fn revoked_after(&self, after: &RevokedAfter) -> Result<Vec<Revoked>, StoreError> {
        Ok(read!(self.readers, |connection| revocation::after(connection, after))?)
    }

    async fn begin_crl(&self, begin: BeginCrl) -> Result<CrlDraft, StoreError> {
        self.change(begin).await
    }

    async fn crl_entries(&self, entries: &CrlEntries) -> Result<CrlPiece, StoreError> {
        Ok(read!(self.readers, |connection| crl::entries(connection, entries))?)
    }

    async fn crl_edits(&self, since: &CrlSince) -> Result<Option<CrlEdits>, StoreError> {
        Ok(read!(self.readers, |connection| crl::edits(connection, since))?)
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
        Ok(read!(self.readers, |connection| incident::by_id(connection, id))?)
    }

    async fn incidents(&self, current: bool, page: &Page) -> Result<Paged<Sealed<IncidentRow>>, StoreError> {
        Ok(read!(self.readers, |connection| incident::list(connection, current, page))?)
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
        Ok(read!(self.readers, |connection| incident::members(connection, incident, left, page))?)
    }

    async fn follow_members(&self, follow: FollowMembers) -> Result<Vec<IncidentMember>, StoreError> {
        let looked = read!(self.readers, |connection| incident::look(connection, &follow))?;
        // Whoever has nothing to write does not wait for the writer.
        if let Some(note) = incident::Note::of(&follow.incident, &looked) {
            self.change(note).await?;
        }
        Ok(looked.into_iter().map(|looked| looked.member).collect())
    }

    async fn member_counts(&self, incident: &str) -> Result<Vec<MemberCount>, StoreError> {
        Ok(read!(self.readers, |connection| incident::counts(connection, incident))?)
    }

    async fn account_members(
        &self,
        incident: &str,
        page: &Page,
    ) -> Result<Paged<AccountMembers>, StoreError> {
        Ok(read!(self.readers, |connection| incident::accounts(connection, incident, page))?)
    }

    async fn incidents_of(
        &self,
        serial: &Serial,
    ) -> Result<Vec<(Sealed<IncidentRow>, IncidentMember)>, StoreError> {
        Ok(read!(self.readers, |connection| incident::of(connection, serial))?)
    }

    async fn append_audit(
        &self,
        events: Vec<AuditEvent>,
        refusals: Vec<RefusalCount>,
    ) -> Result<(), StoreError> {
        self.change(audit::Append { events, refusals }).await
    }

    async fn audit(&self, incarnation: u64, after: u64, limit: u32) -> Result<Vec<AuditRecord>, StoreError> {
        Ok(read!(self.readers, |connection| audit::page(connection, incarnation, after, limit))?)
    }

    async fn audit_heads(&self) -> Result<Vec<AuditHead>, StoreError> {
        Ok(read!(self.readers, |connection| audit::heads(connection))?)
    }

    async fn refusals(&self, since: Timestamp) -> Result<Vec<RefusalCount>, StoreError> {
        Ok(read!(self.readers, |connection| audit::refusals(connection, since))?)
    }

    async fn watch(&self) -> Result<Box<dyn Changes>, StoreError> {
        Ok(Box::new(changes::Listener::open(&self.listening, self.number).await?))
    }

    async fn close(&self) {
        self.writer.close().await;
        self.readers.close().await;
    }
}
