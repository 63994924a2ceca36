//! Rules about the tree itself: who may depend on whom, who owns which third-party crate, how large a file may grow, and
//! that the documents speak of things that exist.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use cargo_metadata::{DependencyKind, MetadataCommand, Package};

/// DESIGN §7, "may use". `*`: every crate but the programs.
const MAY_USE: &[(&str, &[&str])] = &[
    ("pki", &[]),
    ("acme", &["pki"]),
    ("hsm", &["pki"]),
    ("ca-store", &["pki", "acme"]),
    ("acme-store", &["pki", "acme"]),
    ("sqlite", &["ca-store", "acme-store"]),
    ("postgres", &["ca-store", "acme-store"]),
    ("rpc", &["pki", "acme"]),
    ("runtime", &["rpc"]),
    ("validator", &["pki", "acme", "rpc", "runtime"]),
    ("signer", &["pki", "acme", "hsm", "ca-store", "rpc", "runtime"]),
    ("front", &["pki", "acme", "acme-store", "rpc", "runtime"]),
    ("status", &["pki", "rpc", "runtime"]),
    ("chancery", &["*"]),
    ("chancery-front", &["front", "runtime", "sqlite", "postgres"]),
    ("chancery-validator", &["validator", "runtime"]),
    ("chancery-status", &["status", "runtime"]),
    ("testkit", &["*"]),
    ("e2e", &["*", "testkit"]),
    ("benches", &["*", "testkit"]),
    ("fuzz", &["pki", "acme", "validator"]),
];

/// Third-party crates with few owners.
const OWNERS: &[(&str, &[&str])] = &[
    ("cryptoki", &["hsm"]),
    ("cryptoki-sys", &["hsm"]),
    // The crash tests audit by SQL of their own.
    ("sqlx", &["sqlite", "postgres", "e2e", "benches"]),
    // The demo's management calls.
    ("axum", &["front", "status", "runtime", "testkit", "chancery"]),
    ("josekit", &["acme"]),
    ("hickory-resolver", &["validator"]),
    ("libfuzzer-sys", &["fuzz"]),
    ("arbitrary", &["fuzz"]),
    ("object_store", &["signer"]),
];

const PROGRAMS: &[&str] = &["chancery", "chancery-front", "chancery-validator", "chancery-status"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn packages() -> Vec<Package> {
    MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .no_deps()
        .other_options(vec!["--offline".into()])
        .exec()
        .expect("cargo metadata")
        .packages
}

#[test]
fn crates_depend_only_on_what_the_table_allows() {
    let packages = packages();
    let ours: BTreeSet<String> = packages.iter().map(|p| p.name.to_string()).collect();
    let table: BTreeMap<_, _> = MAY_USE.iter().copied().collect();
    let mut faults = Vec::new();
    for package in &packages {
        let Some(allowed) = table.get(package.name.as_str()) else {
            faults.push(format!("{} is not in the table: more crates only by an ADR", package.name));
            continue;
        };
        for dependency in &package.dependencies {
            let name = dependency.name.as_str();
            if !ours.contains(name) || dependency.kind == DependencyKind::Development {
                continue;
            }
            let any = allowed.contains(&"*") && !PROGRAMS.contains(&name) && name != "testkit";
            if !any && !allowed.contains(&name) {
                faults.push(format!("{} may not use {name}", package.name));
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn third_party_crates_keep_their_owners() {
    let owners: BTreeMap<_, _> = OWNERS.iter().copied().collect();
    let mut faults = Vec::new();
    for package in packages() {
        for dependency in &package.dependencies {
            if dependency.kind == DependencyKind::Development {
                continue;
            }
            if let Some(allowed) = owners.get(dependency.name.as_str())
                && !allowed.contains(&package.name.as_str())
            {
                faults.push(format!("{} may not use {}", package.name, dependency.name));
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn exposed_programs_link_no_pkcs11() {
    for program in ["chancery-front", "chancery-validator", "chancery-status"] {
        let output = std::process::Command::new(env!("CARGO"))
            .args(["tree", "--offline", "--locked", "-e", "normal", "--prefix", "none", "-p", program])
            .current_dir(root())
            .output()
            .expect("cargo tree");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let tree = String::from_utf8_lossy(&output.stdout);
        for banned in ["cryptoki", "libloading", "hsm v", "signer v"] {
            assert!(!tree.lines().any(|line| line.starts_with(banned)), "{program} links {banned}");
        }
    }
}

#[test]
fn no_file_grows_past_its_limit() {
    let mut faults = Vec::new();
    for file in tracked(&[".rs"]) {
        let text = std::fs::read_to_string(root().join(&file)).unwrap();
        let code =
            text.lines().position(|line| line.trim() == "#[cfg(test)]").unwrap_or(text.lines().count());
        if code > 800 && !file.contains("/tests/") {
            faults.push(format!("{file}: {code} lines without tests"));
        }
        if file.ends_with("/main.rs") && text.lines().count() >= 60 {
            faults.push(format!("{file}: main.rs stays under 60 lines"));
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

/// Words in back quotes that look like a path of this tree, and targets of relative links, must exist.
#[test]
fn documents_name_only_what_exists() {
    let mut faults = Vec::new();
    let top: BTreeSet<String> = std::fs::read_dir(root())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    for file in tracked(&[".md"]) {
        let text = std::fs::read_to_string(root().join(&file)).unwrap();
        let folder = root().join(&file).parent().unwrap().to_path_buf();
        for quoted in text.split('`').skip(1).step_by(2) {
            let word = quoted.trim_end_matches('/');
            let first = word.split('/').next().unwrap_or_default();
            let looks_like_path = word.contains('/')
                && top.contains(first)
                && !word.contains(|c: char| c.is_whitespace() || "<>$*{}…".contains(c))
                && first != "target";
            if looks_like_path && !root().join(word).exists() {
                faults.push(format!("{file}: `{word}`"));
            }
        }
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let path = link.split('#').next().unwrap_or_default();
            if !path.is_empty() && !path.contains("://") && !folder.join(path).exists() {
                faults.push(format!("{file}: link to {path}"));
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

/// The table of where they are, and the table of what came of kills there.
#[test]
fn every_failpoint_stands_in_both_tables_of_the_chaos_document() {
    let text = std::fs::read_to_string(root().join("docs/chaos.md")).unwrap();
    let section = |title: &str| {
        let after = text.split_once(&format!("\n## {title}\n")).unwrap_or_else(|| panic!("no {title}")).1;
        let rows = after.split("\n## ").next().unwrap().lines().filter(|line| line.starts_with('|'));
        rows.flat_map(|row| row.split('`').skip(1).step_by(2)).map(str::to_owned).collect::<BTreeSet<_>>()
    };
    let (listed, kills) = (section("Failpoints"), section("The kill table"));
    for name in e2e::chaos::points::POINTS.iter().map(|point| point.name) {
        assert!(listed.contains(name), "docs/chaos.md, Failpoints: {name} is missing");
        assert!(kills.contains(name), "docs/chaos.md, The kill table: {name} is missing");
    }
}

#[test]
fn protos_are_the_only_place_for_rpc_definitions() {
    let strays: Vec<_> =
        tracked(&[".proto"]).into_iter().filter(|f| !f.starts_with("proto/chancery/")).collect();
    assert!(strays.is_empty(), "{strays:?}");
}

#[test]
fn nothing_carries_a_path_of_a_developers_machine() {
    let mut faults = Vec::new();
    let needles = ["/wo".to_owned() + "rk/", " /ro".to_owned() + "ot/", "\"/ro".to_owned() + "ot/"];
    for file in tracked(&["rs", "md", "toml", "proto", "sh", "Makefile", "sql", "json"]) {
        let text = std::fs::read_to_string(root().join(&file)).unwrap_or_default();
        for needle in &needles {
            if text.contains(needle.as_str()) {
                faults.push(format!("{file}: {needle}"));
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

fn tracked(endings: &[&str]) -> Vec<String> {
    let output = std::process::Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .expect("git ls-files");
    assert!(output.status.success(), "this test needs a git checkout");
    String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .filter(|file| endings.iter().any(|ending| file.ends_with(ending)) && root().join(file).exists())
        .map(str::to_owned)
        .collect()
}
