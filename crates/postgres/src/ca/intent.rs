//! Intents, committed (DESIGN §3 step 9): all of a batch in a few statements.

use std::collections::{BTreeMap, HashMap, HashSet};

use ca_store::{IntentOutcome, JournalKind, NewIntent, Serial};
use sqlx::PgConnection;

use super::{Context, entry, limit};
use crate::{
    failure::Failure,
    stored::{columns, milliseconds, number, seconds},
    writer::Job,
};

type Intents = Job<Vec<NewIntent>, Vec<IntentOutcome>>;

/// Intents with their places in the answer.
type Placed<'a> = Vec<(usize, &'a NewIntent)>;

/// Commits the intents of all jobs.
pub(super) async fn commit(
    connection: &mut PgConnection,
    context: &mut Context,
    jobs: &mut [&mut Intents],
) -> Result<(), Failure> {
    if jobs.is_empty() {
        return Ok(());
    }
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
    connection: &mut PgConnection,
    context: &mut Context,
    intents: &[&NewIntent],
) -> Result<BTreeMap<usize, IntentOutcome>, Failure> {
    let mut outcomes = BTreeMap::new();
    let mut waiting: Placed<'_> = intents.iter().copied().enumerate().collect();
    limit::lock(connection, intents).await?;
    while !waiting.is_empty() {
        let (round, mut later) = divide(waiting);
        let overtaken = commit_round(connection, context, &round, &mut outcomes).await?;
        // They find now what was faster.
        later.splice(0..0, overtaken);
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

/// Answers those that another signer's transaction was faster with, between our look and our hand.
async fn commit_round<'a>(
    connection: &mut PgConnection,
    context: &mut Context,
    round: &[(usize, &'a NewIntent)],
    outcomes: &mut BTreeMap<usize, IntentOutcome>,
) -> Result<Placed<'a>, Failure> {
    let Objections { ids, mut first } = objections(connection, round).await?;
    for (number, place) in limit::reached(connection, round).await? {
        first.entry(number).or_insert(Objection::Limit(place));
    }
    let taken: Vec<i64> = first.values().filter_map(Objection::entry).collect();
    let mut entries = BTreeMap::new();
    if !taken.is_empty() {
        for stored in entry::by_ids(connection, &taken).await? {
            entries.insert(stored.id, stored.entry()?);
        }
    }
    let mut accepted = Vec::new();
    for (number, (place, intent)) in round.iter().enumerate() {
        match first.get(&number) {
            None => {
                let id = ids.get(&number).copied().ok_or(entry::JOURNAL.corrupt("id"))?;
                accepted.push((id, *place, *intent));
            }
            Some(objection) => {
                outcomes.insert(*place, objection.outcome(intent, context.owner, &entries)?);
            }
        }
    }
    let entered = insert(connection, context.owner, &accepted).await?;
    let mut overtaken = Vec::new();
    for (id, place, intent) in accepted {
        if entered.contains(&id) {
            context.audit.extend_from_slice(&intent.audit);
            outcomes.insert(place, IntentOutcome::Committed);
        } else {
            overtaken.push((place, intent));
        }
    }
    Ok(overtaken)
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
    /// Ids for entries, by the intents' numbers in the round.
    ids: HashMap<usize, i64>,
    /// The first objection to an intent, by its number in the round.
    first: BTreeMap<usize, Objection>,
}

async fn objections(
    connection: &mut PgConnection,
    round: &[(usize, &NewIntent)],
) -> Result<Objections, Failure> {
    columns!(round.iter().map(|(_, intent)| intent.row.unverified()), |row| {
        kinds: &str = row.kind.as_str(),
        orders: Option<&str> = row.order.as_deref(),
        new_orders: Option<&[u8]> = row.new_order.as_ref().map(<[u8; 32]>::as_slice),
        serials: &[u8] = row.serial.as_bytes(),
        spkis: &[u8] = row.spki_sha256.as_slice(),
        replaced: Option<&[u8]> = row.replaces.as_ref().map(Serial::as_bytes),
    });
    columns!(round, |placed| {
        account_keys: Option<&[u8]> = placed.1.account_key.as_ref().map(<[u8; 32]>::as_slice),
    });
    let citations = (0i64..).zip(round).flat_map(|(number, (_, intent))| {
        (0i64..).zip(&intent.cites).map(move |(place, citation)| (number, place, citation))
    });
    columns!(citations, |cited| {
        citing: i64 = cited.0,
        places: i64 = cited.1,
        tables: &str = cited.2.table.as_str(),
        keys: &str = cited.2.key.as_str(),
        macs: &[u8] = cited.2.mac.as_slice(),
    });
    let authorizations = (0i64..).zip(round).flat_map(|(number, (_, intent))| {
        (0i64..).zip(&intent.authorizations).map(move |(place, id)| (number, place, id.as_str()))
    });
    columns!(authorizations, |authorization| {
        resting: i64 = authorization.0,
        rests: i64 = authorization.1,
        ids: &str = authorization.2,
    });
    let past = (0i64..)
        .zip(round)
        .flat_map(|(number, (_, intent))| intent.past.iter().map(move |mac| (number, mac.as_slice())));
    let (passed, verified): (Vec<i64>, Vec<&[u8]>) = past.unzip();
    let found = sqlx::query_file!(
        "sql/intent_objections.sql",
        &kinds as &[&str],
        &orders as &[Option<&str>],
        &new_orders as &[Option<&[u8]>],
        &serials as &[&[u8]],
        &spkis as &[&[u8]],
        &account_keys as &[Option<&[u8]>],
        &citing,
        &places,
        &tables as &[&str],
        &keys as &[&str],
        &macs as &[&[u8]],
        &resting,
        &rests,
        &ids as &[&str],
        &passed,
        &verified as &[&[u8]],
        &replaced as &[Option<&[u8]>]
    )
    .fetch_all(connection)
    .await?;
    let mut objections = Objections { ids: HashMap::new(), first: BTreeMap::new() };
    for row in found {
        let number = usize::try_from(row.number).map_err(|_| entry::JOURNAL.corrupt("id"))?;
        if row.what == 0 {
            objections.ids.insert(number, row.place);
            continue;
        }
        let objection = Objection::read(row.what.into(), row.place)?;
        objections
            .first
            .entry(number)
            .and_modify(|first| *first = objection.min(*first))
            .or_insert(objection);
    }
    Ok(objections)
}

/// The domains of these entries, with the times by which limits count them.
fn domains_of(accepted: &[(i64, usize, &NewIntent)]) -> impl Iterator<Item = (i64, String, i64)> {
    accepted.iter().flat_map(|(id, _, intent)| {
        let created_at = seconds(intent.row.unverified().created_at);
        limit::sorted(&intent.domains).into_iter().map(move |domain| (*id, domain, created_at))
    })
}

/// Writes what nothing speaks against: journal, evidence and names in one go. Answers the ids of those that were written.
async fn insert(
    connection: &mut PgConnection,
    owner: i64,
    accepted: &[(i64, usize, &NewIntent)],
) -> Result<HashSet<i64>, Failure> {
    if accepted.is_empty() {
        return Ok(HashSet::new());
    }
    let mut accepted = accepted.to_vec();
    // In one order, so that nobody waits in a circle.
    accepted.sort_by_key(|(_, _, intent)| intent.row.unverified().serial);
    columns!(&accepted, |entry| {
        ids: i64 = entry.0,
        leases: i64 = milliseconds(entry.2.lease),
        name_counts: i64 = number(limit::sorted(&entry.2.names).len() as u64),
        mac_versions: i64 = i64::from(entry.2.row.mac().key_version),
        macs: &[u8] = entry.2.row.mac().mac.as_slice(),
    });
    columns!(accepted.iter().map(|(.., intent)| intent.row.unverified()), |row| {
        serials: &[u8] = row.serial.as_bytes(),
        kinds: &str = row.kind.as_str(),
        orders: Option<&str> = row.order.as_deref(),
        new_orders: Option<&[u8]> = row.new_order.as_ref().map(<[u8; 32]>::as_slice),
        directories: Option<&str> = row.directory.as_deref(),
        accounts: Option<&str> = row.account.as_deref(),
        issuers: &str = row.issuer.as_str(),
        profiles: &str = row.profile.as_str(),
        shards: i64 = i64::from(row.shard),
        keys: &[u8] = row.spki_sha256.as_slice(),
        requests: Option<&[u8]> = row.csr_sha256.as_ref().map(<[u8; 32]>::as_slice),
        not_before: i64 = seconds(row.not_before),
        not_after: i64 = seconds(row.not_after),
        tbs: &[u8] = row.tbs.as_slice(),
        created_at: i64 = seconds(row.created_at),
        replaced: Option<&[u8]> = row.replaces.as_ref().map(Serial::as_bytes),
        counted: bool = row.counted,
    });
    let proven = accepted.iter().filter_map(|(id, _, intent)| Some((*id, intent.evidence.as_ref()?)));
    columns!(proven, |evidence| {
        proven_ids: i64 = evidence.0,
        proven_orders: &[u8] = evidence.1.new_order.as_slice(),
        finalizes: &[u8] = evidence.1.finalize.as_slice(),
        receipts: &[u8] = evidence.1.receipts.as_slice(),
        lints: &[u8] = evidence.1.lints.as_slice(),
    });
    let named = accepted
        .iter()
        .flat_map(|(id, _, intent)| limit::sorted(&intent.names).into_iter().map(move |name| (*id, name)));
    let (named_ids, names): (Vec<i64>, Vec<String>) = named.unzip();
    columns!(domains_of(&accepted), |owned| {
        owned_ids: i64 = owned.0,
        domains: String = owned.1,
        owned_at: i64 = owned.2,
    });
    let entered = sqlx::query_file_scalar!(
        "sql/intent_insert.sql",
        &ids,
        &serials as &[&[u8]],
        &kinds as &[&str],
        &orders as &[Option<&str>],
        &new_orders as &[Option<&[u8]>],
        &directories as &[Option<&str>],
        &accounts as &[Option<&str>],
        &issuers as &[&str],
        &profiles as &[&str],
        &shards,
        &keys as &[&[u8]],
        &requests as &[Option<&[u8]>],
        &not_before,
        &not_after,
        &tbs as &[&[u8]],
        &created_at,
        &mac_versions,
        &macs as &[&[u8]],
        &name_counts,
        owner,
        &leases,
        &proven_ids,
        &proven_orders as &[&[u8]],
        &finalizes as &[&[u8]],
        &receipts as &[&[u8]],
        &lints as &[&[u8]],
        &named_ids,
        &names,
        &replaced as &[Option<&[u8]>],
        &counted,
        &owned_ids,
        &domains,
        &owned_at
    )
    .fetch_all(connection)
    .await?;
    Ok(entered.into_iter().collect())
}
