//! Publication to folders and buckets: what arrives, what replaces what, and what happens when a place fails.

mod folder;
mod s3;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pki::crl::{Crl, CrlScope};
use runtime::config::Version;
use runtime::{Lifecycle, SystemClock};
use serde::Deserialize;
use signer::publication::Objects;
use signer::publish::{self, PublishSection};

use crate::support::World;
use crate::support::authorities::Authorities;

/// A signer's publishing part, with a root's CRL of some number as its one CRL.
struct Publisher {
    lifecycle: Lifecycle,
}

impl Publisher {
    /// Publishes what these objects are and become.
    fn of(objects: &Objects, registry: &signer::Registry, folder: &Path, sections: &str) -> Self {
        let lifecycle = Lifecycle::new(Arc::new(SystemClock));
        publish::start(&parse(folder, sections), objects, registry, &lifecycle);
        Self { lifecycle }
    }

    /// Has this CRL of the root at hand, and stays at it.
    fn at(number: u64, lists: &Lists, sections: &str) -> Self {
        let registry = lists.registry(number);
        Self::of(&Objects::of(&registry), &registry, lists.folder.path(), sections)
    }

    /// What its health says of a place.
    fn notice(&self, name: &str) -> String {
        let report = serde_json::to_value(self.lifecycle.readiness().report(false)).unwrap();
        let entry = &report["dependencies"][format!("publish {name}")];
        assert_eq!(entry["required"], false, "a place that is away makes no signer unready");
        match entry["state"].as_str().unwrap() {
            "down" => entry["detail"].as_str().unwrap().to_owned(),
            state => state.to_owned(),
        }
    }

    async fn is_up(&self, name: &str) {
        wait(|| self.notice(name) == "up", || self.notice(name)).await;
    }

    async fn says(&self, name: &str, part: &str) {
        wait(|| self.notice(name).contains(part), || self.notice(name)).await;
    }

    async fn stop(self) {
        self.lifecycle.drain();
        self.lifecycle.finished().await.unwrap();
    }
}

#[derive(Deserialize)]
struct Only {
    #[serde(rename = "version")]
    _version: Version,
    publish: Vec<PublishSection>,
}

fn parse(folder: &Path, sections: &str) -> Vec<PublishSection> {
    let text = format!("version = 1\n{sections}");
    runtime::config::parse::<Only>(&text, &folder.join("signer.toml")).unwrap().publish
}

/// A CA, and CRLs of its root with numbers from 1 on, each a second younger than the one before.
struct Lists {
    folder: tempfile::TempDir,
    authorities: Authorities,
    made: parking_lot::Mutex<BTreeMap<u64, Vec<u8>>>,
}

impl Lists {
    async fn make() -> Self {
        let World { folder, authorities, .. } = World::start().await;
        let policy = folder.path().join("policy.toml");
        let text = std::fs::read_to_string(&policy).unwrap();
        let text =
            text.replace("certificate = \"root.pem\"", "certificate = \"root.pem\"\ncrl = \"root.crl\"");
        std::fs::write(&policy, text).unwrap();
        Self { folder, authorities, made: parking_lot::Mutex::default() }
    }

    fn crl(&self, number: u64) -> Vec<u8> {
        let make = || self.authorities.root_crl(number, number, CrlScope::Complete);
        self.made.lock().entry(number).or_insert_with(make).clone()
    }

    /// Newer than the first hundred, and longer.
    fn longer(&self) -> Vec<u8> {
        let longer = self.authorities.root_crl(1 << 60, 100, CrlScope::Complete);
        assert!(longer.len() > self.crl(5).len());
        longer
    }

    /// Of a signer whose policy names the CRL of that number.
    fn registry(&self, number: u64) -> signer::Registry {
        std::fs::write(self.folder.path().join("root.crl"), self.crl(number)).unwrap();
        crate::support::registry(self.folder.path())
    }

    fn path(&self) -> String {
        let key_id = self.authorities.root.key_id().unwrap();
        format!("crl/{}/0.crl", hex::encode(key_id))
    }
}

fn number_of(crl: &[u8]) -> u64 {
    Crl::from_der(crl).unwrap().number()
}

async fn wait(mut done: impl FnMut() -> bool, shown: impl Fn() -> String) {
    for _ in 0..1500 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("it never came: {}", shown());
}
