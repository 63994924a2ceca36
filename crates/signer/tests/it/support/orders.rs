//! Orders whose names the validators have seen, and what becomes of them.

use std::sync::Arc;
use std::time::Duration;

use acme::receipt::{Outcome as Observation, Receipt};
use pki::Name;
use signer::authority::{IssueOrder, NameEvidence};
use signer::issue::{Issuance, Issued};
use signer::order::AuthorizedOrder;
use signer::{Failure, Reason};

use super::{Client, PERSPECTIVES, World, csr, reason};

impl World {
    /// What an honest perspective would have seen for a name.
    pub(crate) fn receipt(&self, client: &Client, name: &Name, evidence: &NameEvidence) -> Receipt {
        let now = self.now();
        Receipt {
            authorization: evidence.authorization,
            directory: client.directory.parse().unwrap(),
            account: client.account.unwrap(),
            account_url: client.account_url().parse().unwrap(),
            thumbprint: client.thumbprint(),
            name: name.clone(),
            method: acme::challenge::Method::Http01,
            requirement: acme::receipt::requirement(acme::challenge::Method::Http01, name),
            token: acme::id::token(&evidence.authorization),
            attempt: 1,
            run: acme::receipt::Run::from_bytes([1; 16]),
            perspective: PERSPECTIVES[0].parse().unwrap(),
            addresses: vec!["192.0.2.1".parse().unwrap()],
            caa: None,
            persisted: None,
            dnssec: true,
            started: now,
            finished: now,
            outcome: Observation::Valid,
        }
    }

    /// Signs a receipt as each of these perspectives (by place).
    pub(crate) fn sign_receipts(&self, receipt: &Receipt, perspectives: &[usize]) -> Vec<String> {
        let sign = |at: &usize| {
            let key = &self.validators[*at];
            key.sign(&Receipt { perspective: key.perspective().clone(), ..receipt.clone() }).unwrap()
        };
        perspectives.iter().map(sign).collect()
    }

    /// An order whose names were all seen by every perspective, ready to be finalized with a new key's CSR.
    pub(crate) async fn ready(&self, client: &Client, names: &[&str]) -> Ready {
        let new_order = client.new_order(names);
        self.ready_with(client, new_order).await
    }

    pub(crate) async fn ready_with(&self, client: &Client, new_order: Vec<u8>) -> Ready {
        let order = self.ca.authorize_order(&new_order).await.unwrap();
        let digest = acme::Jws::from_slice(&new_order).unwrap().digest();
        let evidence = order.names.iter().map(|name| {
            let mut evidence = NameEvidence {
                name: name.name.clone(),
                authorization: name.authorization,
                created_by: digest,
                receipts: Vec::new(),
                ancestor: None,
            };
            let receipt = self.receipt(client, &name.name, &evidence);
            evidence.receipts = self.sign_receipts(&receipt, &[0, 1, 2]);
            evidence
        });
        let evidence = evidence.collect();
        let names: Vec<String> = order.names.iter().map(|name| name.name.to_string()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        Ready { csr: csr(&names), new_order, order: Arc::new(order), evidence }
    }

    pub(crate) async fn ready_one(&self, client: &Client, name: &str) -> Ready {
        self.ready(client, &[name]).await
    }

    /// Issues, asking again for as long as it takes.
    pub(crate) async fn issue_patiently(&self, order: IssueOrder) -> Issued {
        loop {
            match self.ca.issue(order.clone()).await.unwrap() {
                Issuance::Issued(issued) => return issued,
                Issuance::Processing => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    /// Issues at once.
    pub(crate) async fn issue(&self, order: IssueOrder) -> Result<Issued, Failure> {
        match self.ca.issue(order).await? {
            Issuance::Issued(issued) => Ok(issued),
            Issuance::Processing => panic!("still processing"),
        }
    }

    /// The reason why an order is refused.
    pub(crate) async fn refusal(&self, order: IssueOrder) -> Reason {
        reason(self.ca.issue(order).await)
    }
}

/// An order ready to be finalized, in parts that a test can swap.
#[derive(Clone)]
pub(crate) struct Ready {
    pub(crate) new_order: Vec<u8>,
    pub(crate) order: Arc<AuthorizedOrder>,
    pub(crate) evidence: Vec<NameEvidence>,
    pub(crate) csr: Vec<u8>,
}

impl Ready {
    pub(crate) fn finalized_by(&self, client: &Client) -> IssueOrder {
        self.with_finalize(client.finalize(&self.order.id.to_string(), &self.csr))
    }

    pub(crate) fn with_finalize(&self, finalize: Vec<u8>) -> IssueOrder {
        IssueOrder {
            new_order_jws: self.new_order.clone().into(),
            finalize_jws: finalize.into(),
            authorizations: self.evidence.clone(),
        }
    }
}
