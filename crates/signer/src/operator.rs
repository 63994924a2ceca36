//! What operators do to the CA's records: registrations, permits, grants, EAB keys (DESIGN §5). Every act is audited in the
//! transaction that does it, under the operator's name.

use std::time::Duration;

use acme::directory::DirectoryName;
use acme::eab::EabKeyId;
use acme::limit::LimitSettings;
use aws_lc_rs::digest;
use ca_store::{
    Authority, AuthorityChange, AuthorityChanges, AuthorityRow, AuthoritySelector, Cursor, EabKeyRow,
    EabState, GrantRow, NameScope, Page, Paged, PermitRow, RegistrationRow, State,
};
use ipnet::IpNet;
use pki::{DnsName, Name, Period};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::audit::Event;
use crate::ca::Ca;
use crate::refusal::{Failure, Outcome, Reason, Refusal};

mod limits;

pub use limits::LimitInForce;

/// How long an EAB key lives if the operator does not say.
pub const EAB_LIFETIME: Duration = Duration::from_secs(30 * 86_400);
/// The longest life of an EAB key: ten years. It is for registering; accounts outlive it.
pub const LONGEST_EAB_LIFETIME: Duration = Duration::from_secs(3650 * 86_400);
/// The most accounts that may register with one EAB key.
pub const MOST_EAB_USES: u32 = 1_000_000;
/// Rows of a page if nobody says, and the most that there can be.
const PAGE: u32 = 100;
const LONGEST_PAGE: u32 = 1000;
/// Titles are for people.
const LONGEST_TITLE: usize = 200;

/// What a registration's row says beside its columns.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RegistrationSettings {
    /// The operator's name.
    #[serde(default)]
    pub(crate) created_by: String,
    /// It has permits, and may ask for nothing else: rows of permits that are lost must not widen what it may ask for.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) permits_only: bool,
    /// Limits in the place of the directory's.
    #[serde(default, skip_serializing_if = "LimitSettings::is_empty")]
    pub(crate) limits: LimitSettings,
    /// The profiles that its accounts may ask for; none: all of the directory's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) profiles: Vec<String>,
}

impl RegistrationSettings {
    pub(crate) fn of(row: &RegistrationRow) -> Self {
        serde_json::from_str(&row.settings).unwrap_or_default()
    }
}

/// An EAB key as it is shown, once.
pub struct ShownEabKey {
    /// Its row.
    pub row: EabKeyRow,
    /// The secret. It is derived from the tier secret, and stored nowhere.
    pub secret: Zeroizing<[u8; 32]>,
}

impl Ca {
    /// Makes a registration in a directory, for these profiles of it or, if none is named, for all.
    ///
    /// # Errors
    /// A refusal when there is no such directory, it does not offer a profile, or the title is taken or unusable.
    pub async fn create_registration(
        &self,
        operator: &str,
        directory: &str,
        title: &str,
        profiles: &[String],
    ) -> Outcome<RegistrationRow> {
        let name: DirectoryName =
            directory.parse().map_err(|_| refused(format!("{directory:?} is no directory name")))?;
        let profiles = self.checked_profiles(&name, profiles)?;
        let title = title.trim();
        if title.is_empty() || title.len() > LONGEST_TITLE || title.chars().any(char::is_control) {
            return Err(refused(format!("a name is 1 to {LONGEST_TITLE} printable characters")).into());
        }
        let taken = || refused(format!("directory {directory:?} has a registration {title:?} already"));
        let id = registration_id(directory, title);
        if self.store.authority(&AuthoritySelector::Registration(id.clone())).await?.is_some() {
            return Err(taken().into());
        }
        let now = self.now()?;
        let settings = RegistrationSettings {
            created_by: operator.to_owned(),
            profiles,
            ..RegistrationSettings::default()
        };
        let row = RegistrationRow {
            id,
            directory: directory.to_owned(),
            title: title.to_owned(),
            settings: json!(settings).to_string(),
            state: State::Active,
            created_at: now,
            version: 1,
        };
        let detail = json!({ "directory": directory, "name": title, "profiles": &settings.profiles });
        let change = AuthorityRow::Registration(self.secrets.rows.seal(row.clone()));
        match self.act(operator, "registration.created", &row.id, detail, vec![(change, None)]).await {
            // Somebody else made it in this moment.
            Err(Failure::Refused(refusal)) if refusal.reason == Reason::Conflict => Err(taken().into()),
            other => other.map(|()| row),
        }
    }

    /// Says which profiles a registration's accounts may ask for; none: all of the directory's. What was ordered with another
    /// one is not issued any more.
    ///
    /// # Errors
    /// A refusal when there is no such registration, or its directory does not offer a profile.
    pub async fn set_profiles(
        &self,
        operator: &str,
        registration: &str,
        profiles: &[String],
    ) -> Outcome<RegistrationRow> {
        let mut row = self.active_registration(registration).await?;
        let directory = row.directory.parse().map_err(|_| Failure::Unreadable {
            table: "registrations",
            detail: format!("{registration}: not a directory's name"),
        })?;
        let profiles = self.checked_profiles(&directory, profiles)?;
        let detail = json!({ "profiles": &profiles });
        let settings = RegistrationSettings { profiles, ..RegistrationSettings::of(&row) };
        row.settings = json!(settings).to_string();
        let expected = row.version;
        row.version += 1;
        let change = AuthorityRow::Registration(self.secrets.rows.seal(row.clone()));
        self.act(operator, "registration.profiles", registration, detail, vec![(change, Some(expected))])
            .await?;
        Ok(row)
    }

    /// Profiles, each once, all of which the directory offers.
    fn checked_profiles(&self, directory: &DirectoryName, profiles: &[String]) -> Outcome<Vec<String>> {
        let Some(offering) = self.registry.directory(directory) else {
            return Err(refused(format!("there is no directory {:?}", directory.as_str())).into());
        };
        if let Some(strange) = profiles.iter().find(|name| offering.profile(Some(name)).is_none()) {
            let offered = offering.profile_names().join(", ");
            let directory = directory.as_str();
            let detail =
                format!("directory {directory:?} does not offer profile {strange:?}, but: {offered}");
            return Err(refused(detail).into());
        }
        let mut profiles = profiles.to_vec();
        profiles.sort_unstable();
        profiles.dedup();
        Ok(profiles)
    }

    /// Registrations, by id.
    ///
    /// # Errors
    /// By the store, or when a row was tampered with.
    pub async fn list_registrations(
        &self,
        directory: Option<&str>,
        page: Page,
    ) -> Outcome<Paged<RegistrationRow>> {
        let rows = self.store.registrations(directory, &page).await?;
        let items: Result<Vec<_>, _> =
            rows.items.into_iter().map(|row| self.secrets.rows.open(row)).collect();
        Ok(Paged { items: items?, next: rows.next })
    }

    /// Grants a name to a registration: its accounts get it without a challenge.
    ///
    /// # Errors
    /// A refusal when there is no such registration, the name is not one of that kind, or this very grant is in force.
    pub async fn add_grant(
        &self,
        operator: &str,
        registration: &str,
        scope: NameScope,
        name: &str,
    ) -> Outcome<GrantRow> {
        let name = checked_pattern(scope, name)?;
        self.active_registration(registration).await?;
        // Or else taking one of the two back would take nothing.
        let granted = self.list_grants(registration).await?;
        let same = |row: &&GrantRow| row.state == State::Active && row.scope == scope && row.name == name;
        if let Some(row) = granted.iter().find(same) {
            return Err(refused(format!("grant {:?} is this one, and is in force", row.id)).into());
        }
        let row = GrantRow {
            id: format!("{registration}-{}", self.new_id()?),
            registration: registration.to_owned(),
            scope,
            name,
            state: State::Active,
            expires_at: None,
            created_at: self.now()?,
            version: 1,
        };
        let detail = json!({ "scope": scope.as_str(), "name": row.name });
        let change = AuthorityRow::Grant(self.secrets.rows.seal(row.clone()));
        self.act(operator, "grant.added", &row.id, detail, vec![(change, None)]).await?;
        Ok(row)
    }

    /// Takes a grant back: nothing is issued on it any more.
    ///
    /// # Errors
    /// A refusal when there is no such grant in force.
    pub async fn remove_grant(&self, operator: &str, id: &str) -> Outcome<GrantRow> {
        let unknown = || refused(format!("there is no grant {id:?} in force"));
        let (registration, _) = id.rsplit_once('-').ok_or_else(unknown)?;
        let authority = self.authority_of(registration).await?;
        let sealed =
            authority.grants.into_iter().find(|row| row.unverified().id == id).ok_or_else(unknown)?;
        let mut row = self.secrets.rows.open(sealed)?;
        if row.state != State::Active {
            return Err(unknown().into());
        }
        let expected = row.version;
        row.state = State::Disabled;
        row.version += 1;
        let detail = json!({ "scope": row.scope.as_str(), "name": row.name });
        let change = AuthorityRow::Grant(self.secrets.rows.seal(row.clone()));
        self.act(operator, "grant.removed", id, detail, vec![(change, Some(expected))]).await?;
        Ok(row)
    }

    /// A registration's grants, those taken back included.
    ///
    /// # Errors
    /// A refusal when there is no such registration.
    pub async fn list_grants(&self, registration: &str) -> Outcome<Vec<GrantRow>> {
        let authority = self.authority_of(registration).await?;
        let rows: Result<Vec<_>, _> =
            authority.grants.into_iter().map(|row| self.secrets.rows.open(row)).collect();
        Ok(rows?)
    }

    /// Restricts a registration to names: from the first permit on it may ask for nothing else.
    ///
    /// # Errors
    /// As [`Ca::add_grant`].
    pub async fn add_permit(
        &self,
        operator: &str,
        registration: &str,
        scope: NameScope,
        name: &str,
    ) -> Outcome<PermitRow> {
        let name = checked_pattern(scope, name)?;
        // Its row changes too: intents cite it, so that what was decided without the new permit is not committed; and it
        // says that there are permits, so that it is not free to ask for anything when their rows are gone.
        let mut owner = self.active_registration(registration).await?;
        let expected = owner.version;
        owner.version += 1;
        let settings = RegistrationSettings { permits_only: true, ..RegistrationSettings::of(&owner) };
        owner.settings = json!(settings).to_string();
        let row = PermitRow {
            id: format!("{registration}-{}", self.new_id()?),
            registration: registration.to_owned(),
            scope,
            name,
            state: State::Active,
            created_at: self.now()?,
            version: 1,
        };
        let detail = json!({ "scope": scope.as_str(), "name": row.name });
        let permit = AuthorityRow::Permit(self.secrets.rows.seal(row.clone()));
        let owner = AuthorityRow::Registration(self.secrets.rows.seal(owner));
        let changes = vec![(owner, Some(expected)), (permit, None)];
        self.act(operator, "permit.added", &row.id, detail, changes).await?;
        Ok(row)
    }

    /// Makes an EAB key (RFC 8555 §7.3.4). The secret is in the answer and nowhere else.
    ///
    /// # Errors
    /// A refusal when there is no such registration, or uses ([`MOST_EAB_USES`]) or lifetime ([`LONGEST_EAB_LIFETIME`])
    /// are out of bounds.
    pub async fn create_eab_key(
        &self,
        operator: &str,
        registration: &str,
        uses: u32,
        lifetime: Duration,
    ) -> Outcome<ShownEabKey> {
        if !(1..=MOST_EAB_USES).contains(&uses) {
            return Err(refused(format!("an EAB key has 1 to {MOST_EAB_USES} uses")).into());
        }
        if lifetime.is_zero() || lifetime > LONGEST_EAB_LIFETIME {
            return Err(refused("an EAB key lives for 1 second to 10 years".to_owned()).into());
        }
        self.active_registration(registration).await?;
        let now = self.now()?;
        let epoch = self.info.epoch.number;
        let kid: EabKeyId = self.secrets.new_eab_key_id(epoch, self.random.bytes()?);
        let secret =
            self.secrets.eab_key(&kid).ok_or_else(|| refused("the tier secret makes no key".to_owned()))?;
        let row = EabKeyRow {
            kid: kid.to_string(),
            registration: registration.to_owned(),
            secret_version: kid.version(),
            epoch,
            max_uses: Some(uses),
            uses: 0,
            state: EabState::Active,
            expires_at: Some(now.plus(Period::from_seconds(lifetime.as_secs()))),
            created_at: now,
            version: 1,
        };
        let detail = json!({ "registration": registration, "uses": uses });
        let change = AuthorityRow::EabKey(self.secrets.rows.seal(row.clone()));
        self.act(operator, "eab.created", &row.kid, detail, vec![(change, None)]).await?;
        Ok(ShownEabKey { row, secret })
    }

    /// Revokes an EAB key; accounts that registered with it stay.
    ///
    /// # Errors
    /// A refusal when there is no such key, or it is revoked already.
    pub async fn revoke_eab_key(&self, operator: &str, kid: &str) -> Outcome<()> {
        let unknown = || refused(format!("there is no EAB key {kid:?} in force"));
        let selector = AuthoritySelector::EabKey(kid.to_owned());
        let authority = self.store.authority(&selector).await?.ok_or_else(unknown)?;
        let sealed =
            authority.eab_keys.into_iter().find(|row| row.unverified().kid == kid).ok_or_else(unknown)?;
        let mut row = self.secrets.rows.open(sealed)?;
        if row.state != EabState::Active {
            return Err(unknown().into());
        }
        let expected = row.version;
        row.state = EabState::Revoked;
        row.version += 1;
        let change = AuthorityRow::EabKey(self.secrets.rows.seal(row));
        self.act(operator, "eab.revoked", kid, Value::Null, vec![(change, Some(expected))]).await
    }

    async fn authority_of(&self, registration: &str) -> Outcome<Authority> {
        let selector = AuthoritySelector::Registration(registration.to_owned());
        let authority = self.store.authority(&selector).await?;
        Ok(authority.ok_or_else(|| refused(format!("there is no registration {registration:?}")))?)
    }

    async fn active_registration(&self, id: &str) -> Outcome<RegistrationRow> {
        let row = self.secrets.rows.open(self.authority_of(id).await?.registration)?;
        if row.state == State::Active {
            Ok(row)
        } else {
            Err(refused(format!("registration {id:?} is disabled")).into())
        }
    }

    /// Changes rows and reports it, in one transaction.
    async fn act(
        &self,
        operator: &str,
        kind: &'static str,
        subject: &str,
        detail: Value,
        rows: Vec<(AuthorityRow, Option<u64>)>,
    ) -> Outcome<()> {
        let event = Event::Operator { kind, operator, subject, detail };
        let changes = rows.into_iter().map(|(row, expected)| AuthorityChange { row, expected }).collect();
        self.put(AuthorityChanges { changes, audit: vec![event.at(self.now()?)] }).await
    }

    /// An id without a hyphen, since ids of grants and permits have their registration's in front of one.
    fn new_id(&self) -> Outcome<String> {
        Ok(hex::encode(self.random.bytes::<8>()?))
    }
}

/// One registration for a title of a directory: the database's key makes it unique, whoever makes it at the same time. Hex:
/// ids of grants and permits have it in front of their hyphen.
fn registration_id(directory: &str, title: &str) -> String {
    // No directory name has a zero octet.
    let digest = digest::digest(&digest::SHA256, format!("{directory}\0{title}").as_bytes());
    hex::encode(digest.as_ref().iter().take(10).copied().collect::<Vec<u8>>())
}

/// A page as it was asked for.
pub(crate) fn page(token: String, size: u32) -> Page {
    let limit = if size == 0 { PAGE } else { size.min(LONGEST_PAGE) };
    if token.is_empty() { Page::first(limit) } else { Page::after(Cursor(token), limit) }
}

/// A name as a person writes it: addresses in any of their spellings.
pub(crate) fn parse_name(text: &str) -> Option<Name> {
    text.parse().map(Name::Ip).or_else(|_| text.parse()).ok()
}

/// The one spelling of a pattern: what grants and permits store.
fn checked_pattern(scope: NameScope, text: &str) -> Outcome<String> {
    let bad = |what: &str| refused(format!("{text:?} is not {what}"));
    if text.starts_with("*.") {
        return Err(refused(format!(
            "{text:?}: give the name without \"*.\"; the kind of grant says what is meant"
        ))
        .into());
    }
    Ok(match scope {
        NameScope::Exact => match parse_name(text) {
            Some(name @ (Name::Dns(_) | Name::Ip(_))) => name.to_string(),
            _ => return Err(bad("a DNS name or an IP address").into()),
        },
        NameScope::Wildcard | NameScope::Subtree => {
            DnsName::parse(text).map_err(|error| refused(format!("{text:?}: {error}")))?.to_string()
        }
        NameScope::IpRange => {
            let range: IpNet = text.parse().map_err(|_| bad("a range of addresses such as 10.1.0.0/16"))?;
            if range.trunc() != range {
                return Err(refused(format!(
                    "{text:?} has bits beyond its prefix; did you mean {}?",
                    range.trunc()
                ))
                .into());
            }
            range.to_string()
        }
    })
}

fn refused(detail: String) -> Refusal {
    Refusal::new(Reason::OperatorRequest, detail)
}
