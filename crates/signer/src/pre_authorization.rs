//! newAuthz (RFC 8555 §7.4.1): an authorization without an order.

use std::sync::Arc;

use acme::authorization::{NewAuthorization, NewAuthorizationError};
use acme::id::Scope;
use acme::identifier::IdentifierError;
use acme::limit::Limits;
use acme::resource::Resource;
use acme::{AccountId, DirectoryName};
use pki::{Name, Profile};

use crate::ca::Ca;
use crate::limits::limits_of;
use crate::order::{AuthorizedName, check_agreement, check_name, is_nobodys};
use crate::refusal::{Outcome, Reason, Refusal};
use crate::request::{AccountSlot, ClientRequest};

/// The signer's answer to newAuthz.
#[derive(Debug)]
pub struct AuthorizedIdentifier {
    /// Whose it is.
    pub account: AccountId,
    /// Where.
    pub directory: DirectoryName,
    /// The name with its authorization.
    pub name: AuthorizedName,
    /// The limits that hold for the account.
    pub limits: Limits,
}

impl Ca {
    /// Says whether a name may be authorized without an order, and makes the authorization's id (RFC 8555 §7.4.1). Nothing
    /// is stored.
    ///
    /// # Errors
    /// A refusal, or what keeps it from being decided.
    pub async fn authorize_identifier(&self, new_authorization_jws: &[u8]) -> Outcome<AuthorizedIdentifier> {
        let request = ClientRequest::read(&self.registry, new_authorization_jws)?;
        if *request.resource() != Resource::NewAuthorization {
            return Err(request.wrong_operation().into());
        }
        let found = AccountSlot::default();
        let (account, verified) = self.authenticate(&request, &found).await?;
        let directory = request.directory();
        if !directory.policy.pre_authorization {
            let detail = "this directory has no pre-authorization";
            return Err(request.refuse(Reason::ExtensionRequested, detail).into());
        }
        check_agreement(&request, account)?;
        let now = self.now()?;
        let registrant = self.registrant(&request, account, now).await?;
        let wanted = NewAuthorization::from_verified(&verified)
            .map_err(|error| new_authorization_refusal(&request, &error))?;
        let permitted =
            |profile: &Arc<Profile>| check_name(&request, &wanted.name, profile, registrant.as_ref());
        let usable: Vec<_> = directory
            .profiles()
            .iter()
            .filter(|profile| registrant.as_ref().is_none_or(|it| it.may_use(profile.name())))
            .collect();
        if usable.is_empty() {
            let detail = "the account's registration may use none of this directory's profiles";
            return Err(request.refuse(Reason::ProfileForbidden, detail).into());
        }
        let mut refusals = usable.into_iter().map(permitted);
        // For one profile at least; which it will be, the order says.
        if let Some(Err(detail)) = refusals.next()
            && refusals.all(|refusal| refusal.is_err())
        {
            return Err(request.refuse(Reason::NameRejected, detail).into());
        }
        if let (true, Name::Dns(domain)) = (wanted.subdomains, &wanted.name)
            && is_nobodys(domain)
        {
            let detail = format!("subdomainAuthAllowed: {domain} is a public suffix, or above some");
            return Err(request.refuse(Reason::NameRejected, detail).into());
        }
        let scope = Scope {
            pre_authorization: true,
            subdomains: wanted.subdomains && directory.policy.subdomain_auth,
        };
        let subject = (directory.name(), &account.id, &wanted.name, &request.jws().digest());
        let authorization = self.secrets.ids.mint_scoped(scope, subject, now, self.random.bytes()?);
        let grant = registrant.as_ref().and_then(|registrant| registrant.grant(&wanted.name));
        let name = AuthorizedName {
            grant: grant.map(|(id, _)| id.to_owned()),
            authorization,
            expires: now.plus(directory.policy.authorization_lifetime),
            ancestor: None,
            name: wanted.name,
        };
        let limits = limits_of(&request, registrant.as_ref());
        Ok(AuthorizedIdentifier { account: account.id, directory: directory.name().clone(), name, limits })
    }
}

fn new_authorization_refusal(request: &ClientRequest, error: &NewAuthorizationError) -> Refusal {
    let reason = match error {
        NewAuthorizationError::Jws(_) => Reason::PayloadMalformed,
        NewAuthorizationError::Identifier(IdentifierError::Type) => Reason::IdentifierUnsupported,
        NewAuthorizationError::Identifier(_) | NewAuthorizationError::Wildcard => Reason::NameRejected,
    };
    Refusal::with_problem(reason, error.problem()).directory(request.directory().name().as_str())
}
