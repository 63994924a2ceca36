//! newOrder (RFC 8555 §7.4; DESIGN §3 step 1): what an order asks for, and the ids that it gets.

use std::sync::Arc;
use std::time::Duration;

use acme::jws::{Remembered, Verified};
use acme::order::{NewOrder, NewOrderError};
use acme::problem::{ErrorType, Problem, Subproblem};
use acme::renewal::CertificateId;
use acme::resource::Resource;
use acme::{AccountId, AuthorizationId, DirectoryName, Jwk, OrderId};
use ca_store::Citation;
use moka::sync::Cache;
use pki::{Name, NameSet, Profile, Timestamp, ValidityError};

use crate::ca::Ca;
use crate::refusal::{Outcome, Reason, Refusal};
use crate::registrant::Registrant;
use crate::request::{AccountSlot, ClientRequest};

/// How long a verified newOrder is remembered. Most orders are finalized within seconds.
const VERIFIED_FOR: Duration = Duration::from_secs(600);

/// What an order asks for, after everything that can be said of it without looking at the outside world. Read at
/// newOrder, and read again, from the same JWS and by the policy of the day, when the certificate is to be issued.
#[derive(Debug)]
pub(crate) struct Terms {
    /// The names.
    pub(crate) names: NameSet,
    /// The profile, which the directory offers.
    pub(crate) profile: Arc<Profile>,
    /// To be honoured exactly, or refused (RFC 8555 §7.4).
    pub(crate) not_before: Option<Timestamp>,
    /// As `not_before`.
    pub(crate) not_after: Option<Timestamp>,
    /// The permits that allow the names.
    pub(crate) permits: Vec<Citation>,
    /// The certificate that it replaces, where the directory takes that: [`Ca::check_replaced`] judges it. Such an order is a
    /// renewal, from which limits by account, domain and names are to keep off.
    pub(crate) replaces: Option<CertificateId>,
}

/// The signer's answer to newOrder.
#[derive(Debug)]
pub struct AuthorizedOrder {
    /// The order's id.
    pub id: OrderId,
    /// Whose it is.
    pub account: AccountId,
    /// Where.
    pub directory: DirectoryName,
    /// The profile's name.
    pub profile: String,
    /// The certificate that it replaces.
    pub replaces: Option<CertificateId>,
    /// Until when it can be finalized.
    pub expires: Timestamp,
    /// Its names.
    pub names: Vec<AuthorizedName>,
}

/// A name of an order.
#[derive(Debug)]
pub struct AuthorizedName {
    /// The name.
    pub name: Name,
    /// The grant that replaces its challenge.
    pub grant: Option<String>,
    /// The authorization's id.
    pub authorization: AuthorizationId,
    /// Until when it can be validated.
    pub expires: Timestamp,
}

/// newOrder JWSs whose signature this process has verified: finalize brings them again a moment later.
#[derive(Debug)]
pub(crate) struct VerifiedOrders(Cache<[u8; 32], Remembered>);

impl VerifiedOrders {
    pub(crate) fn new(capacity: u64) -> Self {
        Self(Cache::builder().max_capacity(capacity).time_to_live(VERIFIED_FOR).build())
    }

    /// Verifies newOrder with this key, unless that was done before.
    pub(crate) fn verify<'a>(
        &self,
        request: &'a ClientRequest,
        key: &'a Jwk,
    ) -> Result<Verified<'a>, Refusal> {
        match self.0.get(&request.jws().digest()) {
            Some(remembered) => request.verify_again(key, &remembered),
            None => request.verify(key),
        }
    }
}

impl Ca {
    /// Says what an order may have, and makes its ids. Nothing is stored.
    ///
    /// # Errors
    /// A refusal, or what keeps it from being decided.
    pub async fn authorize_order(&self, new_order_jws: &[u8]) -> Outcome<AuthorizedOrder> {
        let request = ClientRequest::read(&self.registry, new_order_jws)?;
        if *request.resource() != Resource::NewOrder {
            return Err(request.wrong_operation().into());
        }
        let found = AccountSlot::default();
        let (account, verified) = self.authenticate(&request, &found).await?;
        let now = self.now()?;
        let registrant = self.registrant(&request, account, now).await?;
        let terms = read_terms(&request, &verified, registrant.as_ref())?;
        self.check_validity(&request, &terms, now)?;
        self.check_replaced(&request, account, &terms, true).await?;
        let directory = request.directory();
        let digest = request.jws().digest();
        self.verified.0.insert(digest, verified.remember());
        let ids = &self.secrets.ids;
        let authorization_expires = now.plus(directory.policy.authorization_lifetime);
        let mut names = Vec::with_capacity(terms.names.len());
        for name in &terms.names {
            let grant = registrant.as_ref().and_then(|registrant| registrant.grant(name));
            let random = self.random.bytes()?;
            names.push(AuthorizedName {
                name: name.clone(),
                grant: grant.map(|(id, _)| id.to_owned()),
                authorization: ids.mint_authorization(
                    directory.name(),
                    &account.id,
                    name,
                    &digest,
                    now,
                    random,
                ),
                expires: authorization_expires,
            });
        }
        Ok(AuthorizedOrder {
            id: ids.mint_order(directory.name(), &account.id, &digest, now, self.random.bytes()?),
            account: account.id,
            directory: directory.name().clone(),
            profile: terms.profile.name().to_owned(),
            replaces: terms.replaces,
            expires: now.plus(directory.policy.order_lifetime),
            names,
        })
    }

    /// RFC 8555 §7.4: requested times are honoured or refused, and refused as early as possible.
    fn check_validity(&self, request: &ClientRequest, terms: &Terms, now: Timestamp) -> Result<(), Refusal> {
        // Which issuer it will be is decided later; when no token answers now, so is this.
        let Some((entry, _)) = request.directory().pool().choose(&self.doors) else { return Ok(()) };
        match terms.profile.validity_at(now, &entry.issuer, terms.not_before, terms.not_after) {
            Err(ValidityError::Requested) => {
                Err(request.refuse(Reason::ValidityRequested, ValidityError::Requested.to_string()))
            }
            // The operator's to mend, and said when it is to be issued.
            Err(ValidityError::Issuer) | Ok(_) => Ok(()),
        }
    }
}

/// Reads a newOrder and judges it by the policy of its directory.
pub(crate) fn read_terms(
    request: &ClientRequest,
    verified: &Verified<'_>,
    registrant: Option<&Registrant>,
) -> Result<Terms, Refusal> {
    let directory = request.directory();
    let maximum = usize::try_from(directory.policy.maximum_names).unwrap_or(usize::MAX);
    let order =
        NewOrder::from_verified(verified, maximum).map_err(|error| new_order_refusal(request, &error))?;
    let profile = directory
        .profile(order.profile.as_deref())
        .cloned()
        .ok_or_else(|| request.refuse(Reason::ProfileUnknown, "this directory does not offer the profile"))?;
    if order.names.len() > profile.max_names() {
        let detail = format!("the profile allows {} names", profile.max_names());
        return Err(request.refuse(Reason::NameCount, detail));
    }
    let permits = check_names(request, &order.names, &profile, registrant)?;
    Ok(Terms {
        names: order.names,
        profile,
        not_before: order.not_before,
        not_after: order.not_after,
        permits,
        replaces: order.replaces.filter(|_| directory.policy.renewal.offered),
    })
}

/// Every name by profile, directory and permits. All that are refused are named at once (RFC 8555 §6.7.1).
fn check_names(
    request: &ClientRequest,
    names: &NameSet,
    profile: &Profile,
    registrant: Option<&Registrant>,
) -> Result<Vec<Citation>, Refusal> {
    let mut refused = Vec::new();
    let mut permits = Vec::new();
    for name in names {
        let permit = profile
            .check_name(name)
            .map_err(|refusal| refusal.to_string())
            .and_then(|()| {
                request.directory().policy.names.check(name).map_err(|refusal| refusal.to_string())
            })
            .and_then(|()| match registrant {
                Some(registrant) => registrant.permit(name).map_err(|refusal| refusal.to_string()),
                None => Ok(None),
            });
        match permit {
            Ok(Some(citation)) if !permits.contains(citation) => permits.push(citation.clone()),
            Ok(_) => {}
            Err(detail) => {
                let identifier = acme::identifier::Identifier::in_order(name);
                refused.push(Subproblem::new(Reason::NameRejected.error_type(), detail, identifier));
            }
        }
    }
    match Problem::from_subproblems(refused) {
        None => Ok(permits),
        Some(problem) => Err(Refusal::with_problem(Reason::NameRejected, problem)
            .directory(request.directory().name().as_str())),
    }
}

fn new_order_refusal(request: &ClientRequest, error: &NewOrderError) -> Refusal {
    let reason = match error {
        NewOrderError::Jws(_) => Reason::PayloadMalformed,
        NewOrderError::NoIdentifiers | NewOrderError::TooManyIdentifiers { .. } => Reason::NameCount,
        NewOrderError::Identifiers(problem) if problem.kind == ErrorType::UnsupportedIdentifier => {
            Reason::IdentifierUnsupported
        }
        NewOrderError::Identifiers(_) => Reason::NameRejected,
        NewOrderError::Time(_) | NewOrderError::Period => Reason::ValidityRequested,
        NewOrderError::Replaces | NewOrderError::AutoRenewal => Reason::ExtensionRequested,
    };
    Refusal::with_problem(reason, error.problem()).directory(request.directory().name().as_str())
}
