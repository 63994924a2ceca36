//! Directories: what the signer says of them, and the object that clients read (RFC 8555 §7.1.1).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use acme::AuthorizationId;
use acme::authorization::Pending;
use acme::challenge::Method;
use acme::directory::{DirectoryName, Meta, Object};
use acme::limit::Limits;
use acme::resource::BaseUrl;
use arc_swap::ArcSwapOption;
use http::StatusCode;
use pki::{DnsName, Name, Period, Timestamp};
use rpc::proto::signer::v1 as proto;
use runtime::Dependency;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::AliasSection;
use crate::refusal::Refusal;
use crate::reply::Reply;
use crate::signer::Signer;
use crate::validation::Quorum;

/// How often the signer is asked for its directories. They change when an operator changes the policy.
const REFRESH: Duration = Duration::from_secs(30);
/// How soon it is asked again when it has not answered.
const RETRY: Duration = Duration::from_secs(1);

/// One directory, as a front needs to know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Directory {
    pub(crate) name: DirectoryName,
    /// This front's base URLs under which the signer knows the directory as well; the first is canonical.
    pub(crate) bases: Vec<BaseUrl>,
    pub(crate) meta: Meta,
    /// By which names CAA records refer to this CA; none: CAA is not asked.
    pub(crate) caa_identities: Vec<DnsName>,
    /// What is offered for an identifier, in this order.
    pub(crate) methods: Vec<Method>,
    /// For how long after its validation an authorization may be used by later orders.
    validation_reuse: Duration,
    /// Validations that were finished before this time count no more.
    pub(crate) validations_since: Option<Timestamp>,
    /// How long an order may wait for its finalization.
    order_lifetime: Duration,
    /// Whether there is newAuthz (RFC 8555 §7.4.1).
    pub(crate) pre_authorization: bool,
    /// What fronts count here, for accounts without limits of their own.
    pub(crate) limits: Limits,
    /// Whether it has renewal information (RFC 9773).
    pub(crate) renewal_info: bool,
    /// Whether it is one for tests, in which a perspective need not look.
    pub(crate) always_valid: bool,
    /// Which perspectives must agree.
    pub(crate) quorum: Quorum,
}

/// All that are served.
#[derive(Debug)]
pub(crate) struct Directories {
    bases: Vec<BaseUrl>,
    aliases: HashMap<String, DirectoryName>,
    current: ArcSwapOption<HashMap<DirectoryName, Arc<Directory>>>,
    /// Whether the signer has told them once.
    known: watch::Sender<bool>,
}

impl Directories {
    /// Of these base URLs; directories' objects are at the aliases' paths too.
    pub(crate) fn new(bases: Vec<BaseUrl>, aliases: &[AliasSection]) -> Self {
        let aliases = aliases.iter().map(|alias| (alias.path.clone(), alias.directory.clone())).collect();
        Self { bases, aliases, current: ArcSwapOption::empty(), known: watch::Sender::new(false) }
    }

    /// The directory whose object can be read at this path too.
    pub(crate) fn at_alias(&self, path: &str) -> Option<&DirectoryName> {
        self.aliases.get(path)
    }

    /// Every base URL of this front.
    pub(crate) fn bases(&self) -> &[BaseUrl] {
        &self.bases
    }

    /// Waits until the signer has told which there are.
    pub(crate) async fn are_known(&self) {
        // The sender is `self`: it cannot be gone.
        let _ = self.known.subscribe().wait_for(|known| *known).await;
    }

    /// The directory of this name; `None` if there is none.
    ///
    /// # Errors
    /// [`Refusal::NotYet`] before the signer has told which there are: "unknown" would be a lie.
    pub(crate) fn find(&self, name: &DirectoryName) -> Result<Option<Arc<Directory>>, Refusal> {
        match self.current.load().as_ref() {
            Some(all) => Ok(all.get(name).cloned()),
            None => Err(Refusal::NotYet),
        }
    }

    /// Asks the signer again and again, until `shutdown`.
    pub(crate) async fn follow(&self, signer: &Signer, dependency: Dependency, shutdown: CancellationToken) {
        loop {
            let pause = match signer.directories().await {
                Ok(listed) => {
                    self.replace(listed);
                    dependency.up();
                    REFRESH
                }
                Err(error) => {
                    dependency.down(error.to_string());
                    RETRY
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    fn replace(&self, listed: Vec<proto::Directory>) {
        let all: HashMap<_, _> = listed
            .into_iter()
            .filter_map(|one| self.accept(one))
            .map(|directory| (directory.name.clone(), Arc::new(directory)))
            .collect();
        let changed = self.current.load().as_ref().is_none_or(|old| **old != all);
        if changed {
            let names: Vec<&str> = all.keys().map(DirectoryName::as_str).collect();
            tracing::info!(directories = ?names, "directories");
            self.current.store(Some(Arc::new(all)));
            self.known.send_replace(true);
        }
    }

    /// What cannot be served is left out, loudly: clients must not get URLs that the signer will not know again.
    fn accept(&self, listed: proto::Directory) -> Option<Directory> {
        let name: DirectoryName = match listed.name.parse() {
            Ok(name) => name,
            Err(error) => {
                tracing::error!(name = listed.name, %error, "a directory of the signer cannot be served");
                return None;
            }
        };
        let shared =
            self.bases.iter().filter(|base| listed.base_urls.iter().any(|known| known == base.as_str()));
        let bases: Vec<BaseUrl> = shared.cloned().collect();
        if bases.is_empty() {
            tracing::warn!(directory = %name, "the signer knows this directory under none of this front's base URLs");
            return None;
        }
        let identities: Result<Vec<DnsName>, _> =
            listed.caa_identities.iter().map(|one| one.parse()).collect();
        let Ok(caa_identities) = identities else {
            tracing::error!(directory = %name, "a name for CAA cannot be read");
            return None;
        };
        let methods = listed.methods.iter().filter_map(|method| match method.parse() {
            Ok(method) => Some(method),
            Err(_) => {
                tracing::warn!(directory = %name, method, "the signer allows a method that this front does not know");
                None
            }
        });
        // Without a name of this CA there is nothing that such a record could name.
        let methods = methods.filter(|method| *method != Method::DnsPersist01 || !caa_identities.is_empty());
        let methods = methods.collect();
        let optional = |text: String| Some(text).filter(|text| !text.is_empty());
        let meta = Meta {
            terms_of_service: optional(listed.terms_of_service),
            website: optional(listed.website),
            caa_identities: listed.caa_identities,
            external_account_required: listed.external_account_required,
            subdomain_auth_allowed: listed.subdomain_authorization,
            profiles: listed.profiles.into_iter().map(|one| (one.name, one.description)).collect(),
        };
        let validation_reuse = Duration::from_secs(listed.validation_reuse_seconds);
        let since = listed.validations_since;
        let Ok(since) = rpc::timestamp("validations_since", since).map(|at| (since > 0).then_some(at)) else {
            tracing::error!(directory = %name, since, "a directory whose times cannot be read is not served");
            return None;
        };
        let order_lifetime = Duration::from_secs(listed.order_lifetime_seconds);
        let pre_authorization = listed.pre_authorization;
        let limits = match rpc::limits(listed.limits.as_ref()) {
            Ok(limits) => limits,
            Err(error) => {
                tracing::error!(directory = %name, %error, "a directory whose limits cannot be read is not served");
                return None;
            }
        };
        Some(Directory {
            name,
            bases,
            meta,
            caa_identities,
            methods,
            validation_reuse,
            validations_since: since,
            order_lifetime,
            pre_authorization,
            limits,
            renewal_info: listed.renewal_info,
            always_valid: listed.always_valid,
            quorum: Quorum::new(listed.perspectives, listed.perspectives_needed, listed.always_valid),
        })
    }
}

impl Directory {
    /// The base URL for a client that signed none: the one with the host that it asked for, else the canonical one.
    pub(crate) fn base_for_host(&self, host: Option<&str>) -> Option<&BaseUrl> {
        let asked = host.and_then(|host| self.bases.iter().find(|base| authority(base) == host));
        asked.or_else(|| self.bases.first())
    }

    /// For how long after its validation the signer takes this authorization for another request than its own.
    pub(crate) fn reuse_of(&self, authorization: &AuthorizationId) -> Period {
        let own = if authorization.scope().pre_authorization { self.order_lifetime } else { Duration::ZERO };
        Period::from_seconds(self.validation_reuse.max(own).as_secs())
    }

    /// Whether any authorization may be used by another request than its own.
    pub(crate) fn reuses(&self) -> bool {
        self.pre_authorization || !self.validation_reuse.is_zero()
    }

    /// Whether an authorization may be for the names below its own too (RFC 9444).
    pub(crate) fn subdomains(&self) -> bool {
        self.meta.subdomain_auth_allowed
    }

    /// The challenges of a new authorization: by the methods that show all that it is for.
    pub(crate) fn pending(&self, name: &Name, id: &AuthorizationId, expires: Timestamp) -> Pending {
        let counts = |method: &&Method| !id.scope().subdomains || method.covers_subdomains();
        let methods: Vec<Method> = self.methods.iter().filter(counts).copied().collect();
        Pending::new(name, &methods, expires)
    }

    /// The object that clients read first.
    pub(crate) fn reply(&self, base: &BaseUrl) -> Reply {
        let object = Object::new(base, &self.name, self.pre_authorization, self.meta.clone());
        let object = if self.renewal_info { object.with_renewal_info(base, &self.name) } else { object };
        Reply::json(StatusCode::OK, &object)
    }
}

/// `host[:port]` of a base URL.
fn authority(base: &BaseUrl) -> &str {
    let rest = base.as_str().strip_prefix("https://").unwrap_or_default();
    rest.split('/').next().unwrap_or_default()
}
