//! Who may have what: validators, registrations with their EAB keys, grants.

use acme::receipt::ReceiptKey;
use ca_store::{
    AuthorityChange, AuthorityChanges, AuthorityRow, CaStore as _, EabKeyRow, EabState, GrantRow, NameScope,
    NodeRow, NodeState, PutOutcome, RegistrationRow, State,
};

use super::{MANAGED, World};

impl World {
    pub(crate) async fn put(&self, row: AuthorityRow, expected: Option<u64>) {
        let changes =
            AuthorityChanges { changes: vec![AuthorityChange { row, expected }], audit: Vec::new() };
        assert_eq!(self.store.put_authority(changes).await.unwrap(), PutOutcome::Applied);
    }

    pub(super) async fn admit_validator(&self, validator: &ReceiptKey) {
        let row = NodeRow {
            role: "validator".to_owned(),
            name: validator.perspective().to_string(),
            settings: String::new(),
            receipt_key: Some(validator.public_key().to_vec()),
            server_names: Vec::new(),
            state: NodeState::Active,
            created_at: self.now(),
            version: 1,
        };
        self.put(AuthorityRow::Node(self.secrets.rows.seal(row)), None).await;
    }

    /// A registration with an EAB key; answers the key's id and the key.
    pub(crate) async fn registration(&self, id: &str, uses: Option<u32>) -> (String, Vec<u8>) {
        let row = RegistrationRow {
            id: id.to_owned(),
            directory: MANAGED.to_owned(),
            title: id.to_owned(),
            settings: String::new(),
            state: State::Active,
            created_at: self.now(),
            version: 1,
        };
        self.put(AuthorityRow::Registration(self.secrets.rows.seal(row)), None).await;
        let epoch = self.store.info().await.unwrap().epoch.number;
        let seed = id.bytes().fold(0_u8, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte));
        let kid = self.secrets.new_eab_key_id(epoch, [seed; 16]);
        let row = EabKeyRow {
            kid: kid.to_string(),
            registration: id.to_owned(),
            secret_version: 1,
            epoch,
            max_uses: uses,
            uses: 0,
            state: EabState::Active,
            expires_at: None,
            created_at: self.now(),
            version: 1,
        };
        self.put(AuthorityRow::EabKey(self.secrets.rows.seal(row)), None).await;
        (kid.to_string(), self.secrets.eab_key(&kid).unwrap().to_vec())
    }

    pub(crate) fn grant_row(&self, id: &str, registration: &str, scope: NameScope, name: &str) -> GrantRow {
        GrantRow {
            id: id.to_owned(),
            registration: registration.to_owned(),
            scope,
            name: name.to_owned(),
            state: State::Active,
            expires_at: None,
            created_at: self.now(),
            version: 1,
        }
    }

    pub(crate) async fn grant(&self, id: &str, registration: &str, scope: NameScope, name: &str) {
        let row = self.grant_row(id, registration, scope, name);
        self.put(AuthorityRow::Grant(self.secrets.rows.seal(row)), None).await;
    }
}
