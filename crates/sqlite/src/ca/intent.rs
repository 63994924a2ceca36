//! Intents, committed (DESIGN §3 step 9): all of a batch in two statements.

use std::collections::{BTreeMap, HashSet};

use ca_store::{IntentOutcome, JournalKind, NewIntent, Serial};
use sqlx::SqliteConnection;

use super::{Context, entry, limit};
use crate::{
    failure::Failure,
    rows::Rows,
    stored::{milliseconds, number, seconds},
    writer::Job,
};

type Intents = Job<Vec<NewIntent>, Vec<IntentOutcome>>;

/// Intents with their places in the answer.
type Placed<'a> = Vec<(usize, &'a NewIntent)>;

/// Commits the intents of all jobs.
pub(super) async fn commit(
    connection: &mut SqliteConnection,
    context: &mut Context,
    jobs: &mut [&mut Intents],
) -> Result<(), Failure> {
    let outcomes = {
        let intents: Vec<&NewIntent> = jobs.iter().flat_map(|job| &job.input).collect();
        commit_all(connection, context, &intents).await?
    };
    let mut outcomes = outcomes.into_values();
    for job in jobs {
        let count = job.input.len();
        job.outcome = Some(outcomes.by_ref().take(count).collect());
    }
    Ok(())
}

async fn commit_all(
    connection: &mut SqliteConnection,
    context: &mut Context,
    intents: &[&NewIntent],
) -> Result<BTreeMap<usize, IntentOutcome>, Failure> {
    let mut outcomes = BTreeMap::new();
    let mut waiting: Placed<'_> = intents.iter().copied().enumerate().collect();
    while !waiting.is_empty() {
        let (round, later) = divide(waiting);
        commit_round(connection, context, &round, &mut outcomes).await?;
        waiting = later;
    }
    Ok(outcomes)
}

/// Those that cannot concern each other, and those that must see what became of them.
fn divide(waiting: Placed<'_>) -> (Placed<'_>, Placed<'_>) {
    let mut keys: HashSet<(u8, JournalKind, &[u8])> = HashSet::new();
    let mut round: Placed<'_> = Vec::new();
    let mut later = Vec::new();
    for (place, intent) in waiting {
        let row = intent.row.unverified();
        let mine = [
            Some((0, JournalKind::Final, row.serial.as_bytes())),
            row.order.as_ref().map(|order| (1, row.kind, order.as_bytes())),
            row.new_order.as_ref().map(|digest| (2, row.kind, digest.as_slice())),
            row.replaces.as_ref().map(|serial| (3, row.kind, serial.as_bytes())),
        ];
        let free = mine.iter().flatten().all(|key| !keys.contains(key))
            && !round.iter().any(|(_, earlier)| limit::counts(earlier, intent));
        if free {
            keys.extend(mine.into_iter().flatten());
            round.push((place, intent));
        } else {
            later.push((place, intent));
        }
    }
    (round, later)
}

async fn commit_round(
    connection: &mut SqliteConnection,
    context: &mut Context,
    round: &[(usize, &NewIntent)],
    outcomes: &mut BTreeMap<usize, IntentOutcome>,
) -> Result<(), Failure> {
    let Objections { newest_entry, mut first } = objections(connection, round).await?;
    for (number, place) in limit::reached(connection, round).await? {
        first.entry(number).or_insert(Objection::Limit(place));
    }
    let taken = first.values().filter_map(Objection::entry);
    let ids = serde_json::Value::from(taken.collect::<Vec<i64>>()).to_string();
    let mut entries = BTreeMap::new();
    if ids != "[]" {
        for stored in entry::by_ids(connection, &ids).await? {
            entries.insert(stored.id, stored.entry()?);
        }
    }
    let mut accepted = Vec::new();
    for (number, (place, intent)) in round.iter().enumerate() {
        let outcome = match first.get(&number) {
            None => {
                accepted.push(*intent);
                context.audit.extend_from_slice(&intent.audit);
                IntentOutcome::Committed
            }
            Some(objection) => objection.outcome(intent, context.owner, &entries)?,
        };
        outcomes.insert(*place, outcome);
    }
    insert(connection, context.owner, newest_entry, &accepted).await
}

/// Why an intent is not committed; the earlier of two reasons counts, so that an order that has its
/// certificate is answered with it whatever else has changed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Objection {
    Order(i64),
    NewOrder(i64),
    Serial(i64),
    Replaced,
    Past,
    KeyBlocked,
    KeyOfAccount,
    Citation(usize),
    Authorization(usize),
    Limit(usize),
}

impl Objection {
    /// As the statement says it: what speaks against the intent, and which entry or place of a list that is.
    fn read(what: i64, place: i64) -> Result<Self, Failure> {
        let nth = || usize::try_from(place).map_err(|_| super::entry::JOURNAL.corrupt("id"));
        Ok(match what {
            1 => Self::Order(place),
            2 => Self::NewOrder(place),
            3 => Self::Serial(place),
            4 => Self::Past,
            5 => Self::KeyBlocked,
            6 => Self::KeyOfAccount,
            7 => Self::Citation(nth()?),
            8 => Self::Authorization(nth()?),
            _ => Self::Replaced,
        })
    }

    const fn entry(&self) -> Option<i64> {
        match self {
            Self::Order(entry) | Self::NewOrder(entry) | Self::Serial(entry) => Some(*entry),
            Self::Replaced
            | Self::Past
            | Self::KeyBlocked
            | Self::KeyOfAccount
            | Self::Citation(_)
            | Self::Authorization(_)
            | Self::Limit(_) => None,
        }
    }

    fn outcome(
        self,
        intent: &NewIntent,
        owner: i64,
        entries: &BTreeMap<i64, ca_store::JournalEntry>,
    ) -> Result<IntentOutcome, Failure> {
        let entry = |id| entries.get(&id).cloned().map(Box::new).ok_or(super::entry::JOURNAL.corrupt("id"));
        if let Some(id) = self.entry() {
            let entry = entry(id)?;
            let mine = entry.lease.is_some_and(|lease| i64::try_from(lease.owner) == Ok(owner));
            if mine && entry.row.mac() == intent.row.mac() {
                return Ok(IntentOutcome::Committed);
            }
        }
        Ok(match self {
            Self::Order(id) => IntentOutcome::OrderTaken(entry(id)?),
            Self::NewOrder(id) => IntentOutcome::NewOrderTaken(entry(id)?),
            Self::Serial(id) => IntentOutcome::SerialTaken(entry(id)?),
            Self::Replaced => IntentOutcome::AlreadyReplaced,
            Self::Past => IntentOutcome::OrderHasPast,
            Self::KeyBlocked => IntentOutcome::KeyBlocked,
            Self::KeyOfAccount => IntentOutcome::KeyOfAccount,
            Self::Citation(place) => IntentOutcome::AuthorityChanged(place),
            Self::Authorization(place) => IntentOutcome::AuthorizationDeactivated(place),
            Self::Limit(place) => IntentOutcome::LimitReached(place),
        })
    }
}

struct Objections {
    /// The greatest id of an entry.
    newest_entry: i64,
    /// The first objection to an intent, by its number in the round.
    first: BTreeMap<usize, Objection>,
}

async fn objections(
    connection: &mut SqliteConnection,
    round: &[(usize, &NewIntent)],
) -> Result<Objections, Failure> {
    let (mut intents, mut citations, mut authorizations) = (Rows::new(), Rows::new(), Rows::new());
    let mut past = Rows::new();
    for (number, (_, intent)) in (0..).zip(round) {
        let row = intent.row.unverified();
        intents
            .row()
            .text(row.kind.as_str())
            .text(row.order.as_deref())
            .octets(row.new_order.as_ref().map(<[u8; 32]>::as_slice))
            .octets(row.serial.as_bytes())
            .octets(row.spki_sha256.as_slice())
            .octets(intent.account_key.as_ref().map(<[u8; 32]>::as_slice))
            .octets(row.replaces.as_ref().map(Serial::as_bytes));
        for (place, citation) in (0..).zip(&intent.cites) {
            citations
                .row()
                .number(number)
                .number(place)
                .text(citation.table.as_str())
                .text(citation.key.as_str())
                .octets(citation.mac.as_slice());
        }
        for mac in &intent.past {
            past.row().number(number).octets(mac.as_slice());
        }
        for (place, authorization) in (0..).zip(&intent.authorizations) {
            authorizations.row().number(number).number(place).text(authorization.as_str());
        }
    }
    let ((intents, octets), (citations, macs)) = (intents.finish(), citations.finish());
    let ((authorizations, _), (past, verified)) = (authorizations.finish(), past.finish());
    let verified = verified.as_slice();
    let (octets, macs) = (octets.as_slice(), macs.as_slice());
    let found = sqlx::query_file!(
        "sql/intent_objections.sql",
        intents,
        intents,
        octets,
        intents,
        octets,
        intents,
        octets,
        intents,
        past,
        verified,
        intents,
        past,
        verified,
        intents,
        octets,
        intents,
        octets,
        citations,
        macs,
        macs,
        macs,
        macs,
        macs,
        macs,
        macs,
        macs,
        authorizations
    )
    .fetch_all(connection)
    .await?;
    let mut objections = Objections { newest_entry: 0, first: BTreeMap::new() };
    for row in found {
        if row.what == 0 {
            objections.newest_entry = row.place;
            continue;
        }
        let objection = Objection::read(row.what, row.place)?;
        let number = usize::try_from(row.number).map_err(|_| super::entry::JOURNAL.corrupt("id"))?;
        objections
            .first
            .entry(number)
            .and_modify(|first| *first = objection.min(*first))
            .or_insert(objection);
    }
    Ok(objections)
}

/// Writes what nothing speaks against: journal, evidence and names in one go.
async fn insert(
    connection: &mut SqliteConnection,
    owner: i64,
    newest_entry: i64,
    accepted: &[&NewIntent],
) -> Result<(), Failure> {
    if accepted.is_empty() {
        return Ok(());
    }
    let (mut journal, mut evidence) = (Rows::new(), Rows::new());
    let (mut names, mut domains) = (Rows::new(), Rows::new());
    for (id, intent) in (newest_entry + 1..).zip(accepted) {
        let row = intent.row.unverified();
        let mac = intent.row.mac();
        let all = limit::sorted(&intent.names);
        journal
            .row()
            .number(id)
            .octets(row.serial.as_bytes())
            .text(row.kind.as_str())
            .text(row.order.as_deref())
            .octets(row.new_order.as_ref().map(<[u8; 32]>::as_slice))
            .text(row.directory.as_deref())
            .text(row.account.as_deref())
            .text(row.issuer.as_str())
            .text(row.profile.as_str())
            .number(i64::from(row.shard))
            .octets(row.spki_sha256.as_slice())
            .octets(row.csr_sha256.as_ref().map(<[u8; 32]>::as_slice))
            .number(seconds(row.not_before))
            .number(seconds(row.not_after))
            .octets(row.tbs.as_slice())
            .number(seconds(row.created_at))
            .number(i64::from(mac.key_version))
            .octets(mac.mac.as_slice())
            .number(milliseconds(intent.lease))
            .number(number(all.len() as u64))
            .octets(row.replaces.as_ref().map(Serial::as_bytes))
            .number(i64::from(row.counted));
        if let Some(it) = &intent.evidence {
            evidence
                .row()
                .number(id)
                .octets(it.new_order.as_slice())
                .octets(it.finalize.as_slice())
                .octets(it.receipts.as_slice())
                .octets(it.lints.as_slice());
        }
        for name in &all {
            names.row().text(name.as_str()).number(id);
        }
        for domain in &limit::sorted(&intent.domains) {
            domains.row().text(domain.as_str()).number(seconds(row.created_at)).number(id);
        }
    }
    let ((journal, octets), (evidence, texts)) = (journal.finish(), evidence.finish());
    let ((names, _), (domains, _)) = (names.finish(), domains.finish());
    let (octets, texts) = (octets.as_slice(), texts.as_slice());
    sqlx::query_file!(
        "sql/intent_insert.sql",
        octets,
        octets,
        octets,
        octets,
        octets,
        octets,
        owner,
        octets,
        journal,
        texts,
        texts,
        texts,
        texts,
        evidence,
        names,
        domains
    )
    .execute(connection)
    .await?;
    Ok(())
}
