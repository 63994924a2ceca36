//! newOrder (RFC 8555 §7.4; DESIGN §3 step 1): what an order asks for, and the ids that it gets.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use acme::id::Scope;
use acme::jws::{Remembered, Verified};
use acme::limit::Limits;
use acme::order::{NewOrder, NewOrderError};
use acme::problem::{ErrorType, Problem, Subproblem};
use acme::renewal::CertificateId;
use acme::resource::Resource;
use acme::{AccountId, AuthorizationId, DirectoryName, Jwk, OrderId};
use ca_store::Citation;
use moka::sync::Cache;
use pki::{DnsName, Name, NameSet, Profile, Timestamp, ValidityError};

use crate::account::Account;
use crate::ca::Ca;
use crate::limits::{Counted, limits_of, rate_limited};
use crate::refusal::{Outcome, Reason, Refusal};
use crate::registrant::Registrant;
use crate::registry::Directory;
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
    /// The domains above names that the client named for them (RFC 9444); none where that is not offered.
    pub(crate) ancestors: BTreeMap<Name, DnsName>,
    /// The certificate that it replaces, where the directory takes that: [`Ca::check_replaced`] judges it.
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
    /// The limits that hold for the account.
    pub limits: Limits,
    /// Whether the order is exempt from those of certificates and orders: it renews a certificate at its time (RFC 9773 §5).
    pub limits_exempt: bool,
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
    /// The domain that the authorization is for, where that is one above the name (RFC 9444).
    pub ancestor: Option<DnsName>,
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
        check_agreement(&request, account)?;
        let now = self.now()?;
        let registrant = self.registrant(&request, account, now).await?;
        let terms = read_terms(&request, &verified, registrant.as_ref())?;
        self.check_validity(&request, &terms, now)?;
        let exempt = self.check_replaced(&request, account, &terms, true, now).await?;
        let directory = request.directory();
        let limits = limits_of(&request, registrant.as_ref());
        if !exempt {
            let registration = account.row.registration.as_deref();
            let counted = Counted::of(&limits, &account.row.id, registration, &terms.names);
            if let Some(reached) = self.reached_limit(directory.name(), &counted, now).await? {
                return Err(rate_limited(&request, &reached, now).into());
            }
        }
        let digest = request.jws().digest();
        self.verified.0.insert(digest, verified.remember());
        let ids = &self.secrets.ids;
        let names =
            self.authorize_names(&account.id, directory, &terms, registrant.as_ref(), (&digest, now))?;
        Ok(AuthorizedOrder {
            id: ids.mint_order(directory.name(), &account.id, &digest, now, self.random.bytes()?),
            account: account.id,
            directory: directory.name().clone(),
            profile: terms.profile.name().to_owned(),
            replaces: terms.replaces,
            expires: now.plus(directory.policy.order_lifetime),
            names,
            limits,
            limits_exempt: exempt,
        })
    }

    /// An authorization for each name, or for the domain above that the client named: one for all names below it.
    fn authorize_names(
        &self,
        account: &AccountId,
        directory: &Directory,
        terms: &Terms,
        registrant: Option<&Registrant>,
        (digest, now): (&[u8; 32], Timestamp),
    ) -> Outcome<Vec<AuthorizedName>> {
        let expires = now.plus(directory.policy.authorization_lifetime);
        let grant =
            |name| registrant.and_then(|registrant| registrant.grant(name)).map(|(id, _)| id.to_owned());
        let above = |name| terms.ancestors.get(name).filter(|_| grant(name).is_none());
        let domains: BTreeSet<&DnsName> = terms.names.iter().filter_map(above).collect();
        let mut minted = BTreeMap::new();
        let mut names = Vec::with_capacity(terms.names.len());
        for name in &terms.names {
            let ancestor = above(name).cloned();
            let subject = ancestor.clone().map_or_else(|| name.clone(), Name::Dns);
            let authorization = match minted.get(&subject) {
                Some(known) => *known,
                None => {
                    let subdomains = matches!(&subject, Name::Dns(domain) if domains.contains(domain));
                    let scope = Scope { pre_authorization: false, subdomains };
                    let subject_of = (directory.name(), account, &subject, digest);
                    let id = self.secrets.ids.mint_scoped(scope, subject_of, now, self.random.bytes()?);
                    minted.insert(subject, id);
                    id
                }
            };
            names.push(AuthorizedName {
                name: name.clone(),
                grant: grant(name),
                authorization,
                expires,
                ancestor,
            });
        }
        Ok(names)
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
    let profile = choose_profile(request, order.profile.as_deref(), registrant)?;
    if order.names.len() > profile.max_names() {
        let detail = format!("the profile allows {} names", profile.max_names());
        return Err(request.refuse(Reason::NameCount, detail));
    }
    let permits = check_names(request, &order.names, &profile, registrant)?;
    let ancestors = if directory.policy.subdomain_auth { order.ancestors } else { BTreeMap::new() };
    check_ancestors(request, &ancestors, &profile)?;
    Ok(Terms {
        ancestors,
        names: order.names,
        profile,
        not_before: order.not_before,
        not_after: order.not_after,
        permits,
        replaces: order.replaces.filter(|_| directory.policy.renewal.offered),
    })
}

/// The profile that an order has: the named one, or the first that the account may use.
fn choose_profile(
    request: &ClientRequest,
    named: Option<&str>,
    registrant: Option<&Registrant>,
) -> Result<Arc<Profile>, Refusal> {
    let directory = request.directory();
    let may_use = |profile: &&Arc<Profile>| registrant.is_none_or(|it| it.may_use(profile.name()));
    if let Some(name) = named
        && directory.profile(Some(name)).is_none()
    {
        let offered = directory.profile_names().join(", ");
        let detail = format!("this directory does not offer profile {name:?}, but: {offered}");
        return Err(request.refuse(Reason::ProfileUnknown, detail));
    }
    let mut usable = directory.profiles().iter().filter(may_use);
    match usable.clone().find(|profile| named.is_none_or(|name| name == profile.name())) {
        Some(profile) => Ok(Arc::clone(profile)),
        None => {
            let usable: Vec<_> = usable.by_ref().map(|profile| profile.name()).collect();
            let detail = match (named, usable.is_empty()) {
                (Some(name), false) => {
                    format!(
                        "the account's registration may not use profile {name:?}, but: {}",
                        usable.join(", ")
                    )
                }
                _ => "the account's registration may use none of this directory's profiles".to_owned(),
            };
            Err(request.refuse(Reason::ProfileForbidden, detail))
        }
    }
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
        match check_name(request, name, profile, registrant) {
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

/// Whether a domain is a public suffix or above some: nobody has authority over all that is below (BR 3.2.2.4).
pub(crate) fn is_nobodys(domain: &DnsName) -> bool {
    domain.is_public_suffix() || domain.is_above_public_suffixes()
}

/// The domains above names whose authorization a client asks for (RFC 9444): held to the rules for names, and somebody's own.
/// Over a public suffix nobody has authority (BR 3.2.2.4).
fn check_ancestors(
    request: &ClientRequest,
    ancestors: &BTreeMap<Name, DnsName>,
    profile: &Profile,
) -> Result<(), Refusal> {
    let refused = ancestors.iter().filter_map(|(name, above)| {
        let detail = if is_nobodys(above) {
            format!("ancestorDomain {above} is a public suffix, or above some")
        } else {
            let refusal = check_name(request, &Name::Dns(above.clone()), profile, None).err()?;
            format!("ancestorDomain {above}: {refusal}")
        };
        let identifier = acme::identifier::Identifier::in_order(name);
        Some(Subproblem::new(Reason::NameRejected.error_type(), detail, identifier))
    });
    match Problem::from_subproblems(refused.collect()) {
        None => Ok(()),
        Some(problem) => Err(Refusal::with_problem(Reason::NameRejected, problem)
            .directory(request.directory().name().as_str())),
    }
}

/// One name; the permit that allows it, where permits are needed.
pub(crate) fn check_name<'a>(
    request: &ClientRequest,
    name: &Name,
    profile: &Profile,
    registrant: Option<&'a Registrant>,
) -> Result<Option<&'a Citation>, String> {
    profile.check_name(name).map_err(|refusal| refusal.to_string())?;
    request.directory().policy.names.check(name).map_err(|refusal| refusal.to_string())?;
    match registrant {
        Some(registrant) => registrant.permit(name).map_err(|refusal| refusal.to_string()),
        None => Ok(None),
    }
}

/// RFC 8555 §7.3.3: who has not agreed to the terms of today is asked to, where the directory wants that.
pub(crate) fn check_agreement(request: &ClientRequest, account: &Account) -> Result<(), Refusal> {
    let policy = &request.directory().policy;
    match &policy.terms_of_service {
        Some(terms) if !account.agrees_to(policy) => {
            let detail =
                "the terms of service have changed; they must be agreed to by an update of the account";
            let problem =
                Problem::new(Reason::TermsChanged.error_type(), detail).with_instance(terms.as_str());
            Err(Refusal::with_problem(Reason::TermsChanged, problem).directory(policy.name.as_str()))
        }
        _ => Ok(()),
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
        NewOrderError::Replaces | NewOrderError::NotOffered(_) => Reason::ExtensionRequested,
    };
    Refusal::with_problem(reason, error.problem()).directory(request.directory().name().as_str())
}
