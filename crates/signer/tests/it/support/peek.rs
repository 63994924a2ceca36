//! What the tests read of the database, unverified.

use ca_store::{CaStore as _, EabKeyRow, NodeRow};
use testkit::store::FaultyStore;

/// What the tests read of the database, unverified.
#[async_trait::async_trait]
pub(crate) trait Peek {
    async fn nodes_unverified(&self) -> Vec<NodeRow>;
    async fn authority_of(&self, registration: &str) -> ca_store::Authority;
    async fn eab_key_of(&self, kid: &str) -> EabKeyRow;
    async fn evidence_of(&self, serial: &pki::Serial) -> ca_store::Evidence;
    async fn entry_of_order(&self, order: &str) -> ca_store::JournalEntry;
    async fn record_of(&self, account: &str) -> ca_store::AccountRecord;
    async fn account_count(&self, directory: &str) -> usize;
}

#[async_trait::async_trait]
impl Peek for FaultyStore {
    async fn nodes_unverified(&self) -> Vec<NodeRow> {
        self.nodes().await.unwrap().iter().map(|row| row.unverified().clone()).collect()
    }

    async fn authority_of(&self, registration: &str) -> ca_store::Authority {
        let selector = ca_store::AuthoritySelector::Registration(registration.to_owned());
        self.authority(&selector).await.unwrap().unwrap()
    }

    async fn eab_key_of(&self, kid: &str) -> EabKeyRow {
        let selector = ca_store::AuthoritySelector::EabKey(kid.to_owned());
        let authority = self.authority(&selector).await.unwrap().unwrap();
        let key = authority.eab_keys.iter().find(|row| row.unverified().kid == kid).unwrap();
        key.unverified().clone()
    }

    async fn evidence_of(&self, serial: &pki::Serial) -> ca_store::Evidence {
        self.evidence(serial).await.unwrap().unwrap()
    }

    async fn entry_of_order(&self, order: &str) -> ca_store::JournalEntry {
        self.journal(&ca_store::JournalKey::Order(order.to_owned())).await.unwrap().remove(0)
    }

    async fn record_of(&self, account: &str) -> ca_store::AccountRecord {
        self.account(&ca_store::AccountSelector::Id(account.to_owned())).await.unwrap().unwrap()
    }

    async fn account_count(&self, directory: &str) -> usize {
        let filter = ca_store::AccountFilter::Directory(directory.to_owned());
        self.accounts(&filter, &ca_store::Page::first(100)).await.unwrap().items.len()
    }
}
