//! Buckets. The double checks signatures and conditions as S3 does (`support/bucket.rs`).

use http::Method;
use object_store::path::Path;
use object_store::{Attribute, ObjectStoreExt as _};
use pki::crl::{Crl, CrlScope};

use super::{Lists, Publisher, number_of, wait};
use crate::crls::Works;
use crate::support::World;
use crate::support::bucket::{ACCESS_KEY, BUCKET, DoubleBucket, Fault, SECRET_KEY, TRIAL};

impl DoubleBucket {
    /// The configuration of a place in it, with these further keys, in a folder that gets the key's files.
    fn section(&self, name: &str, folder: &std::path::Path, more: &str) -> String {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::write(folder.join("access-key"), format!("{ACCESS_KEY}\n")).unwrap();
        let secret = folder.join("secret-key");
        std::fs::write(&secret, format!("{SECRET_KEY}\n")).unwrap();
        std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
        format!(
            "[[publish]]\nname = {name:?}\nretry_max_seconds = 1\n{more}\n[publish.s3]\nbucket = {BUCKET:?}\n\
             region = \"us-east-1\"\nendpoint = {:?}\nprefix = \"pki/v1/\"\nallow_http = true\n\
             access_key_file = \"access-key\"\nsecret_key_file = \"secret-key\"\n",
            self.endpoint,
        )
    }

    fn at(&self, path: &str) -> Option<Vec<u8>> {
        self.content(&key(path))
    }

    async fn is_at(&self, path: &str, content: &[u8]) {
        let there = || self.at(path).map(|there| format!("{} octets", there.len()));
        wait(|| self.at(path).as_deref() == Some(content), || format!("{path}: {:?}", there())).await;
    }
}

fn key(path: &str) -> String {
    format!("pki/v1/{path}")
}

#[tokio::test]
async fn crls_and_certificates_arrive_with_their_attributes() {
    let world = World::start().await;
    let bucket = DoubleBucket::start().await;
    let works = Works::start(&world);
    let sections = bucket.section("cdn", world.folder.path(), "");
    let publisher = Publisher::of(&works.objects, world.ca.registry(), world.folder.path(), &sections);
    let (issued, shard) = world.some_certificate().await;
    let crl = crate::crls::path(&world, shard);
    let first = works.reaches(&world, shard, 2).await;
    bucket.is_at(&crl, &first).await;
    bucket.is_at("issuer/tls-1.cer", world.authorities.issuer.der()).await;
    bucket.is_at("issuer/root.cer", world.authorities.root.der()).await;
    publisher.is_up("cdn").await;

    // By event: the timer comes every five minutes.
    world.withdraw(issued.serial).await;
    world.later(0);
    let second = works.reaches(&world, shard, 3).await;
    bucket.is_at(&crl, &second).await;
    // It is there before the bucket has noted that it was written.
    crate::crls::wait(|| bucket.written(&key(&crl)).len() > 1).await;
    assert_eq!(bucket.written(&key(&crl)), [first, second]);

    for (path, kind, control) in [
        (crl.as_str(), "application/pkix-crl", "public, max-age=300, no-transform"),
        ("issuer/root.cer", "application/pkix-cert", "public, max-age=86400, no-transform"),
    ] {
        let object = bucket.somebody().get(&Path::from(key(path))).await.unwrap();
        let attribute = |name: &Attribute| object.attributes.get(name).unwrap().to_string();
        assert_eq!(attribute(&Attribute::ContentType), kind);
        assert_eq!(attribute(&Attribute::CacheControl), control);
    }
    publisher.stop().await;
    works.stop().await;
}

#[tokio::test]
async fn only_what_is_configured_is_published() {
    let lists = Lists::make().await;
    let bucket = DoubleBucket::start().await;
    let sections = bucket.section("cdn", lists.folder.path(), "objects = [\"crl\"]");
    let publisher = Publisher::at(1, &lists, &sections);
    publisher.is_up("cdn").await;
    let expected = vec![key(TRIAL), key(&lists.path())];
    let mut keys = bucket.keys();
    keys.sort();
    assert_eq!(keys, expected);
    publisher.stop().await;
}

/// Errors, silence, and answers that end in the middle: tried again until it is there, and said meanwhile.
#[tokio::test]
async fn a_store_that_fails_is_tried_again() {
    let lists = Lists::make().await;
    let bucket = DoubleBucket::start().await;
    let path = lists.path();
    let sections = bucket.section("cdn", lists.folder.path(), "objects = [\"crl\"]\ntimeout_seconds = 1");
    bucket.fail(
        &Method::GET,
        &[Fault::Status(503), Fault::Status(500), Fault::Late(std::time::Duration::from_secs(5))],
    );
    bucket.fail(&Method::PUT, &[Fault::Status(500), Fault::Status(503)]);
    let publisher = Publisher::at(1, &lists, &sections);
    publisher.says("cdn", "503").await;
    let said = publisher.notice("cdn");
    assert!(said.contains("SlowDown") && said.contains(&path) && !said.contains('<'), "{said}");
    publisher.is_up("cdn").await;
    assert_eq!(bucket.faults_left(), 0);
    assert_eq!(bucket.written(&key(&path)), [lists.crl(1)]);
    publisher.stop().await;

    // What is there cannot be read to its end: it is not taken for something else.
    bucket.fail(&Method::GET, &[Fault::CutBody, Fault::CutBody]);
    let publisher = Publisher::at(2, &lists, &sections);
    publisher.is_up("cdn").await;
    assert_eq!(bucket.faults_left(), 0);
    assert_eq!(bucket.written(&key(&path)), [lists.crl(1), lists.crl(2)]);
    publisher.stop().await;
}

/// The connection is cut when the object is there already: the next look finds it, and it is not written again.
#[tokio::test]
async fn a_put_of_unknown_outcome_is_looked_up() {
    let lists = Lists::make().await;
    let bucket = DoubleBucket::start().await;
    let path = lists.path();
    let sections = bucket.section("cdn", lists.folder.path(), "objects = [\"crl\"]");
    let publisher = Publisher::at(1, &lists, &sections);
    publisher.is_up("cdn").await;
    publisher.stop().await;
    bucket.fail(&Method::PUT, &[Fault::CutAfter]);
    let publisher = Publisher::at(2, &lists, &sections);
    bucket.is_at(&path, &lists.crl(2)).await;
    publisher.is_up("cdn").await;
    assert_eq!(bucket.faults_left(), 0);
    assert_eq!(bucket.written(&key(&path)), [lists.crl(1), lists.crl(2)]);
    publisher.stop().await;
}

/// A slow signer has looked, and comes to its put when a faster one has published something newer.
#[tokio::test]
async fn a_late_signer_puts_no_older_crl_over_a_newer_one() {
    let lists = Lists::make().await;
    let path = lists.path();
    for there in [None, Some(1)] {
        let bucket = DoubleBucket::start().await;
        if let Some(number) = there {
            bucket.overwrite(&key(&path), &lists.crl(number)).await;
        }
        bucket.hold_puts();
        let sections = bucket.section("cdn", lists.folder.path(), "objects = [\"crl\"]");
        let late = Publisher::at(2, &lists, &sections);
        wait(|| bucket.held_puts() == 1, || "no put".to_owned()).await;
        bucket.overwrite(&key(&path), &lists.crl(3)).await;
        bucket.release_puts();
        late.is_up("cdn").await;
        assert_eq!(number_of(&bucket.at(&path).unwrap()), 3);
        late.stop().await;

        // And one that comes later still.
        let later = Publisher::at(2, &lists, &sections);
        later.is_up("cdn").await;
        assert_eq!(number_of(&bucket.at(&path).unwrap()), 3);
        later.stop().await;
    }
}

#[tokio::test]
async fn what_others_did_to_an_object_is_mended() {
    let lists = Lists::make().await;
    let bucket = DoubleBucket::start().await;
    let path = lists.path();
    let sections = bucket.section("cdn", lists.folder.path(), "compare_seconds = 1");
    let publisher = Publisher::at(5, &lists, &sections);
    publisher.is_up("cdn").await;
    let another = Lists::make().await;
    let mut forged = lists.crl(9);
    *forged.last_mut().unwrap() ^= 1;
    let impostors = [
        lists.crl(4),
        forged,
        // Genuine, for another place; of another CA; of none at all.
        lists.authorities.root_crl(9, 9, CrlScope::Shard(3)),
        another.crl(9),
        b"not found".to_vec(),
        Vec::new(),
    ];
    for impostor in impostors {
        bucket.overwrite(&key(&path), &impostor).await;
        bucket.is_at(&path, &lists.crl(5)).await;
    }
    for gone in [path.as_str(), "issuer/root.cer"] {
        bucket.delete(&key(gone)).await;
        wait(|| bucket.at(gone).is_some(), || gone.to_owned()).await;
    }
    bucket.is_at(&path, &lists.crl(5)).await;
    bucket.overwrite(&key("issuer/root.cer"), another.authorities.root.der()).await;
    bucket.is_at("issuer/root.cer", lists.authorities.root.der()).await;
    // Newer by its number, older by its date: nobody knows what that is.
    let odd = lists.authorities.root_crl(6, 1, CrlScope::Complete);
    bucket.overwrite(&key(&path), &odd).await;
    publisher.says("cdn", "left alone").await;
    assert_eq!(bucket.at(&path).unwrap(), odd);
    bucket.delete(&key(&path)).await;
    bucket.is_at(&path, &lists.crl(5)).await;
    publisher.is_up("cdn").await;
    publisher.stop().await;
}

#[tokio::test]
async fn what_is_too_long_to_be_read_is_left_alone() {
    let lists = Lists::make().await;
    let (bucket, path) = (DoubleBucket::start().await, lists.path());
    let section = |limit: usize| {
        let more = format!("objects = [\"crl\"]\ncompare_seconds = 1\nread_limit_octets = {limit}");
        bucket.section("cdn", lists.folder.path(), &more)
    };
    let limit = lists.crl(5).len();
    let newer = lists.longer();
    let too_long = format!("{} octets, more than read_limit_octets ({limit})", newer.len());
    bucket.overwrite(&key(&path), &newer).await;
    let publisher = Publisher::at(5, &lists, &section(limit));
    publisher.says("cdn", &too_long).await;
    assert_eq!(bucket.at(&path).unwrap(), newer);
    // Even one that was its own a moment ago.
    bucket.delete(&key(&path)).await;
    bucket.is_at(&path, &lists.crl(5)).await;
    publisher.is_up("cdn").await;
    bucket.overwrite(&key(&path), &newer).await;
    publisher.says("cdn", &too_long).await;
    assert_eq!(bucket.at(&path).unwrap(), newer);
    publisher.stop().await;
    // As it says.
    let publisher = Publisher::at(5, &lists, &section(newer.len()));
    publisher.is_up("cdn").await;
    assert_eq!(bucket.at(&path).unwrap(), newer);
    publisher.stop().await;
    // What would be left alone for ever is not put there.
    for there in [None, Some(b"not found".to_vec())] {
        match &there {
            None => bucket.delete(&key(&path)).await,
            Some(other) => bucket.overwrite(&key(&path), other).await,
        }
        let publisher = Publisher::at(5, &lists, &section(limit - 1));
        publisher.says("cdn", &format!("{limit} octets, more than read_limit_octets ({})", limit - 1)).await;
        publisher.stop().await;
        assert_eq!(bucket.at(&path), there);
    }
}

/// By a newer version of a signer, or by the root's ceremony.
#[tokio::test]
async fn a_newer_crl_of_another_shape_is_not_replaced() {
    let lists = Lists::make().await;
    let (bucket, path) = (DoubleBucket::start().await, lists.path());
    let sections = bucket.section("cdn", lists.folder.path(), "objects = [\"crl\"]");
    let made = |der: &[u8], from: &[u8], to: &[u8]| {
        let tbs = Crl::from_der(der).unwrap().tbs_bytes().to_vec();
        let at = tbs.windows(from.len()).position(|window| window == from).unwrap();
        lists.authorities.root_signed(&[&tbs[..at], to, &tbs[at + to.len()..]].concat())
    };
    // A list of CAs' certificates that says where it lies, elsewhere: onlyContainsCACerts for onlyContainsUserCerts.
    let shard = lists.authorities.root_crl(9, 9, CrlScope::Shard(3));
    let with_place = made(&shard, &[0x81, 1, 0xff], &[0x82, 1, 0xff]);
    assert_eq!(number_of(&with_place), 9);
    bucket.overwrite(&key(&path), &with_place).await;
    let publisher = Publisher::at(5, &lists, &sections);
    publisher.is_up("cdn").await;
    assert_eq!(bucket.at(&path).unwrap(), with_place);
    publisher.stop().await;
    // Its number stands in an extension that is not known here.
    let unreadable = made(&lists.crl(9), &[0x55, 0x1d, 20], &[0x55, 0x1d, 99]);
    bucket.overwrite(&key(&path), &unreadable).await;
    let publisher = Publisher::at(5, &lists, &sections);
    publisher.says("cdn", "signed by the issuer's key, and this version cannot read it").await;
    assert_eq!(bucket.at(&path).unwrap(), unreadable);
    publisher.stop().await;
}

/// Two signers, each with what it makes or takes up, and a third that is far behind and keeps starting.
#[tokio::test]
async fn signers_that_race_never_go_back() {
    let world = World::start().await;
    let bucket = DoubleBucket::start().await;
    let folder = world.folder.path();
    let sections = bucket.section("cdn", folder, "compare_seconds = 1");
    let (issued, shard) = world.some_certificate().await;
    let frozen = Works::start_in(&world, folder.join("crl-3"));
    frozen.reaches(&world, shard, 2).await;
    let behind = frozen.objects.clone();
    frozen.stop().await;
    let works = [Works::start(&world), Works::start_in(&world, folder.join("crl-2"))];
    let publishers =
        works.each_ref().map(|works| Publisher::of(&works.objects, world.ca.registry(), folder, &sections));
    world.withdraw(issued.serial).await;
    let path = crate::crls::path(&world, shard);
    let last = 12;
    for number in 3..=last {
        let straggler = Publisher::of(&behind, world.ca.registry(), folder, &sections);
        world.later(1);
        world.nudge(shard);
        let der = works[number as usize % 2].reaches(&world, shard, number).await;
        // Both the faster one's and the slower one's puts go on while the next is made, but for the last.
        if number == last {
            wait(|| bucket.at(&path).is_some_and(|there| number_of(&there) >= number_of(&der)), String::new)
                .await;
        }
        straggler.stop().await;
    }
    for publisher in publishers {
        publisher.is_up("cdn").await;
        publisher.stop().await;
    }
    for key in bucket.keys().iter().filter(|key| key.ends_with(".crl")) {
        let numbers: Vec<_> = bucket.written(key).iter().map(|crl| number_of(crl)).collect();
        assert!(numbers.is_sorted_by(|before, after| before < after), "{key}: {numbers:?}");
    }
    assert!(number_of(&bucket.at(&path).unwrap()) >= last);
    for works in works {
        works.stop().await;
    }
}

#[tokio::test]
async fn a_store_that_ignores_conditions_gets_nothing() {
    let lists = Lists::make().await;
    let bucket = DoubleBucket::that_ignores_conditions().await;
    let sections = bucket.section("cdn", lists.folder.path(), "");
    let publisher = Publisher::at(1, &lists, &sections);
    publisher.says("cdn", "ignores If-None-Match").await;
    assert_eq!(bucket.keys(), [key(TRIAL)]);
    publisher.stop().await;
}

/// A place that hangs holds up neither another one nor what is made.
#[tokio::test]
async fn a_place_that_hangs_holds_up_no_other() {
    let world = World::start().await;
    let (hanging, healthy) = (DoubleBucket::start().await, DoubleBucket::start().await);
    hanging.hold_puts();
    let folder = world.folder.path();
    let sections = format!("{}{}", hanging.section("a", folder, ""), healthy.section("b", folder, ""));
    let works = Works::start(&world);
    let publisher = Publisher::of(&works.objects, world.ca.registry(), folder, &sections);
    wait(|| hanging.held_puts() > 0, String::new).await;
    for number in 2..5 {
        let der = works.reaches(&world, 0, number).await;
        healthy.is_at(&crate::crls::path(&world, 0), &der).await;
        world.later(1);
        world.nudge(0);
    }
    assert_eq!(hanging.at(&crate::crls::path(&world, 0)), None);
    hanging.release_puts();
    let der = works.reaches(&world, 0, 4).await;
    wait(
        || {
            hanging
                .at(&crate::crls::path(&world, 0))
                .is_some_and(|there| number_of(&there) >= number_of(&der))
        },
        String::new,
    )
    .await;
    publisher.stop().await;
    works.stop().await;
}

/// A wrong key is reported without saying it, and taken when it is mended, without a restart.
#[tokio::test]
async fn a_wrong_key_is_reported_and_said_nowhere() {
    let lists = Lists::make().await;
    let bucket = DoubleBucket::start().await;
    let sections = bucket.section("cdn", lists.folder.path(), "");
    let file = lists.folder.path().join("secret-key");
    std::fs::write(&file, "a-secret-that-is-none").unwrap();
    let publisher = Publisher::at(1, &lists, &sections);
    publisher.says("cdn", "SignatureDoesNotMatch").await;
    let said = format!("{} {:?}", publisher.notice("cdn"), super::parse(lists.folder.path(), &sections));
    assert!(!said.contains("a-secret") && !said.contains(SECRET_KEY), "{said}");
    std::fs::write(&file, SECRET_KEY).unwrap();
    publisher.is_up("cdn").await;
    publisher.stop().await;
}

/// Objects that are as they were are neither written nor, by one who has seen them, read again.
#[tokio::test]
async fn a_signer_that_starts_again_writes_nothing() {
    let lists = Lists::make().await;
    let bucket = DoubleBucket::start().await;
    let sections = bucket.section("cdn", lists.folder.path(), "compare_seconds = 1");
    for _ in 0..2 {
        let publisher = Publisher::at(3, &lists, &sections);
        publisher.is_up("cdn").await;
        let before = bucket.unchanged();
        wait(|| bucket.unchanged() >= before + 3, String::new).await;
        publisher.stop().await;
    }
    for path in [lists.path().as_str(), "issuer/root.cer", "issuer/tls-1.cer"] {
        assert_eq!(bucket.written(&key(path)).len(), 1, "{path}");
    }
}
