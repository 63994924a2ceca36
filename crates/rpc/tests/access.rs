//! Every RPC there is stands in a table, with exactly the roles that it is meant for.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test's own functions"
)]

use std::collections::{BTreeMap, BTreeSet};

use prost::Message;
use prost_types::FileDescriptorSet;
use rpc::{AccessTable, ENROLLMENT, Role, proto::DESCRIPTORS};

fn methods() -> BTreeSet<String> {
    let files = FileDescriptorSet::decode(DESCRIPTORS).unwrap().file;
    let services = files.iter().flat_map(|file| file.service.iter().map(move |service| (file, service)));
    services
        .flat_map(|(file, service)| {
            let path = move |method: &str| format!("/{}.{}/{method}", file.package(), service.name());
            service.method.iter().map(move |method| path(method.name()))
        })
        .collect()
}

/// Written down a second time, by service: a slip in the tables does not pass.
fn meant(path: &str) -> (&'static str, &'static [Role]) {
    match path.split('/').nth(1).unwrap() {
        "chancery.signer.v1.Authority" => ("signer", &[Role::Front]),
        "chancery.signer.v1.Membership" => {
            ("signer", &[Role::Front, Role::Validator, Role::Signer, Role::Status, Role::Operator])
        }
        "chancery.status.v1.Publication" | "chancery.status.v1.Responder" => ("signer", &[Role::Status]),
        "chancery.admin.v1.Admin" => ("signer", &[Role::Operator]),
        "chancery.signer.v1.Enrollment" => ("enrolment", &[]),
        "chancery.front.v1.Nonces" => ("front", &[Role::Front]),
        "chancery.validator.v1.Validator" => ("validator", &[Role::Front]),
        "chancery.validator.v1.Perspective" => ("validator", &[Role::Validator]),
        other => panic!("nobody decided who may call {other}"),
    }
}

#[test]
fn every_rpc_is_listed_for_exactly_its_roles_on_exactly_its_port() {
    let tables = BTreeMap::from([
        ("signer", AccessTable::signer()),
        ("front", AccessTable::front()),
        ("validator", AccessTable::validator()),
    ]);
    let methods = methods();
    assert!(methods.len() > 30, "the descriptors hold {} methods", methods.len());
    for path in &methods {
        let (port, roles) = meant(path);
        for (name, table) in &tables {
            let expected: BTreeSet<Role> = roles.iter().copied().filter(|_| *name == port).collect();
            let found: BTreeSet<Role> = table.roles(path).iter().copied().collect();
            assert_eq!(found, expected, "{path} on the {name}'s port");
        }
        assert_eq!(ENROLLMENT.contains(&path.as_str()), port == "enrolment", "{path}");
    }
}

#[test]
fn no_table_lists_what_does_not_exist() {
    let methods = methods();
    let tables = [
        rpc::AUTHORITY,
        rpc::MEMBERSHIP,
        rpc::PUBLICATION,
        rpc::RESPONDER,
        rpc::ADMIN,
        rpc::NONCES,
        rpc::VALIDATE,
        rpc::PERSPECTIVE,
    ];
    for rule in tables.into_iter().flatten() {
        assert!(methods.contains(rule.method), "{}", rule.method);
    }
    assert!(ENROLLMENT.iter().all(|path| methods.contains(*path)));
}
