//! An authorization given up by its client (RFC 8555 §7.5.2): recorded where every signer looks before it commits.

use acme::authorization::Update;
use acme::resource::Resource;
use ca_store::{AuthorityChange, AuthorityChanges, AuthorityRow, DeactivationRow};
use pki::{Period, Timestamp};

use super::NameEvidence;
use crate::audit::Event;
use crate::ca::Ca;
use crate::policy::DirectoryPolicy;
use crate::refusal::{Outcome, Reason, Refusal};
use crate::request::{AccountSlot, ClientRequest};

impl Ca {
    /// Gives an authorization up (RFC 8555 §7.5.2): whatever receipts a front shows, from now on they are for nothing.
    /// Repeating it changes nothing.
    ///
    /// # Errors
    /// A refusal, or what keeps it from being done.
    pub async fn deactivate_authorization(
        &self,
        authorization_jws: &[u8],
        authorization: &NameEvidence,
    ) -> Outcome<()> {
        let request = ClientRequest::read(&self.registry, authorization_jws)?;
        let Resource::Authorization(id) = *request.resource() else {
            return Err(request.wrong_operation().into());
        };
        if authorization.authorization != id {
            let detail = "the authorization is another one than the URL says";
            return Err(request.refuse(Reason::AuthorizationForeign, detail).into());
        }
        let found = AccountSlot::default();
        let (account, verified) = self.authenticate_now(&request, &found).await?;
        let directory = request.directory().name();
        match Update::from_verified(&verified) {
            Ok(Update::Deactivate) => {}
            Ok(Update::Nothing) => {
                let detail = "an authorization can only be deactivated";
                return Err(request.refuse(Reason::PayloadMalformed, detail).into());
            }
            Err(error) => return Err(Refusal::from(error).directory(directory.as_str()).into()),
        }
        // Ids that no signer has made would fill the table for ever.
        let minted = self.check_authorization_id(&request, account, authorization)?;
        let now = self.now()?;
        if now > last_use(&request.directory().policy, minted) {
            return Ok(());
        }
        let row = DeactivationRow {
            authorization: id.to_string(),
            account: account.row.id.clone(),
            request: request.jws().to_json().into_bytes(),
            at: now,
        };
        let event = Event::AuthorizationDeactivated {
            authorization: &row.authorization,
            account: &row.account,
            name: authorization.authorized().to_string(),
        };
        let audit = vec![event.at(now)];
        let row = AuthorityRow::Deactivation(self.secrets.rows.seal(row));
        self.put(AuthorityChanges { changes: vec![AuthorityChange { row, expected: None }], audit }).await
    }
}

/// When the last receipt for an authorization that was made then has lost its worth: nothing has to be remembered of it.
fn last_use(policy: &DirectoryPolicy, minted: Timestamp) -> Timestamp {
    // Twice, so that a clock that is off by a little, or a policy that was shortened, costs nothing.
    let lives = policy.authorization_lifetime.seconds().saturating_mul(2);
    let counts = policy.order_lifetime.max(policy.validation_reuse).seconds().saturating_mul(2);
    minted.plus(Period::from_seconds(lives.saturating_add(counts)))
}
