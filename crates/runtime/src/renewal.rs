//! The node certificate renews itself at a third of its life (DESIGN §1): what is left bridges days without an HSM.

use std::{sync::Arc, time::Duration};

use rpc::{Channel, NodeCredentials, PeerIdentity, enroll};

use crate::{exit::Causes, exit::Failure, lifecycle::Lifecycle, readiness::Dependency};

impl Lifecycle {
    /// Keeps a node's certificate young, through any signer; and watches its files.
    pub fn renew_credentials(&self, credentials: &Arc<NodeCredentials>, signer: Channel) {
        self.renew_credentials_every(credentials, signer, LOOK_EVERY);
    }

    /// As [`renew_credentials`](Self::renew_credentials), with another pause between two looks at the clock.
    pub fn renew_credentials_every(
        &self,
        credentials: &Arc<NodeCredentials>,
        signer: Channel,
        look_every: Duration,
    ) {
        self.watch_credentials(credentials);
        let keeper = Keeper {
            credentials: Arc::clone(credentials),
            signer,
            lifecycle: self.clone(),
            notice: self.readiness().notice("node certificate"),
            look_every,
        };
        self.spawn("node certificate renewal", async move {
            keeper.run().await;
            Ok::<(), Failure>(())
        });
    }
}

// A node certificate lives for days; and after a refusal, this is the pause as well.
const LOOK_EVERY: Duration = Duration::from_secs(30);

struct Keeper {
    credentials: Arc<NodeCredentials>,
    signer: Channel,
    lifecycle: Lifecycle,
    notice: Dependency,
    look_every: Duration,
}

impl Keeper {
    async fn run(self) {
        let clock = self.lifecycle.clock();
        let mut failures = 0;
        loop {
            let identity = self.credentials.identity();
            self.show(&identity);
            if identity.renews_at() <= clock.now() {
                failures = if self.renew().await { 0 } else { failures + 1 };
            } else {
                self.notice.up();
            }
            let pause = self.look_every.saturating_mul(1 << failures.min(LONGEST_PAUSE));
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.lifecycle.draining() => return,
            }
        }
    }

    async fn renew(&self) -> bool {
        match enroll::renew(&self.credentials, self.signer.clone()).await {
            Ok(identity) => {
                tracing::info!(node = %identity, not_after = %identity.not_after, "node.renewed");
                self.show(&identity);
                self.notice.up();
                true
            }
            Err(error) => {
                let reason = Causes(&error).to_string();
                tracing::warn!(reason, "node.not_renewed");
                let end = self.credentials.identity().not_after;
                self.notice.down(format!("not renewed ({reason}); it ends at {end}"));
                false
            }
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 are far below 2^52")]
    fn show(&self, identity: &PeerIdentity) {
        metrics::gauge!("chancery_node_certificate_not_after_seconds").set(identity.not_after.unix() as f64);
    }
}

// Thirty seconds doubled five times: a signer that is away is asked every sixteen minutes.
const LONGEST_PAUSE: u32 = 5;
