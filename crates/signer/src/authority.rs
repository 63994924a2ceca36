//! Authority (DESIGN §3 step 5): whether this account may have this certificate now.
//!
//! A front is believed in nothing. Everything here was signed by the client with its account's key, signed by a
//! validator with its registered key, or made by a signer under the tier secret's MAC.

use std::collections::BTreeMap;
use std::sync::Arc;

use acme::jws::Verified;
use acme::order::Finalize;
use acme::resource::Resource;
use acme::{AccountId, OrderId};
use bytes::Bytes;
use ca_store::Citation;
use pki::{DnsName, Name, NameSet, Period, Timestamp};
use serde_json::{Value, json};

pub use rpc::Evidence as NameEvidence;

use crate::account::Account;
use crate::ca::Ca;
use crate::limits::{Counted, domains, limits_of};
use crate::order::{Terms, check_agreement, is_nobodys, read_terms};
use crate::refusal::{Outcome, Reason, Refusal};
use crate::registrant::Registrant;
use crate::registry::Registry;
use crate::request::{AccountSlot, ClientRequest};

mod deactivation;
mod receipts;

use receipts::Witnesses;

/// What a front asks for: the client's own words, and why it should be believed.
#[derive(Debug, Clone)]
pub struct IssueOrder {
    /// The newOrder JWS as it came.
    pub new_order_jws: Bytes,
    /// The finalize JWS as it came.
    pub finalize_jws: Bytes,
    /// For each name, why the account may have it.
    pub authorizations: Vec<NameEvidence>,
    /// The profile that the order shows; empty where that is not said.
    pub profile: String,
}

/// Both JWSs, read and located, their signatures not yet verified.
#[derive(Debug)]
pub(crate) struct Finalization {
    pub(crate) new_order: ClientRequest,
    pub(crate) finalize: ClientRequest,
    pub(crate) order: OrderId,
    pub(crate) account: AccountId,
    source: IssueOrder,
}

impl Finalization {
    /// Reads the JWSs: each for its operation, both of one account in one directory.
    ///
    /// # Errors
    /// A refusal.
    pub(crate) fn read(registry: &Registry, source: IssueOrder) -> Result<Self, Refusal> {
        let finalize = ClientRequest::read(registry, &source.finalize_jws)?;
        let new_order = ClientRequest::read(registry, &source.new_order_jws)?;
        let Resource::Finalize(order) = *finalize.resource() else {
            return Err(finalize.wrong_operation());
        };
        if *new_order.resource() != Resource::NewOrder {
            return Err(new_order.wrong_operation());
        }
        let account = finalize.account_id(registry)?;
        let same_directory = new_order.directory().name() == finalize.directory().name();
        if !same_directory || new_order.account_id(registry)? != account {
            let detail = "newOrder and finalize are of different accounts or directories";
            return Err(finalize.refuse(Reason::OrderForeign, detail));
        }
        Ok(Self { new_order, finalize, order, account, source })
    }

    /// The newOrder JWS as it came.
    pub(crate) const fn new_order_jws(&self) -> &Bytes {
        &self.source.new_order_jws
    }

    /// The finalize JWS as it came.
    pub(crate) const fn finalize_jws(&self) -> &Bytes {
        &self.source.finalize_jws
    }
}

/// A request whose authority is proven, as of now: the intent's transaction re-checks the rows that it cites.
#[derive(Debug)]
pub(crate) struct Authorized {
    pub(crate) account: Arc<Account>,
    pub(crate) terms: Terms,
    /// The CSR, DER, as yet unjudged.
    pub(crate) csr: Vec<u8>,
    /// Rows that must be unchanged.
    pub(crate) cites: Vec<Citation>,
    /// Authorizations that must not be deactivated.
    pub(crate) authorizations: Vec<String>,
    /// What is kept of it: receipts and grants, a JSON list.
    pub(crate) record: Vec<u8>,
    /// For the audit row: `{"name": "3/3"}`; none when every name is granted.
    pub(crate) quorum: Option<Value>,
    /// The limits that it counts in; none, and it counts in none, where it renews a certificate at its time (RFC 9773 §5).
    pub(crate) counted: Option<Vec<Counted>>,
    /// The domains that it counts in.
    pub(crate) domains: Vec<String>,
    /// Whether somebody who counts looked at nothing: it may be issued under a test CA alone.
    pub(crate) assumed: bool,
    /// The time of this decision.
    pub(crate) at: Timestamp,
}

impl Ca {
    /// Step 5. In the order in which the checks depend on each other: the account, the ids, the signatures, the terms of
    /// the order, and then the evidence for each name.
    pub(crate) async fn authorize(&self, request: &Finalization) -> Outcome<Authorized> {
        let found = AccountSlot::default();
        let (account, finalize) = self.authenticate(&request.finalize, &found).await?;
        let now = self.now()?;
        check_agreement(&request.finalize, account)?;
        let minted = self.check_order_id(request, now)?;
        let new_order = self.verify_at(request, account, minted)?;
        let registrant = self.registrant(&request.finalize, account, now).await?;
        let terms = read_terms(&request.new_order, &new_order, registrant.as_ref())?;
        let (shown, given) = (request.source.profile.as_str(), terms.profile.name());
        if !shown.is_empty() && shown != given {
            let detail = format!("the order was made for profile {shown:?}, and would get {given:?} by now");
            return Err(request.finalize.refuse(Reason::ProfileMismatch, detail).into());
        }
        let exempt = self.check_replaced(&request.finalize, account, &terms, false, now).await?;
        let csr = Finalize::from_verified(&finalize)
            .map_err(|error| Refusal::from(error).directory(request.finalize.directory().name().as_str()))?
            .csr;
        let claim = Claim {
            request: &request.finalize,
            account,
            registrant: registrant.as_ref(),
            names: &terms.names,
            ancestors: &terms.ancestors,
            own: Some(request.new_order.jws().digest()),
            issuance: true,
            now,
        };
        let evidence = self.check_evidence(&claim, &request.source.authorizations)?;
        let mut cites = vec![account.citation()];
        cites.extend(registrant.as_ref().map(|registrant| registrant.citation().clone()));
        cites.extend(terms.permits.iter().cloned());
        cites.extend(evidence.grants);
        let limits = limits_of(&request.finalize, registrant.as_ref());
        let registration = account.row.registration.as_deref();
        let counted = (!exempt).then(|| Counted::of(&limits, &account.row.id, registration, &terms.names));
        let domains = if exempt { Vec::new() } else { domains(&request.finalize, &limits, &terms.names) };
        Ok(Authorized {
            account: Arc::clone(account),
            terms,
            csr,
            cites,
            authorizations: evidence.authorizations,
            record: Value::Array(evidence.record).to_string().into_bytes(),
            quorum: (!evidence.quorum.is_empty()).then(|| json!(evidence.quorum)),
            counted,
            domains,
            assumed: evidence.assumed,
            at: now,
        })
    }

    /// newOrder, verified with a key that was the account's when the order's id was made.
    fn verify_at<'a>(
        &self,
        request: &'a Finalization,
        account: &'a Account,
        minted: Timestamp,
    ) -> Result<Verified<'a>, Refusal> {
        let mut outcome = Err(request.new_order.refuse(
            Reason::JwsSignature,
            "newOrder was not signed with a key that was the account's when the order was made",
        ));
        for key in account.keys_at(minted) {
            outcome = self.verified.verify(&request.new_order, key);
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }

    /// The order's id was made by a signer for this newOrder, and not too long ago. Says when.
    fn check_order_id(&self, request: &Finalization, now: Timestamp) -> Result<Timestamp, Refusal> {
        let directory = request.finalize.directory();
        let digest = request.new_order.jws().digest();
        let minted = self
            .secrets
            .ids
            .verify_order(&request.order, directory.name(), &request.account, &digest)
            .map_err(|error| {
                request.finalize.refuse(Reason::OrderForged, format!("the order id: {error}"))
            })?;
        let skew = Period::from_seconds(self.clock.skew().as_secs());
        if now.minus(skew) > minted.plus(directory.policy.order_lifetime) || minted > now.plus(skew) {
            return Err(request.finalize.refuse(Reason::OrderExpired, "the order has expired"));
        }
        Ok(minted)
    }

    /// Whether an account holds all these names: by a grant, or by receipts that are no older than an order, or a
    /// validation that may be reused, gets in the directory (RFC 8555 §7.6: revocation by another account). `test_ca`: whether
    /// it is about a test CA's certificate; that of another is not given up because nobody looked.
    ///
    /// # Errors
    /// A refusal when it does not.
    pub async fn check_names_held(
        &self,
        request: &ClientRequest,
        account: &Account,
        names: &NameSet,
        authorizations: &[NameEvidence],
        test_ca: bool,
    ) -> Outcome<()> {
        let now = self.now()?;
        let registrant = self.registrant(request, account, now).await?;
        let (registrant, ancestors) = (registrant.as_ref(), &BTreeMap::new());
        let claim = Claim { request, account, registrant, names, ancestors, own: None, issuance: false, now };
        let evidence = self.check_evidence(&claim, authorizations)?;
        if evidence.assumed && !test_ca {
            let detail = "nobody looked for control, and the certificate's issuer is no test CA";
            return Err(request.refuse(Reason::IssuerNotTest, detail).into());
        }
        if self.store.deactivated(&evidence.authorizations).await?.is_empty() {
            return Ok(());
        }
        let detail = "an authorization was deactivated (RFC 8555 §7.5.2)";
        Err(request.refuse(Reason::AuthorizationDeactivated, detail).into())
    }

    fn check_evidence(
        &self,
        claim: &Claim<'_>,
        authorizations: &[NameEvidence],
    ) -> Result<CheckedEvidence, Refusal> {
        let by_name = claim.by_name(authorizations)?;
        let nodes = self.membership.nodes();
        let witnesses = Witnesses { claim, nodes: &nodes, skew: self.clock.skew() };
        let mut checked = CheckedEvidence::default();
        // What an authorization of a domain shows for a name below, it shows for each of them.
        let mut counted = BTreeMap::new();
        for name in claim.names {
            let evidence = by_name.get(name).copied();
            let minted = match evidence {
                Some(evidence) => {
                    claim.check_ancestor(evidence)?;
                    Some(self.check_authorization_id(claim.request, claim.account, evidence)?)
                }
                None => None,
            };
            checked.authorizations.extend(evidence.map(|evidence| evidence.authorization.to_string()));
            if let Some((grant, citation)) = claim.registrant.and_then(|registrant| registrant.grant(name)) {
                checked.record.push(json!({ "name": name, "grant": grant }));
                if !checked.grants.contains(citation) {
                    checked.grants.push(citation.clone());
                }
                continue;
            }
            let Some((evidence, minted)) = evidence.zip(minted) else {
                let detail = format!("there is no authorization for {name}");
                return Err(claim.request.refuse(Reason::EvidenceMissing, detail));
            };
            let (tally, record) = match (&evidence.ancestor, counted.get(&evidence.ancestor)) {
                // CAA is asked for each name of its own.
                (Some(above), Some((of, tally)))
                    if *of == evidence.authorization && !witnesses.needs_caa(name) =>
                {
                    (*tally, json!({ "name": name, "of": above }))
                }
                (Some(above), _) => {
                    let tally = witnesses.count(evidence, minted)?;
                    counted.insert(&evidence.ancestor, (evidence.authorization, tally));
                    (tally, json!({ "name": name, "of": above, "receipts": &evidence.receipts }))
                }
                (None, _) => {
                    let tally = witnesses.count(evidence, minted)?;
                    (tally, json!({ "name": name, "receipts": &evidence.receipts }))
                }
            };
            checked.record.push(record);
            checked.assumed |= tally.assumed;
            checked.quorum.insert(name.to_string(), tally.to_string());
        }
        checked.authorizations.sort_unstable();
        checked.authorizations.dedup();
        Ok(checked)
    }

    /// The authorization's id was made by a signer for this account, name and request. Says when.
    fn check_authorization_id(
        &self,
        request: &ClientRequest,
        account: &Account,
        evidence: &NameEvidence,
    ) -> Result<Timestamp, Refusal> {
        let (directory, name) = (request.directory().name(), evidence.authorized());
        let NameEvidence { authorization, created_by, .. } = evidence;
        self.secrets
            .ids
            .verify_authorization(authorization, directory, &account.id, &name, created_by)
            .map_err(|error| {
                let detail = format!("the authorization id for {name}: {error}");
                request.refuse(Reason::AuthorizationForged, detail)
            })
    }
}

/// That an account may have names.
struct Claim<'a> {
    request: &'a ClientRequest,
    account: &'a Account,
    registrant: Option<&'a Registrant>,
    names: &'a NameSet,
    /// The domains above names that the client itself named for them (RFC 9444).
    ancestors: &'a BTreeMap<Name, DnsName>,
    /// The newOrder whose authorizations are the order's own; those of other requests are reused.
    own: Option<[u8; 32]>,
    /// Whether a certificate is to be issued: CAA is asked for nothing else.
    issuance: bool,
    now: Timestamp,
}

impl Claim<'_> {
    /// One entry for a name, and only for names that are claimed.
    fn by_name<'e>(
        &self,
        authorizations: &'e [NameEvidence],
    ) -> Result<BTreeMap<&'e Name, &'e NameEvidence>, Refusal> {
        let mut by_name = BTreeMap::new();
        for evidence in authorizations {
            if !self.names.contains(&evidence.name) || by_name.insert(&evidence.name, evidence).is_some() {
                let detail = format!("the authorization for {} does not belong to the order", evidence.name);
                return Err(self.request.refuse(Reason::EvidenceForeign, detail));
            }
        }
        Ok(by_name)
    }

    /// RFC 9444: what was shown of a domain counts for a name below it, where the directory lets it, and the client either
    /// named the domain for that very name or asked for an authorization of all that is below. (Whether that is what the id
    /// was made for, its MAC says.)
    fn check_ancestor(&self, evidence: &NameEvidence) -> Result<(), Refusal> {
        let Some(above) = &evidence.ancestor else { return Ok(()) };
        let below = match &evidence.name {
            Name::Dns(below) => below != above && below.is_within(above),
            Name::Wildcard(_) | Name::Ip(_) => false,
        };
        let asked =
            self.ancestors.get(&evidence.name) == Some(above) || evidence.authorization.scope().subdomains;
        if self.request.directory().policy.subdomain_auth && below && asked && !is_nobodys(above) {
            return Ok(());
        }
        let detail = format!("the authorization for {above} does not count for {}", evidence.name);
        Err(self.request.refuse(Reason::AncestorForeign, detail))
    }
}

/// What the evidence comes to.
#[derive(Debug, Default)]
struct CheckedEvidence {
    grants: Vec<Citation>,
    authorizations: Vec<String>,
    record: Vec<Value>,
    quorum: BTreeMap<String, String>,
    assumed: bool,
}
