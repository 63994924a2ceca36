//! Clients that issue one certificate after another, renew their accounts and revoke, until they are told to pause.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pki::ocsp::CertStatus;
use tokio::sync::{OwnedRwLockWriteGuard, RwLock};
use tokio::task::JoinSet;

use super::client::{Client, Got};
use super::director::Director;
use super::relying::Relying;
use super::stack::{DOMAIN, GRANTED, Stack};

/// What clients have, by serial.
#[derive(Default)]
pub struct Held {
    /// Certificates since the last audit.
    pub fresh: Vec<Got>,
    /// Serials that were revoked, all of them.
    pub revoked: Vec<Vec<u8>>,
    /// Certificates that were audited: what they are, as a digest.
    pub audited: HashMap<Vec<u8>, [u8; 32]>,
}

/// Running clients.
pub struct Load {
    gate: Arc<RwLock<()>>,
    /// What they have.
    pub held: Arc<Mutex<Held>>,
    tasks: JoinSet<()>,
}

/// An account lives for this many certificates; registrations are to be killed, too.
const ACCOUNT_LIFE: u64 = 5;
/// EAB keys have limited uses.
const MANAGED_ACCOUNT_LIFE: u64 = 25;
/// Each so many certificates one is revoked.
const REVOKED_EACH: u64 = 4;

impl Load {
    /// Starts so many clients on a stack.
    #[must_use]
    pub fn start(stack: &Stack, director: &Arc<Director>, clients: usize) -> Self {
        let mut load = Self { gate: Arc::default(), held: Arc::default(), tasks: JoinSet::new() };
        for number in 0..clients {
            let worker = Worker {
                number,
                managed: number % 2 == 0,
                server: stack.server.clone(),
                facts: stack.facts.clone(),
                responder: stack.responder.clone(),
                director: Arc::clone(director),
                gate: Arc::clone(&load.gate),
                held: Arc::clone(&load.held),
            };
            load.tasks.spawn(worker.run());
        }
        load
    }

    /// Certificates since the last audit.
    #[must_use]
    pub fn issued(&self) -> usize {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).fresh.len()
    }

    /// Waits until every client has what it is working on, and holds them there.
    pub async fn pause(&self, patience: Duration) -> Option<OwnedRwLockWriteGuard<()>> {
        tokio::time::timeout(patience, Arc::clone(&self.gate).write_owned()).await.ok()
    }
}

struct Worker {
    number: usize,
    managed: bool,
    server: benches::connection::Server,
    facts: crate::demo::Facts,
    responder: benches::responder::Responder,
    director: Arc<Director>,
    gate: Arc<RwLock<()>>,
    held: Arc<Mutex<Held>>,
}

impl Worker {
    async fn run(self) {
        let mut count = 0_u64;
        loop {
            let life = if self.managed { MANAGED_ACCOUNT_LIFE } else { ACCOUNT_LIFE };
            let registered = {
                let _going = self.gate.read().await;
                self.register().await
            };
            let outcome = match registered {
                Ok(client) => self.use_up(client, &mut count, life).await,
                Err(error) => Err(error),
            };
            if let Err(error) = outcome {
                self.director.fault(format!("client {}: {error:#}", self.number));
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }

    async fn register(&self) -> anyhow::Result<Client> {
        if self.managed {
            let binding = (self.facts.eab_kid.as_str(), self.facts.eab_hmac_key.as_str());
            return Client::register(&self.server, &self.facts.eab_directory, Some(binding)).await;
        }
        let client = Client::register(&self.server, &self.facts.directory, None).await?;
        self.responder.add(&self.label(), client.thumbprint());
        Ok(client)
    }

    fn label(&self) -> String {
        format!("c{}", self.number)
    }

    async fn use_up(&self, mut client: Client, count: &mut u64, life: u64) -> anyhow::Result<()> {
        let relying = Relying::of(&self.facts)?;
        for _ in 0..life {
            let _going = self.gate.read().await;
            *count += 1;
            let domain = if self.managed { GRANTED } else { DOMAIN };
            let name = format!("{}-{count}.{domain}", self.label());
            let got = client.certificate(&[name]).await?;
            self.director.issued(std::mem::take(&mut client.retries));
            self.held().fresh.push(got.clone());
            match relying.ask(&got.serial).await? {
                None | Some(CertStatus::Good) => {}
                Some(said) => anyhow::bail!("OCSP says {said:?} of what was just issued"),
            }
            if count.is_multiple_of(REVOKED_EACH) {
                client.revoke(&got).await?;
                self.held().revoked.push(got.serial);
            }
        }
        Ok(())
    }

    fn held(&self) -> std::sync::MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
