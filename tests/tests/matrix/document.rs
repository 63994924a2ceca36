//! docs/clients.md says what the tests run, and nothing that they do not.

use e2e::matrix::recipe;
use e2e::program::root;

/// A block that no test uses would rot.
#[test]
fn every_named_block_of_the_document_is_run() {
    let folder = root().join("tests/tests/matrix");
    let tests: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap())
        .collect();
    let mut faults = Vec::new();
    for name in recipe::blocks().keys() {
        let (client, block) = name.rsplit_once('/').unwrap();
        let (client, block) = (format!("\"{client}\""), format!("(\"{block}\""));
        if !tests.iter().any(|test| test.contains(&client) && test.contains(&block)) {
            faults.push(name.clone());
        }
    }
    assert!(faults.is_empty(), "no test runs {faults:?}");
}

/// What is shown of a program stands in it.
#[test]
fn every_excerpt_stands_in_its_program() {
    let text = std::fs::read_to_string(root().join("docs/clients.md")).unwrap();
    let mut excerpts = text.split("<!-- excerpt: ").skip(1).peekable();
    assert!(excerpts.peek().is_some());
    for excerpt in excerpts {
        let (file, rest) = excerpt.split_once(" -->\n").unwrap();
        let program = std::fs::read_to_string(root().join(file)).unwrap();
        let shown = rest.lines().skip(1).take_while(|line| *line != "```");
        for line in shown {
            assert!(program.lines().any(|own| own.trim() == line.trim()), "{file} has no line {line:?}");
        }
    }
}

/// The versions that the setup pins are those of the table.
#[test]
fn the_tables_versions_are_those_of_the_setup() {
    let setup = std::fs::read_to_string(root().join(".ci/setup")).unwrap();
    let table = std::fs::read_to_string(root().join("docs/clients.md")).unwrap();
    let pin = |name: &str| {
        let line = setup.lines().find_map(|line| line.strip_prefix(&format!("{name}=")));
        let version = line.unwrap_or_else(|| panic!(".ci/setup pins no {name}"));
        version.rsplit_once('.').unwrap().0.to_owned()
    };
    for (client, version, registry) in [
        ("certbot", pin("CERTBOT_VERSION"), "PyPI"),
        ("acme", pin("CERTBOT_VERSION"), "PyPI"),
        ("acme-client", of("tests/clients/node/package.json", "\"acme-client\": \"", "\""), "npm"),
        ("x/crypto/acme", of("tests/clients/go/go.mod", "golang.org/x/crypto v", "\n"), "Go"),
        ("instant-acme", of("Cargo.toml", "instant-acme = { version = \"", "\""), "crates.io"),
    ] {
        let version = version.splitn(3, '.').take(2).collect::<Vec<_>>().join(".");
        let cell = format!("| {client} | {version} ({registry}) |");
        assert!(table.contains(&cell), "docs/clients.md has no {cell:?}");
    }
}

fn of(file: &str, before: &str, after: &str) -> String {
    let text = std::fs::read_to_string(root().join(file)).unwrap();
    let rest = text.split_once(before).unwrap_or_else(|| panic!("{file} has no {before}")).1;
    rest.split_once(after).unwrap().0.to_owned()
}
