//! Whoever may write to `ca` can lose rows and bring old ones back. He cannot grant anything: each row that does has a MAC
//! over all its columns. Here every column of every such row is changed in the database's file while the signer is down,
//! rows are put in with genuine MACs of others, and the signer is asked for what they would allow.

mod alter;
mod intents;
mod registry;
mod rows;

use std::collections::BTreeSet;

use rpc::proto::signer::v1 as wire;
use tonic::{Code, Status};

use crate::front::scene::Scene;
use crate::support::{Database, PROTECTED, documented};

/// A change of a row, what is asked on the strength of it, and what must come of it.
struct Trial {
    /// `table.column`, or what else was done to the table.
    name: String,
    table: &'static str,
    sql: String,
    ask: Ask,
    answer: Answer,
}

/// What the signer must say.
enum Answer {
    /// That the row was changed by something else than a signer.
    Noticed,
    /// A refusal with this reason: the row is not found any more, or it counts for nothing.
    Refused(&'static str),
    /// That a row is missing which another one refers to.
    Missing,
    /// Nothing: the node is shut out.
    ShutOut,
}

enum Ask {
    Order(Vec<u8>),
    Register(Vec<u8>),
    Issue(wire::IssueRequest),
    ServerCertificate(rpc::NodeFiles, Vec<u8>),
    Join(String),
}

impl Trial {
    /// The signer must notice.
    fn new(table: &'static str, column: &str, sql: String, ask: Ask) -> Self {
        Self { name: format!("{table}.{column}"), table, sql, ask, answer: Answer::Noticed }
    }

    /// The node must be shut out.
    fn shut_out(self) -> Self {
        Self { answer: Answer::ShutOut, ..self }
    }

    /// The signer must miss the row.
    fn missing(self) -> Self {
        Self { answer: Answer::Missing, ..self }
    }

    /// The signer must not find the row any more, or pass it over.
    fn lost(self, reason: &'static str) -> Self {
        Self { answer: Answer::Refused(reason), ..self }
    }
}

/// What is asked of the signer, and what it says.
async fn ask(scene: &mut Scene, ask: &Ask) -> Result<(), Status> {
    match ask {
        Ask::Order(jws) => scene.order(jws).await.map(drop),
        Ask::Register(jws) => scene.register(jws.clone()).await.map(drop),
        Ask::Issue(request) => scene.issue(request.clone()).await.map(drop),
        Ask::ServerCertificate(files, csr) => {
            let request = wire::IssueServerCertificateRequest { csr: csr.clone().into() };
            let channel = scene.system.channel(files);
            let mut front = wire::authority_client::AuthorityClient::new(channel);
            front.issue_server_certificate(request).await.map(drop)
        }
        Ask::Join(token) => rows::join(scene, token).await,
    }
}

/// What is wrong with an answer.
fn judge(trial: &Trial, answer: &Result<(), Status>) -> Option<String> {
    let status = match answer {
        Ok(()) => return Some(format!("{}: IT SUCCEEDED", trial.name)),
        Err(status) => status,
    };
    let good = match trial.answer {
        Answer::Refused(reason) => rpc::refusal(status).is_some_and(|refusal| refusal.reason == reason),
        Answer::Noticed => status.code() == Code::Internal && names_the_row(status.message(), trial.table),
        Answer::Missing => status.code() == Code::Internal && status.message().contains("no signer wrote"),
        // The connection ends, or there is none.
        Answer::ShutOut => std::error::Error::source(status).is_some(),
    };
    (!good).then(|| format!("{}: {status}", trial.name))
}

fn names_the_row(message: &str, table: &str) -> bool {
    let ways = ["was changed by something else than a signer", "of the tier secret, which is not known"];
    message.contains(&format!("of table {table} ")) && ways.iter().any(|way| message.contains(way))
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_comes_of_what_an_administrator_writes() {
    let mut scene = Scene::open().await;
    let database = scene.system.database().await;
    let mut trials = rows::all(&mut scene, &database).await;
    let replay = rows::Replay::prepare(&mut scene, &database).await;
    let (intents, untouched) = intents::prepare(&mut scene, &database).await;
    let untried = untried(&trials, &database).await;
    assert!(untried.is_empty(), "no trial changes {untried:?}");

    scene.system.stop_signer();
    for trial in &trials {
        let changed = database.run(trial.sql.clone()).await;
        assert_eq!(changed, 1, "{}: {}", trial.name, trial.sql);
    }
    intents.write(&database).await;
    replay.write(&database).await;
    scene.meanwhile().await;
    scene.system.start_signer();
    scene.system.until_it_answers().await;

    let mut faults = Vec::new();
    for trial in trials.drain(..) {
        let answer = ask(&mut scene, &trial.ask).await;
        faults.extend(judge(&trial, &answer));
    }
    faults.extend(intents.judge(&mut scene, &database).await);
    // Nothing was registered, granted, signed or revoked: every table is as the administrator has left it.
    faults
        .extend(scene.end(&BTreeSet::new()).await.into_iter().filter(|fault| !fault.contains("refused for")));
    // What nobody has touched works as before.
    scene.issue(untouched).await.expect("the certificate of before");
    faults.extend(replay.judge(&mut scene).await);

    scene.system.stop_signer();
    let reported: BTreeSet<String> = database.audited("row.tampered").await.into_iter().collect();
    for table in USED {
        let word = format!("{{\"table\":\"{table}\"}}");
        if !reported.iter().any(|row| row.ends_with(&word)) {
            faults.push(format!("{table}: the audit trail does not say that a row was changed"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    let faults = registry::judge(&mut scene, &database).await;
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    println!("{} rows reported in the audit trail", reported.len());
}

/// Tables whose rows requests rest on.
const USED: [&str; 9] = [
    "accounts",
    "account_keys",
    "registrations",
    "eab_keys",
    "permits",
    "grants",
    "nodes",
    "join_tokens",
    "journal",
];

/// Columns under a MAC that no trial changes.
async fn untried(trials: &[Trial], database: &Database) -> Vec<String> {
    let mut untried = Vec::new();
    for table in USED {
        let columns = alter::columns(database, table).await;
        let names = columns.into_iter().map(|column| format!("{table}.{column}"));
        untried.extend(names.filter(|name| !trials.iter().any(|trial| trial.name == *name)));
    }
    untried
}

#[test]
fn the_document_lists_the_tables() {
    let said: BTreeSet<String> = documented("`hostile::administrator`").into_keys().collect();
    let known: BTreeSet<String> = PROTECTED.iter().map(|(table, _)| (*table).to_owned()).collect();
    assert_eq!(said, known);
}
