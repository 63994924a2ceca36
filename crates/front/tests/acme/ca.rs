//! A signer's double: keeps accounts and certificates in memory, and believes as little as the real one.
//!
//! It verifies what clients signed, and the validator's receipts, because a front that sent the wrong JWS or the wrong
//! receipts would otherwise pass. What it does not have: an HSM, a journal, policies.

mod service;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use acme::eab::Binding;
use acme::id::{IdKeys, Scope};
use acme::jws::KeyReference;
use acme::order::{Finalize, NewOrder};
use acme::receipt::{Outcome, Receipt, ReceiptVerifier};
use acme::renewal::CertificateId;
use acme::resource::{BaseUrl, Located, Resource};
use acme::{
    AccountId, AuthorizationId, DirectoryName, ErrorType, Jwk, Jws, Problem, Thumbprint, TierSecret,
    TierSecrets,
};
use parking_lot::Mutex;
use pki::{Certificate, Csr, DnsName, Name, Period, Timestamp};
use rpc::proto::signer::v1 as wire;
use rpc::{Account, AuthorizedName, Evidence};
use runtime::Clock;
use tokio::sync::{Notify, mpsc};
use tonic::Status;

use crate::pki_double::Authority as Issuer;
use crate::validator::PERSPECTIVES;

pub(crate) const EAB_KID: &str = "test-kid";
pub(crate) const EAB_KEY: [u8; 32] = [42; 32];
pub(crate) const TERMS: &str = "https://ca.test/terms";

/// What the directory "dns" offers.
const ALL: &[&str] = &["http-01", "dns-01", "tls-alpn-01", "dns-account-01", "dns-persist-01"];

/// How long orders and authorizations last.
const LIFETIME: Period = Period::from_hours(24);

/// Where a validation counts for other orders than its own.
const REUSING: [&str; 5] = ["reuse", "sub", "test", "since", "quorum"];
/// The directories that have newAuthz.
const PRE_AUTHORIZING: [&str; 3] = ["pre", "sub", "limited"];

/// The double.
pub(crate) struct FakeCa {
    bases: Vec<BaseUrl>,
    issuer: Issuer,
    cross: Vec<Vec<u8>>,
    node_issuer: Issuer,
    ids: IdKeys,
    receipts: Vec<ReceiptVerifier>,
    clock: Arc<dyn Clock>,
    /// The directory "since" takes no validation from before.
    mended_at: Timestamp,
    state: Mutex<State>,
    failing: AtomicBool,
    failing_issuances: AtomicU32,
    broken_issuances: AtomicBool,
    losing_issuances: AtomicBool,
    /// Of the three perspectives of the directory `quorum`.
    needed: AtomicU32,
    order_gate: Mutex<Option<Gate>>,
    issue_gate: Mutex<Option<Gate>>,
    deactivated: Mutex<HashSet<AuthorizationId>>,
    pub(crate) issue_calls: AtomicU32,
    pub(crate) order_calls: AtomicU32,
    /// What the next issuance is answered with.
    refused_issuance: Mutex<Option<rpc::Refusal>>,
    pub(crate) look_ups: AtomicU32,
    pub(crate) renewal_calls: AtomicU32,
}

#[derive(Default)]
struct State {
    accounts: HashMap<AccountId, Account>,
    keys: HashMap<(DirectoryName, Thumbprint), AccountId>,
    former: HashMap<AccountId, Vec<Jwk>>,
    updates: HashSet<[u8; 32]>,
    /// Terms that have to be agreed to anew.
    new_terms: Option<&'static str>,
    orders: HashMap<String, pki::Serial>,
    certificates: HashMap<pki::Serial, Kept>,
    watchers: Vec<mpsc::Sender<Result<wire::AccountsChanged, Status>>>,
}

struct Kept {
    account: AccountId,
    certificate: Certificate,
    revoked: bool,
}

/// Holds calls up until the test lets them go.
#[derive(Clone, Default)]
pub(crate) struct Gate(Arc<(Notify, Notify)>);

impl Gate {
    /// Once a call waits.
    pub(crate) async fn reached(&self) {
        self.0.0.notified().await;
    }

    pub(crate) fn release(&self) {
        self.0.1.notify_one();
    }

    pub(crate) async fn pass(&self) {
        self.0.0.notify_one();
        self.0.1.notified().await;
    }
}

impl FakeCa {
    pub(crate) fn new(
        bases: Vec<BaseUrl>,
        node_issuer: Issuer,
        receipts: Vec<ReceiptVerifier>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let secrets = TierSecrets::new(vec![TierSecret::new(1, secret()).unwrap()]).unwrap();
        let issuer = Issuer::new("Test Issuer");
        let cross = ["Older Root", "Oldest Root"].map(|name| issuer.certified_by(&Issuer::new(name)));
        Self {
            bases,
            cross: cross.to_vec(),
            issuer,
            node_issuer,
            ids: IdKeys::new(&secrets),
            receipts,
            mended_at: Timestamp::from(clock.now()).plus(Period::from_hours(1)),
            clock,
            state: Mutex::default(),
            failing: AtomicBool::new(false),
            failing_issuances: AtomicU32::new(0),
            broken_issuances: AtomicBool::new(false),
            losing_issuances: AtomicBool::new(false),
            needed: AtomicU32::new(2),
            order_gate: Mutex::default(),
            issue_gate: Mutex::default(),
            deactivated: Mutex::default(),
            issue_calls: AtomicU32::new(0),
            order_calls: AtomicU32::new(0),
            refused_issuance: Mutex::default(),
            look_ups: AtomicU32::new(0),
            renewal_calls: AtomicU32::new(0),
        }
    }

    pub(crate) fn fail_everything(&self, failing: bool) {
        self.failing.store(failing, Ordering::SeqCst);
    }

    /// The next so many issuances fail as if the token were away.
    pub(crate) fn fail_issuances(&self, count: u32) {
        self.failing_issuances.store(count, Ordering::SeqCst);
    }

    /// Issuances fail as if a row had been tampered with: somebody must look first.
    pub(crate) fn break_issuances(&self, broken: bool) {
        self.broken_issuances.store(broken, Ordering::SeqCst);
    }

    /// The next issuance is refused.
    pub(crate) fn refuse_issuance(&self, refusal: rpc::Refusal) {
        *self.refused_issuance.lock() = Some(refusal);
    }

    /// Certificates are issued, and no front hears of it.
    pub(crate) fn lose_issuances(&self, losing: bool) {
        self.losing_issuances.store(losing, Ordering::SeqCst);
    }

    /// So many of the three perspectives of the directory `quorum` must agree.
    pub(crate) fn need(&self, perspectives: u32) {
        self.needed.store(perspectives, Ordering::SeqCst);
    }

    fn needed(&self, directory: &str) -> u32 {
        if directory == "quorum" { self.needed.load(Ordering::SeqCst) } else { 1 }
    }

    /// Holds the next newOrder.
    pub(crate) fn hold_orders(&self) -> Gate {
        self.order_gate.lock().insert(Gate::default()).clone()
    }

    /// Holds the next issuance.
    pub(crate) fn hold_issuances(&self) -> Gate {
        self.issue_gate.lock().insert(Gate::default()).clone()
    }

    /// The terms change, and every account is asked to agree.
    pub(crate) fn change_terms(&self, terms: &'static str) {
        let mut state = self.state.lock();
        state.new_terms = Some(terms);
        state.accounts.values_mut().for_each(|account| account.terms_of_service_agreed = false);
    }

    pub(crate) fn deactivations(&self) -> usize {
        self.deactivated.lock().len()
    }

    /// RFC 8555 §7.3.3.
    fn check_agreement(&self, account: &Account) -> Result<(), Status> {
        match self.state.lock().new_terms {
            Some(terms) if !account.terms_of_service_agreed => {
                let problem = Problem::new(ErrorType::UserActionRequired, "agree to the new terms");
                Err(rpc::refuse(problem.with_instance(terms)))
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn certificates(&self) -> usize {
        self.state.lock().certificates.len()
    }

    /// The stream of account changes breaks.
    pub(crate) fn break_streams(&self) {
        self.state.lock().watchers.clear();
    }

    pub(crate) fn is_watched(&self) -> bool {
        !self.state.lock().watchers.is_empty()
    }

    pub(crate) fn issuer_der(&self) -> Vec<u8> {
        self.issuer.der().to_vec()
    }

    fn now(&self) -> Timestamp {
        self.clock.now().into()
    }

    fn check(&self) -> Result<(), Status> {
        if self.failing.load(Ordering::SeqCst) { Err(Status::unavailable("told to fail")) } else { Ok(()) }
    }

    fn locate(&self, url: &str) -> Result<Located, Status> {
        Resource::parse(&self.bases, url).map_err(|_| malformed("url"))
    }

    /// The account whose current key made the JWS.
    fn account_of(&self, jws: &Jws, directory: &DirectoryName) -> Result<Account, Status> {
        let KeyReference::Kid(kid) = &jws.header().key else { return Err(malformed("kid")) };
        let located = self.locate(kid)?;
        let Resource::Account(id) = located.resource else { return Err(malformed("kid")) };
        let account = self.state.lock().accounts.get(&id).cloned().ok_or_else(|| malformed("no account"))?;
        if account.directory != *directory || account.status != acme::account::Status::Valid {
            return Err(refuse(ErrorType::Unauthorized, "the account"));
        }
        Ok(account)
    }

    async fn tell(&self, id: AccountId) {
        let watchers = self.state.lock().watchers.clone();
        for watcher in watchers {
            let _ = watcher.send(Ok(wire::AccountsChanged { account_ids: vec![id.to_string()] })).await;
        }
    }

    fn describe(&self, name: &str) -> wire::Directory {
        wire::Directory {
            name: name.to_owned(),
            base_urls: self.bases.iter().map(ToString::to_string).collect(),
            terms_of_service: TERMS.to_owned(),
            website: "https://ca.test".to_owned(),
            caa_identities: vec!["ca.test".to_owned()],
            external_account_required: name == "eab",
            profiles: vec![wire::Profile { name: "tls".to_owned(), description: "90 days".to_owned() }],
            methods: match name {
                "sub" => &["http-01", "dns-01"],
                "dns" => ALL,
                _ => &["http-01"][..],
            }
            .iter()
            .map(ToString::to_string)
            .collect(),
            maximum_names: 100,
            order_lifetime_seconds: 86_400,
            authorization_lifetime_seconds: 86_400,
            validation_reuse_seconds: if REUSING.contains(&name) { 86_400 } else { 0 },
            limits: Some(service::limits(name)),
            pre_authorization: PRE_AUTHORIZING.contains(&name),
            subdomain_authorization: name == "sub",
            renewal_info: name != "eab",
            always_valid: name == "test",
            validations_since: if name == "since" { rpc::seconds(self.mended_at) } else { 0 },
            perspectives: PERSPECTIVES
                .iter()
                .take(if name == "quorum" { 3 } else { 1 })
                .map(ToString::to_string)
                .collect(),
            perspectives_needed: self.needed(name),
        }
    }

    /// What an order's `replaces` comes to; the real signer looks at more.
    fn replaced(&self, account: &Account, order: &NewOrder) -> Result<Option<CertificateId>, Status> {
        let Some(id) = order.replaces.clone().filter(|_| account.directory.as_str() != "eab") else {
            return Ok(None);
        };
        let state = self.state.lock();
        let kept = state.certificates.get(&self.serial_of(&id)?).ok_or_else(missing)?;
        if kept.account != account.id {
            return Err(refuse(ErrorType::Unauthorized, "another account's certificate"));
        }
        Ok(Some(id))
    }

    fn serial_of(&self, id: &CertificateId) -> Result<pki::Serial, Status> {
        let issuer = Certificate::from_der(self.issuer.der()).unwrap();
        if issuer.key_id() == Some(id.authority_key_id.as_slice()) { Ok(id.serial) } else { Err(missing()) }
    }

    fn authorized_names(
        &self,
        account: &Account,
        order: &NewOrder,
        digest: &[u8; 32],
        now: Timestamp,
    ) -> Result<Vec<AuthorizedName>, Status> {
        let refused = order.names.iter().filter(|name| below(name, "refused.test")).map(|name| {
            let identifier = acme::identifier::Identifier::in_order(name);
            acme::problem::Subproblem::new(ErrorType::RejectedIdentifier, "not here", identifier)
        });
        if let Some(problem) = Problem::from_subproblems(refused.collect()) {
            return Err(rpc::refuse(problem));
        }
        let ends = now.plus(LIFETIME);
        let mut minted = HashMap::new();
        let mut mint = |subject: &Name, subdomains| {
            *minted.entry(subject.clone()).or_insert_with(|| {
                let scope = Scope { pre_authorization: false, subdomains };
                let subject = (&account.directory, &account.id, subject, digest);
                self.ids.mint_scoped(scope, subject, now, random())
            })
        };
        let names = order.names.iter().map(|name| {
            let below = account.directory.as_str() == "sub";
            let ancestor = order.ancestors.get(name).filter(|_| below).cloned();
            let subject = ancestor.clone().map_or_else(|| name.clone(), Name::Dns);
            AuthorizedName {
                name: name.clone(),
                authorization: mint(&subject, ancestor.is_some()),
                grant: self::below(name, "granted.test").then(|| "grant-1".to_owned()),
                expires: ends,
                ancestor,
            }
        });
        Ok(names.collect())
    }

    /// Whether the evidence makes the account the holder of the name.
    fn is_held(&self, account: &Account, name: &Name, evidence: &[Evidence], now: Timestamp) -> bool {
        let Some(shown) = evidence.iter().find(|one| one.name == *name) else { return false };
        let made = self.ids.verify_authorization(
            &shown.authorization,
            &account.directory,
            &account.id,
            &shown.authorized(),
            &shown.created_by,
        );
        if made.is_err() || self.deactivated.lock().contains(&shown.authorization) {
            return false;
        }
        if below(name, "granted.test") {
            return true;
        }
        let counts = |receipt: &Receipt| {
            receipt.authorization == shown.authorization
                && receipt.account == account.id
                && receipt.directory == account.directory
                && receipt.name == shown.authorized()
                && (shown.ancestor.is_none() || receipt.method.covers_subdomains())
                && match receipt.outcome {
                    Outcome::Valid => true,
                    Outcome::Assumed => account.directory.as_str() == "test",
                    _ => false,
                }
                && now.since(receipt.finished) <= Period::from_days(30)
        };
        let receipts = shown.receipts.iter().filter_map(|compact| self.verified(compact)).filter(counts);
        self.is_quorum(&account.directory, receipts)
    }

    fn verified(&self, compact: &str) -> Option<Receipt> {
        self.receipts.iter().find_map(|verifier| verifier.verify(compact).ok())
    }

    fn is_quorum(&self, directory: &DirectoryName, receipts: impl Iterator<Item = Receipt>) -> bool {
        let agree: HashSet<_> = receipts.map(|receipt| receipt.perspective.to_string()).collect();
        agree.len() >= self.needed(directory.as_str()) as usize
    }

    /// Whether the validator asked CAA for this CA in the last eight hours.
    fn has_fresh_caa(
        &self,
        directory: &DirectoryName,
        name: &Name,
        evidence: &[Evidence],
        now: Timestamp,
    ) -> bool {
        if below(name, "granted.test") || name.base().is_none() {
            return true;
        }
        let receipts = evidence.iter().filter(|one| one.name == *name).flat_map(|one| &one.receipts);
        let read = receipts.filter_map(|compact| self.verified(compact));
        let answers = read.filter(|receipt| {
            receipt.name == *name
                && receipt.caa.as_ref().is_some_and(|caa| {
                    let fresh = now.since(caa.checked) <= Period::from_hours(8);
                    fresh && caa.permitted && caa.identities.iter().map(DnsName::as_str).eq(["ca.test"])
                })
        });
        self.is_quorum(directory, answers)
    }

    fn issue_checked(&self, request: wire::IssueRequest) -> Result<wire::IssuedCertificate, Status> {
        let (new_order, finalize) = (jws(&request.new_order_jws)?, jws(&request.finalize_jws)?);
        let located = self.locate(&finalize.header().url)?;
        let Resource::Finalize(order_id) = located.resource else { return Err(malformed("url")) };
        let known = self.state.lock().orders.get(&order_id.to_string()).copied();
        if let Some(serial) = known {
            return Ok(self.issued(serial));
        }
        let account = self.account_of(&finalize, &located.directory)?;
        self.ids
            .verify_order(&order_id, &located.directory, &account.id, &new_order.digest())
            .map_err(|_| refuse(ErrorType::Unauthorized, "the order's id"))?;
        let mut keys = self.state.lock().former.get(&account.id).cloned().unwrap_or_default();
        keys.push(account.key.clone());
        // The key of its time.
        let verified = keys.iter().find_map(|key| new_order.verify(key).ok());
        let verified = verified.ok_or_else(|| malformed("newOrder"))?;
        let wanted = NewOrder::from_verified(&verified, 100).map_err(|error| rpc::refuse(error.problem()))?;
        let verified = finalize.verify(&account.key).map_err(|_| malformed("finalize"))?;
        let csr = Finalize::from_verified(&verified).map_err(|error| rpc::refuse(error.problem()))?.csr;
        let csr = Csr::from_der(&csr).map_err(|error| refuse(ErrorType::BadCsr, &error.to_string()))?;
        if csr.names() != &wanted.names {
            return Err(refuse(ErrorType::BadCsr, "the names of CSR and order differ"));
        }
        let evidence: Vec<Evidence> =
            request.authorizations.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?;
        let now = self.now();
        if !wanted.names.iter().all(|name| self.is_held(&account, name, &evidence, now)) {
            return Err(refuse(ErrorType::Unauthorized, "a name without authorization"));
        }
        let asked = account.directory.as_str() != "test";
        let has_caa = |name| self.has_fresh_caa(&account.directory, name, &evidence, now);
        if asked && !wanted.names.iter().all(has_caa) {
            return Err(refuse(ErrorType::Caa, "CAA was asked too long ago"));
        }
        let certificate = self.issuer.issue(csr.public_key(), &wanted.names);
        let serial = certificate.serial();
        let mut state = self.state.lock();
        state.orders.insert(order_id.to_string(), serial);
        state.certificates.insert(serial, Kept { account: account.id, certificate, revoked: false });
        drop(state);
        Ok(self.issued(serial))
    }

    fn issued(&self, serial: pki::Serial) -> wire::IssuedCertificate {
        let state = self.state.lock();
        let der = state.certificates[&serial].certificate.der().to_vec();
        wire::IssuedCertificate {
            serial: serial.to_string(),
            chain: vec![der.into(), self.issuer.der().to_vec().into()],
            alternates: self.alternates(),
        }
    }

    /// What else stands above its leaves: two certificates of the same key and subject, by others.
    pub(crate) fn alternates(&self) -> Vec<wire::AlternateChain> {
        let chain = |der: &Vec<u8>| wire::AlternateChain { issuers: vec![der.clone().into()] };
        self.cross.iter().map(chain).collect()
    }

    fn new_account(&self, jws: &Jws) -> Result<(Account, bool), Status> {
        let directory = self.locate(&jws.header().url)?.directory;
        let verified = jws.verify_embedded().map_err(|error| rpc::refuse(error.problem()))?;
        let key = verified.key().clone();
        let wanted = acme::account::NewAccount::from_verified(&verified)
            .map_err(|error| rpc::refuse(error.problem()))?;
        let mut state = self.state.lock();
        if let Some(id) = state.keys.get(&(directory.clone(), key.thumbprint())) {
            let account = state.accounts[id].clone();
            if account.status != acme::account::Status::Valid {
                let problem =
                    Problem::new(ErrorType::Unauthorized, "the account is deactivated").with_status(401);
                return Err(rpc::refuse(problem));
            }
            return Ok((account, false));
        }
        if wanted.only_return_existing {
            return Err(refuse(ErrorType::AccountDoesNotExist, "no account with this key"));
        }
        if !wanted.terms_of_service_agreed {
            let problem =
                Problem::new(ErrorType::UserActionRequired, "agree to the terms").with_instance(TERMS);
            return Err(rpc::refuse(problem));
        }
        let contacts = wanted.contacts().map_err(|error| rpc::refuse(error.problem()))?;
        let binding =
            self.binding(&directory, &key, &jws.header().url, wanted.external_account_binding.as_ref())?;
        let account = Account {
            id: AccountId::derive(&directory, &key.thumbprint()),
            directory: directory.clone(),
            status: acme::account::Status::Valid,
            contacts: contacts.iter().map(ToString::to_string).collect(),
            terms_of_service_agreed: true,
            key: key.clone(),
            external_account_binding: binding,
            version: 1,
        };
        state.keys.insert((directory, key.thumbprint()), account.id);
        state.accounts.insert(account.id, account.clone());
        Ok((account, true))
    }

    fn binding(
        &self,
        directory: &DirectoryName,
        key: &Jwk,
        url: &str,
        binding: Option<&Binding>,
    ) -> Result<Option<String>, Status> {
        match binding {
            None if directory.as_str() == "eab" => {
                Err(refuse(ErrorType::ExternalAccountRequired, "an external account binding is needed"))
            }
            None => Ok(None),
            Some(binding) if binding.kid() == EAB_KID => {
                binding.verify(key, url, &EAB_KEY).map_err(|error| rpc::refuse(error.problem()))?;
                Ok(Some(binding.to_json()))
            }
            Some(_) => Err(refuse(ErrorType::Unauthorized, "the kid is not known")),
        }
    }
}

fn jws(bytes: &[u8]) -> Result<Jws, Status> {
    Jws::from_slice(bytes).map_err(|error| rpc::refuse(error.problem()))
}

fn refuse(kind: ErrorType, detail: &str) -> Status {
    rpc::refuse(Problem::new(kind, detail))
}

fn missing() -> Status {
    rpc::refuse(Problem::new(ErrorType::Malformed, "no such certificate").with_status(404))
}

fn malformed(detail: &str) -> Status {
    refuse(ErrorType::Malformed, detail)
}

fn below(name: &Name, suffix: &str) -> bool {
    name.base().is_some_and(|base| base.as_str() == suffix || base.as_str().ends_with(&format!(".{suffix}")))
}

fn random() -> [u8; 16] {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).unwrap();
    bytes
}

fn secret() -> [u8; 32] {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes).unwrap();
    bytes
}
