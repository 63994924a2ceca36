//! Validations that this front is making: a client that looks at one may as well wait a moment for its outcome, which spares
//! both sides the next look.

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

#[derive(Debug, Clone)]
struct Seen {
    account: AccountId,
    method: Method,
    outcome: watch::Receiver<Outcome>,
}

/// One of them, from its first try to its end.
#[derive(Debug)]
pub(crate) struct Run {
    id: AuthorizationId,
    outcome: watch::Sender<Outcome>,
    runs: Runs,
}

impl UnderWay {
    /// A validation begins. A newer one of the same authorization hides an older one.
    pub(crate) fn begin(&self, target: &Target) -> Run {
        let (id, account, method) = (target.authorization, target.account, target.method);
        let outcome = watch::Sender::new(None);
        self.0.lock().insert(id, Seen { account, method, outcome: outcome.subscribe() });
        Run { id, outcome, runs: Arc::clone(&self.0) }
    }

    /// Whether this challenge is being validated.
    pub(crate) fn has(&self, id: &AuthorizationId, method: Method) -> bool {
        self.0.lock().get(id).is_some_and(|seen| seen.method == method)
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
        let mut seen = self.0.lock().get(id).filter(|seen| seen.account == *account)?.clone();
        match timeout_at(end, seen.outcome.wait_for(Option::is_some)).await {
            Ok(Ok(outcome)) => outcome.clone(),
            // Not yet, or it ended without deciding.
            Ok(Err(_)) | Err(_) => None,
        }
    }
}

impl Run {
    /// The authorization as it was saved, decided.
    pub(crate) fn landed(&self, authorization: Authorization) {
        self.outcome.send_replace(Some(Arc::new(authorization)));
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let mut runs = self.runs.lock();
        if runs.get(&self.id).is_some_and(|seen| seen.outcome.same_channel(&self.outcome.subscribe())) {
            runs.remove(&self.id);
        }
    }
}
