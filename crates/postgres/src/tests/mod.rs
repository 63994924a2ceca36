//! What is PostgreSQL's own: roles, durability, restarts, plans, two at once.

use ca_store::Incarnation;
use testkit::{Cluster, ClusterSettings};

use crate::{Acme, Ca, Options};

/// A server of a test's own, with both schemas and a login for each role.
pub(crate) struct Server {
    pub(crate) cluster: Cluster,
}

impl Server {
    /// On a server whose commits reach no disk.
    pub(crate) async fn start() -> Self {
        Self::on(Cluster::start()).await
    }

    pub(crate) async fn start_with(settings: &ClusterSettings) -> Self {
        Self::on(Cluster::start_with(settings)).await
    }

    async fn on(cluster: Cluster) -> Self {
        let owner = Options::from_url(&cluster.owner_url()).unwrap();
        Ca::migrate(&owner).await.unwrap();
        Acme::migrate(&owner).await.unwrap();
        cluster.sql(
            "postgres",
            "CREATE ROLE signer_1 LOGIN IN ROLE chancery_signer; CREATE ROLE front_1 LOGIN IN ROLE chancery_front",
        );
        Self { cluster }
    }

    /// In the role of a signer; commits may be lost.
    pub(crate) fn signer(&self) -> Options {
        let mut options = Options::from_url(&self.cluster.url("postgres", "signer_1")).unwrap();
        options.accept_lost_commits = true;
        options
    }

    /// In the role of a front.
    pub(crate) fn front(&self) -> Options {
        Options::from_url(&self.cluster.url("postgres", "front_1")).unwrap()
    }
}

mod cluster;
mod durability;
mod plans;
mod roles;
mod tls;

fn incarnation(n: u8) -> Incarnation {
    Incarnation { id: [n; 16], node: format!("signer-{n}") }
}
