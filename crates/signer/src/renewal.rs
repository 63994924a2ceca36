//! Renewal information (RFC 9773): when a certificate is to be renewed, and which orders may replace one.
//!
//! Nobody has to prove anything to read it. It grants nothing: what a front says of it can keep a client from renewing in
//! time, and changes nothing of a revocation.

use acme::DirectoryName;
use acme::renewal::{CertificateId, Window};
use ca_store::{JournalEntry, JournalKey, JournalKind, JournalRow, RevocationRow};
use pki::{Period, Serial, Timestamp};

use crate::account::Account;
use crate::ca::Ca;
use crate::order::Terms;
use crate::policy::RenewalPolicy;
use crate::refusal::{Outcome, Reason, Refusal};
use crate::registry::Directory;
use crate::request::ClientRequest;
use crate::revoke::{is_by_the_ca, names_of};

/// What a directory says of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenewalInfo {
    /// When it is to be renewed.
    pub window: Window,
    /// A page that says why, for people.
    pub explanation_url: Option<String>,
    /// When to ask again.
    pub retry_after: Period,
}

/// When to ask again about a certificate in an incident, at the latest.
const IN_INCIDENT: Period = Period::from_hours(1);
/// How long a window of the past was.
const PAST: Period = Period::from_hours(1);

impl Ca {
    /// When a certificate of the directory's issuers is to be renewed. One that is revoked: in the past; so it is, by itself,
    /// with one that has expired. That it has a successor changes nothing (RFC 9773 has no word for it).
    ///
    /// # Errors
    /// A refusal when there is no such certificate, or the directory does not say.
    pub async fn renewal_info(&self, directory: &DirectoryName, id: &CertificateId) -> Outcome<RenewalInfo> {
        let unknown = || {
            Refusal::new(Reason::CertificateUnknown, "there is no such certificate in this directory")
                .status(404)
                .directory(directory.as_str())
        };
        let directory = self.registry.directory(directory).ok_or_else(unknown)?;
        let policy = &directory.policy.renewal;
        let found = if policy.offered { self.certificate_with_id(directory, id).await? } else { None };
        let (row, revocation) = found.ok_or_else(unknown)?;
        let now = self.now()?;
        let retry_after = policy.retry_after;
        if let Some(revocation) = &revocation {
            return Ok(RenewalInfo { window: past(revocation, now), explanation_url: None, retry_after });
        }
        let usual = usual(policy, &row);
        Ok(match self.moved_window(&row.serial, usual).await? {
            Some((window, url)) => {
                let retry_after = retry_after.min(IN_INCIDENT);
                RenewalInfo { window, explanation_url: Some(url), retry_after }
            }
            None => RenewalInfo { window: usual, explanation_url: None, retry_after },
        })
    }

    /// The certificate of the directory's issuers that has this id.
    async fn certificate_with_id(
        &self,
        directory: &Directory,
        id: &CertificateId,
    ) -> Outcome<Option<(JournalRow, Option<RevocationRow>)>> {
        let entries = self.store.journal(&JournalKey::Serial(id.serial)).await?;
        let is_certificate = |entry: &JournalEntry| {
            matches!(entry.row.unverified().kind, JournalKind::Final | JournalKind::Server)
        };
        let Some(entry) = entries.into_iter().find(is_certificate) else { return Ok(None) };
        let revocation = entry.revocation.clone();
        let row = self.journal.open(entry)?;
        let issuer = self.registry.issuer(&row.issuer);
        let is_its = issuer.is_some_and(|issuer| {
            issuer.issuer.key_id() == id.authority_key_id && issuer.pool == directory.pool().name()
        });
        Ok((is_its && row.signature.is_some()).then_some((row, revocation)))
    }

    /// The certificate that an order is to replace (RFC 9773 §5): the account's own, of the same directory, with at least one
    /// name in common. Whether it has a successor, the intent's transaction says in the end; `is_new` asks already now. Says
    /// whether the order renews it at its time, and is exempt from limits.
    pub(crate) async fn check_replaced(
        &self,
        request: &ClientRequest,
        account: &Account,
        terms: &Terms,
        is_new: bool,
        now: Timestamp,
    ) -> Outcome<bool> {
        let Some(id) = &terms.replaces else { return Ok(false) };
        let directory = request.directory();
        let found = self.certificate_with_id(directory, id).await?;
        let of_directory =
            |(row, _): &(JournalRow, _)| row.directory.as_deref() == Some(directory.name().as_str());
        let Some((row, revocation)) = found.filter(of_directory) else {
            let detail = "replaces: there is no such certificate in this directory";
            return Err(request.refuse(Reason::ReplacedUnknown, detail).status(404).into());
        };
        if row.account.as_deref() != Some(account.row.id.as_str()) {
            let detail = "replaces: the certificate is another account's";
            return Err(request.refuse(Reason::ReplacedForeign, detail).into());
        }
        let names = names_of(&row);
        if !names.is_some_and(|names| names.iter().any(|name| terms.names.contains(name))) {
            let detail = "replaces: the order has no name of the certificate";
            return Err(request.refuse(Reason::ReplacedNames, detail).into());
        }
        if is_new && !self.store.journal(&JournalKey::Replacing(id.serial)).await?.is_empty() {
            return Err(already_replaced(request).into());
        }
        self.is_due(directory, &row, revocation.as_ref(), now).await
    }

    /// Whether it is time for a certificate's successor. What its client brings about by itself makes it no time: or else one
    /// certificate would be followed by as many as somebody likes that no limit counts.
    async fn is_due(
        &self,
        directory: &Directory,
        row: &JournalRow,
        revocation: Option<&RevocationRow>,
        now: Timestamp,
    ) -> Outcome<bool> {
        if let Some(revocation) = revocation {
            return Ok(is_by_the_ca(&revocation.source));
        }
        // A name whose certificate has ended is as good as new: or else they could be saved up.
        if now > row.not_after {
            return Ok(false);
        }
        let policy = &directory.policy.renewal;
        let usual = usual(policy, row);
        let whole = directory.profile(Some(&row.profile)).map(|profile| profile.validity());
        if now >= usual.start() && now >= earliest(policy, row, whole) {
            return Ok(true);
        }
        let moved = self.moved_window(&row.serial, usual).await?;
        Ok(moved.is_some_and(|(window, _)| now >= window.start()))
    }
}

/// When a certificate of its profile's validity would be renewed at the earliest: this one may be shorter, by its client's wish
/// (RFC 8555 §7.4, `notAfter`).
fn earliest(policy: &RenewalPolicy, row: &JournalRow, whole: Option<Period>) -> Timestamp {
    let whole = whole.map_or(0, Period::seconds);
    row.not_before.plus(Period::from_seconds(whole.saturating_mul(policy.renewal_at_percent.into()) / 100))
}

/// The certificate has a successor.
pub(crate) fn already_replaced(request: &ClientRequest) -> Refusal {
    request.refuse(Reason::AlreadyReplaced, "replaces: the certificate was replaced already")
}

/// At the revocation, whichever clock it was by.
fn past(revocation: &RevocationRow, now: Timestamp) -> Window {
    let end = revocation.revoked_at.min(now).minus(Period::from_seconds(1));
    Window::new(end.minus(PAST), end)
}

/// The policy's window: half as long as all windows take together, begun somewhere in the first half of that.
fn usual(policy: &RenewalPolicy, row: &JournalRow) -> Window {
    // notAfter is the last second (RFC 5280 §4.1.2.5).
    let lifetime = row.not_after.since(row.not_before).seconds() + 1;
    let share = |percent: u8| lifetime.saturating_mul(percent.into()) / 100;
    let span = share(policy.renewal_window_percent);
    let first_half = span / 2;
    let offset = (u128::from(first_half) * u128::from(spread(&row.serial, WINDOW_OCTETS))) >> 32;
    let after = share(policy.renewal_at_percent) + u64::try_from(offset).unwrap_or(first_half);
    let start = row.not_before.plus(Period::from_seconds(after));
    let end = start.plus(Period::from_seconds(span - first_half));
    Window::new(start, end.min(row.not_after))
}

/// The octets of a serial that say where its usual window begins.
const WINDOW_OCTETS: usize = 8;

/// Four octets of a serial, from a place on: random numbers that stay the certificate's. The last four are its CRL shard's.
pub(crate) fn spread(serial: &Serial, from: usize) -> u32 {
    let octets = serial.as_bytes().iter().skip(from).take(4);
    octets.fold(0, |sum, octet| (sum << 8) | u32::from(*octet))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(serial: [u8; 16], lifetime: u64) -> JournalRow {
        let not_before = Timestamp::from_unix(1_800_000_000);
        JournalRow {
            serial: Serial::from_random(serial),
            kind: JournalKind::Final,
            order: None,
            new_order: None,
            directory: None,
            account: None,
            issuer: String::new(),
            profile: String::new(),
            shard: 0,
            spki_sha256: [0; 32],
            csr_sha256: None,
            not_before,
            not_after: not_before.plus(Period::from_seconds(lifetime - 1)),
            tbs: Vec::new(),
            created_at: not_before,
            signature: None,
            signed_at: None,
            abandoned_at: None,
            replaces: None,
            counted: true,
        }
    }

    /// Hundredths of the lifetime at which the window of a serial begins and ends.
    fn window_of(serial: [u8; 16], lifetime: u64, policy: &RenewalPolicy) -> (u64, u64) {
        let row = row(serial, lifetime);
        let window = usual(policy, &row);
        assert!(window.start() < window.end());
        let at = |time: Timestamp| time.since(row.not_before).seconds() * 100 / lifetime;
        (at(window.start()), at(window.end()))
    }

    #[test]
    fn i1_windows_are_spread_by_serial_and_within_the_policys_time() {
        let (policy, lifetime) = (RenewalPolicy::default(), 90 * 86_400);
        let with = |octet: u8| std::array::from_fn(|at| if (8..12).contains(&at) { octet } else { 7 });
        assert_eq!(window_of(with(0), lifetime, &policy), (66, 76));
        assert_eq!(window_of(with(0x80), lifetime, &policy), (71, 81));
        assert_eq!(window_of(with(0xff), lifetime, &policy), (75, 85));
        // Always the same of a certificate; other octets do not matter.
        let mut other = with(0x80);
        other[3] ^= 1;
        other[15] ^= 1;
        assert_eq!(window_of(other, lifetime, &policy), (71, 81));
        let late = RenewalPolicy { renewal_at_percent: 80, renewal_window_percent: 20, ..policy };
        assert_eq!(window_of(with(0xff), lifetime, &late), (89, 99));
    }

    #[test]
    fn a18_a_short_life_is_not_renewed_sooner_than_a_whole_one() {
        let (policy, whole) = (RenewalPolicy::default(), Period::from_days(90));
        let hour = row([7; 16], 3600);
        let at = |whole| earliest(&policy, &hour, whole).since(hour.not_before).seconds();
        assert_eq!(at(Some(whole)), whole.seconds() * 66 / 100);
        assert_eq!(at(None), 0, "its profile is gone: so is what it could be renewed with");
        // A whole one's window begins no sooner than that.
        let ninety = row([0; 16], whole.seconds());
        assert!(usual(&policy, &ninety).start() >= earliest(&policy, &ninety, Some(whole)));
    }

    #[test]
    fn i1_the_end_is_after_the_beginning_however_short_the_life() {
        for lifetime in [1, 2, 3, 10, 60, 3600] {
            let row = row([0xff; 16], lifetime);
            let window = usual(&RenewalPolicy::default(), &row);
            assert!(window.start() < window.end(), "{lifetime}");
            assert!(window.start() <= row.not_after, "{lifetime}");
        }
    }

    #[test]
    fn i2_a_revoked_certificates_window_is_over() {
        let now = Timestamp::from_unix(1_800_000_000);
        // Another signer's clock may be ahead.
        for revoked_at in [now.minus(PAST), now, now.plus(PAST)] {
            let revocation = RevocationRow {
                serial: Serial::from_random([1; 16]),
                issuer: String::new(),
                shard: 0,
                revision: 1,
                revoked_at,
                reason: pki::Reason::Superseded,
                source: String::new(),
                not_after: now,
                upgrade: None,
            };
            let window = past(&revocation, now);
            assert!(window.start() < window.end() && window.end() < now);
        }
    }
}
