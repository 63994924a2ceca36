//! Validations that this front is making: a client that looks at one may as well wait a moment for its outcome, which spares
//! both sides the next look; and one that asks again for what is under way begins nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use acme::authorization::Authorization;
use acme::challenge::Method;
use acme::{AccountId, AuthorizationId};
use parking_lot::Mutex;
use rpc::Target;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

type Outcome = Option<Arc<Authorization>>;
type Runs = Arc<Mutex<HashMap<AuthorizationId, Seen>>>;

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct UnderWay(Runs);

/// Those of one authorization: of each method one at most.
#[derive(Debug)]
struct Seen {
    account: AccountId,
    methods: Vec<Method>,
    outcome: Arc<watch::Sender<Outcome>>,
}

/// One of them, from its first try to its end.
#[derive(Debug)]
pub(crate) struct Run {
    id: AuthorizationId,
    method: Method,
    outcome: Arc<watch::Sender<Outcome>>,
    runs: Runs,
}

impl UnderWay {
    /// A validation begins; none if this challenge is being validated already.
    pub(crate) fn begin(&self, target: &Target) -> Option<Run> {
        let (id, method) = (target.authorization, target.method);
        let mut runs = self.0.lock();
        let seen = runs.entry(id).or_insert_with(|| Seen {
            account: target.account,
            methods: Vec::new(),
            outcome: Arc::new(watch::Sender::new(None)),
        });
        if seen.methods.contains(&method) {
            return None;
        }
        seen.methods.push(method);
        let outcome = Arc::clone(&seen.outcome);
        drop(runs);
        Some(Run { id, method, outcome, runs: Arc::clone(&self.0) })
    }

    /// What a validation for this account has come to, if that is known in time.
    pub(crate) async fn outcome(
        &self,
        id: &AuthorizationId,
        account: &AccountId,
        patience: Duration,
    ) -> Option<Arc<Authorization>> {
        self.outcome_until(id, account, Instant::now() + patience).await
    }

    /// Waits until each of these validations for this account has ended, if that is soon.
    pub(crate) async fn landed(&self, ids: &[AuthorizationId], account: &AccountId, patience: Duration) {
        let end = Instant::now() + patience;
        for id in ids {
            self.outcome_until(id, account, end).await;
        }
    }

    async fn outcome_until(&self, id: &AuthorizationId, account: &AccountId, end: Instant) -> Outcome {
        let mut outcome = self.0.lock().get(id).filter(|seen| seen.account == *account)?.outcome.subscribe();
        match timeout_at(end, outcome.wait_for(Option::is_some)).await {
            Ok(Ok(outcome)) => outcome.clone(),
            // Not yet, or all have ended without deciding.
            Ok(Err(_)) | Err(_) => None,
        }
    }
}

impl Run {
    /// The authorization as it was saved, decided. From now on it is read where it was saved.
    pub(crate) fn landed(&self, authorization: Authorization) {
        self.outcome.send_replace(Some(Arc::new(authorization)));
        self.leave(|_| false);
    }

    /// Keeps the authorization's entry only as long as somebody is at it.
    fn leave(&self, stays: impl Fn(&Method) -> bool) {
        let mut runs = self.runs.lock();
        let Some(seen) = runs.get_mut(&self.id).filter(|seen| Arc::ptr_eq(&seen.outcome, &self.outcome))
        else {
            return;
        };
        seen.methods.retain(stays);
        if seen.methods.is_empty() {
            runs.remove(&self.id);
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.leave(|method| *method != self.method);
    }
}

#[cfg(test)]
mod tests {
    use acme::Thumbprint;
    use acme::id::IdKeys;
    use acme::{TierSecret, TierSecrets};
    use pki::{Name, Timestamp};

    use super::*;

    fn target(method: Method) -> Target {
        let secrets =
            TierSecrets::new(vec![TierSecret::new(1, std::array::from_fn(|at| at as u8)).unwrap()]).unwrap();
        let (directory, account) = ("main".parse().unwrap(), AccountId::from_bytes(&[1; 24]).unwrap());
        let name: Name = "example.org".parse().unwrap();
        let now = Timestamp::from_unix(1_800_000_000);
        let subject = (&directory, &account, &name, &[2; 32]);
        let scope = acme::id::Scope { pre_authorization: false, subdomains: false };
        Target {
            authorization: IdKeys::new(&secrets).mint_scoped(scope, subject, now, [3; 16]),
            directory: directory.clone(),
            account,
            account_url: "https://acme.test/acme/main/account/1".parse().unwrap(),
            thumbprint: Thumbprint::from_bytes([4; 32]),
            name: name.clone(),
            method,
            attempt: 1,
            caa_identities: Vec::new(),
            caa_only: false,
        }
    }

    #[test]
    fn a_challenge_has_one_run_whatever_others_begin() {
        let all = UnderWay::default();
        let http = all.begin(&target(Method::Http01)).unwrap();
        let dns = all.begin(&target(Method::Dns01)).unwrap();
        assert!(all.begin(&target(Method::Http01)).is_none());
        assert!(all.begin(&target(Method::Dns01)).is_none());
        drop(http);
        assert!(all.begin(&target(Method::Dns01)).is_none());
        let http = all.begin(&target(Method::Http01)).unwrap();
        drop((http, dns));
        assert!(all.0.lock().is_empty(), "nothing is left of those that ended");
    }
}
