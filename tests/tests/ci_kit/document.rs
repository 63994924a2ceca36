//! docs/ci.md and the container file say what is there, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use e2e::Demo;
use e2e::program::{ours, root, succeed};

use crate::support::curl;

fn read(file: &str) -> String {
    std::fs::read_to_string(root().join(file)).unwrap()
}

/// `chancery demo --help`, with what it hides.
fn help() -> String {
    let output = succeed(Command::new(ours("chancery")).args(["demo", "--help"]));
    String::from_utf8(output.stdout).unwrap()
}

/// The flags in a text.
fn flags(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| c.is_whitespace() || "\"`,()[]=".contains(c));
    words.filter(|word| word.starts_with("--") && word.len() > 2).map(str::to_owned).collect()
}

/// The flags of a help text, each with what is said of it.
fn entries(help: &str) -> BTreeMap<String, String> {
    let mut found: Vec<(String, String)> = Vec::new();
    for line in help.lines() {
        match line.strip_prefix("      --") {
            Some(rest) => {
                let flag = rest.split(' ').next().unwrap();
                found.push((format!("--{flag}"), line.to_owned()));
            }
            // It is broken into lines anywhere.
            None => {
                if let Some((_, said)) = found.last_mut() {
                    *said = format!("{said} {}", line.trim());
                }
            }
        }
    }
    found.into_iter().collect()
}

/// Flags behind `chancery demo`, up to the end of the command.
fn flags_of_commands(text: &str) -> BTreeSet<String> {
    let commands = text.split("chancery demo").skip(1);
    commands.flat_map(|rest| flags(rest.split(['\n', '>', '#', '`', '&']).next().unwrap())).collect()
}

#[test]
fn the_settings_are_those_of_the_program() {
    let (text, help) = (read("docs/ci.md"), help());
    let known = flags(&help);
    let named = flags_of_commands(&text);
    assert!(named.contains("--movable-clock"), "{named:?}");
    assert_eq!(named.difference(&known).collect::<Vec<_>>(), Vec::<&String>::new());
    // The table has every flag for tests of clients, and its variables.
    let table = text.split_once("\n## Settings\n").unwrap().1.split("\n## ").next().unwrap();
    let rows: Vec<&str> = table.lines().filter(|line| line.starts_with("| `--")).collect();
    let in_table: BTreeSet<String> = rows.iter().flat_map(|row| flags(row)).collect();
    let section = help.split_once("Testing clients:").expect("the flags' heading").1;
    let missing: Vec<_> =
        entries(section).into_keys().filter(|flag| !in_table.contains(flag) && flag != "--pebble").collect();
    assert!(missing.is_empty(), "docs/ci.md, Settings: {missing:?} are missing");
    let entries = entries(&help);
    for row in rows {
        let mut cells = row.split('|').map(|cell| cell.trim().trim_matches('`')).skip(1);
        let (flag, variable) = (cells.next().unwrap(), cells.next().unwrap());
        let entry = entries.get(flag).unwrap_or_else(|| panic!("{flag} is not in --help"));
        let wanted = if variable.is_empty() { "[env: ".to_owned() } else { format!("[env: {variable}=") };
        assert_eq!(entry.contains(&wanted), !variable.is_empty(), "{flag}: {entry}");
    }
    // Every variable that the document speaks of is Pebble's or ours.
    for variable in text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
        if variable.starts_with("CHANCERY_DEMO_") {
            assert!(help.contains(variable), "{variable}");
        }
    }
}

#[test]
fn every_row_that_names_a_test_has_it() {
    let text = read("docs/ci.md");
    let tests: String = ["calls", "clock", "faults", "document"]
        .map(|name| read(&format!("tests/tests/ci_kit/{name}.rs")))
        .concat();
    let table = text.split_once("\n## What is the same").unwrap().1.split("\n## ").next().unwrap();
    let mut named = 0;
    for row in table.lines().filter(|line| line.starts_with("| ") && !line.contains("---")).skip(1) {
        let cell = row.trim_end_matches('|').rsplit('|').next().unwrap().trim();
        for name in cell.split('`').skip(1).step_by(2) {
            assert!(tests.contains(&format!("fn {name}(")), "docs/ci.md names a test {name}");
            named += 1;
        }
    }
    assert!(named > 10);
}

/// What `--server-name` says stands in URLs and in the certificate; another host gets the canonical URLs.
#[test]
fn a_server_name_is_served_and_others_are_not_lied_to() {
    let demo = Demo::start_as_pebble(&["--server-name", "pebble", "--server-name", "ca.test:443"]);
    let (host, _) = demo.facts.directory.strip_prefix("https://").unwrap().split_once('/').unwrap();
    let port = host.rsplit(':').next().unwrap();
    for (name, url_host) in [("pebble", format!("pebble:{port}")), ("ca.test", "ca.test".to_owned())] {
        let resolve = format!("{name}:{port}:127.0.0.1");
        let header = format!("Host: {url_host}");
        let url = format!("https://{name}:{port}/dir");
        let directory = curl(&demo, &["--resolve", &resolve, "--header", &header, &url]).ok();
        let new_order = directory["newOrder"].as_str().unwrap();
        assert!(new_order.starts_with(&format!("https://{url_host}")), "{new_order}");
    }
    let other = curl(&demo, &["--header", "Host: elsewhere.test", &demo.facts.directory]).ok();
    assert!(other["newOrder"].as_str().unwrap().starts_with(&format!("https://{host}/")), "{other}");
}

/// The container file cannot be built here. What of it can be checked is.
#[test]
fn the_container_file_copies_installs_and_runs_what_there_is() {
    let text = read("deploy/Containerfile").replace("\\\n", " ");
    let lines = || text.lines().filter(|line| !line.starts_with('#'));
    // What it copies of the tree is there, and is all that the workspace needs.
    let copies: Vec<&str> = lines()
        .filter_map(|line| line.strip_prefix("COPY "))
        .filter(|line| !line.starts_with("--from"))
        .collect();
    let sources: BTreeSet<&str> = copies
        .iter()
        .flat_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            words[..words.len() - 1].to_vec()
        })
        .collect();
    for source in &sources {
        assert!(root().join(source).exists(), "{source} is not in the tree");
    }
    let manifest = read("Cargo.toml");
    let members = manifest.split_once("members = [").unwrap().1.split(']').next().unwrap();
    for member in members.split(',').map(|member| member.trim().trim_matches('"').trim_end_matches("/*")) {
        assert!(sources.contains(member), "the workspace's {member} is not copied");
    }
    for needed in ["Cargo.toml", "Cargo.lock", "proto", ".cargo"] {
        assert!(sources.contains(needed), "{needed} is not copied");
    }
    // The packages are those of the setup's list for the demo.
    let setup = read(".ci/setup");
    let list = setup.split_once("demo_needs='\n").unwrap().1.split("\n'").next().unwrap();
    let known: BTreeSet<&str> = list.lines().filter_map(|line| line.split_whitespace().nth(1)).collect();
    let installs: Vec<&str> = lines()
        .filter_map(|line| line.split_once("--no-install-recommends "))
        .map(|(_, rest)| rest)
        .collect();
    assert_eq!(installs.len(), 2);
    for package in installs.iter().flat_map(|rest| rest.split("&&").next().unwrap().split_whitespace()) {
        assert!(known.contains(package), "{package} is not one of .ci/setup's for the demo");
    }
    // The toolchain is the workspace's, the program what the first stage builds, and it runs without rights.
    let version = manifest.split_once("rust-version = \"").unwrap().1.split('"').next().unwrap();
    assert!(
        text.contains(&format!("FROM docker.io/library/rust:{version}-")),
        "another toolchain than {version}"
    );
    assert!(text.contains("RUN cargo build --locked --release -p chancery\n"));
    assert!(text.contains("COPY --from=build /src/target/release/chancery /usr/local/bin/chancery\n"));
    let user = lines().find_map(|line| line.strip_prefix("USER ")).unwrap();
    assert!(text.contains(&format!("useradd --create-home --uid 10001 {user}\n")));
    // Its command and variables are the program's.
    let command = lines().find_map(|line| line.strip_prefix("ENTRYPOINT ")).unwrap();
    let command: Vec<String> = serde_json::from_str(command).unwrap();
    assert_eq!(command[..2], ["chancery", "demo"]);
    let known = flags(&help());
    let help = help();
    for flag in command.iter().filter(|word| word.starts_with("--")) {
        assert!(known.contains(flag), "{flag}");
    }
    for variable in lines().filter_map(|line| line.strip_prefix("ENV ")) {
        let name = variable.split('=').next().unwrap();
        assert!(entries(&help).values().any(|said| said.contains(&format!("[env: {name}="))), "{name}");
    }
    // It listens where it exposes.
    let exposed = lines().find_map(|line| line.strip_prefix("EXPOSE ")).unwrap();
    let exposed: BTreeSet<&str> =
        exposed.split_whitespace().map(|port| port.trim_end_matches("/udp")).collect();
    let listens: BTreeSet<&str> = command.iter().filter_map(|word| word.strip_prefix("0.0.0.0:")).collect();
    assert_eq!(exposed, listens);
}
