//! CRLs: the streaming writer against the strict reader and the lints.

use std::collections::HashSet;

use arbitrary::{Result, Unstructured};
use pki::{
    Issuer, Reason, Timestamp,
    crl::{Crl, CrlEdits, CrlError, CrlParameters, CrlScope, CrlWriter, Entry, EntryWriter, assemble},
    lint::{CrlLintContext, check_crl},
};

use crate::authority::{AUTHORITY, SIGNATURE, serial, time};

/// As many entries as make the writer flush its buffer more than once.
const MAX_ENTRIES: usize = 3_000;

/// Octets as they are never make the reader or the lints panic; taken as a description of a CRL, it
/// is written, read back the same, and passes every lint.
pub fn crl(octets: &[u8]) {
    let issuer = &AUTHORITY.issuer;
    if let Ok(crl) = Crl::from_der(octets) {
        assert_eq!(crl.entries().filter(std::result::Result::is_ok).count() as u64, crl.entry_count());
        if let Some(Ok(entry)) = crl.entries().next() {
            assert_eq!(crl.find(&entry.serial), Some(entry));
        }
        let _ = crl.verify_issued_by(issuer.certificate());
        let _ = check_crl(crl.tbs_bytes(), &context(issuer, None, None, &crl));
    }
    let _ = EntryWriter::new(Timestamp::MAX, Vec::new()).copy(octets, &mut CrlEdits::default());
    let _ = described(&mut Unstructured::new(octets));
}

fn context<'a>(
    issuer: &'a Issuer,
    url: Option<&'a str>,
    delta_url: Option<&'a str>,
    crl: &Crl<'_>,
) -> CrlLintContext<'a> {
    CrlLintContext {
        issuer: issuer.certificate(),
        signed_at: crl.this_update(),
        url,
        delta_url,
        previous_number: None,
        publicly_trusted: false,
    }
}

fn described(u: &mut Unstructured<'_>) -> Result<()> {
    let issuer = AUTHORITY.issuer.clone().with_delta_crls(u.arbitrary()?);
    let shard = if u.arbitrary()? { Some(u.arbitrary()?) } else { None };
    let parameters = CrlParameters {
        issuer: &issuer,
        number: u.arbitrary()?,
        this_update: time(u)?,
        next_update: time(u)?,
        scope: shard.map_or(CrlScope::Complete, CrlScope::Shard),
        delta_base: u.arbitrary()?,
    };
    let repeats = u.int_in_range(1..=64)?;
    let mut entries = Vec::new();
    while !u.is_empty() && entries.len() < MAX_ENTRIES {
        let entry = Entry { serial: serial(u)?, revoked_at: time(u)?, reason: *u.choose(&Reason::ALL)? };
        entries.extend(std::iter::repeat_n(entry, repeats));
    }
    let octets = match write(&parameters, &entries) {
        Ok(octets) => octets,
        Err(CrlError::Times) => {
            assert!(parameters.next_update <= parameters.this_update);
            return Ok(());
        }
        Err(CrlError::Base) => {
            assert!(parameters.delta_base >= Some(parameters.number));
            return Ok(());
        }
        Err(CrlError::RevokedLater(serial)) => {
            let later = |entry: &Entry| entry.serial == serial && entry.revoked_at > parameters.this_update;
            assert!(entries.iter().any(later));
            return Ok(());
        }
        Err(error) => panic!("{error}"),
    };
    let der = assemble(&octets, issuer.signature(), &SIGNATURE);
    let crl = Crl::from_der(&der).unwrap();
    assert_eq!(crl.tbs_bytes(), octets);
    assert!(crl.entries().map(std::result::Result::unwrap).eq(entries.iter().copied()));
    assert_eq!((crl.entry_count(), crl.number()), (entries.len() as u64, parameters.number));
    assert_eq!(crl.delta_base(), parameters.delta_base);
    assert_eq!((crl.this_update(), crl.next_update()), (parameters.this_update, parameters.next_update));
    assert_eq!(crl.issuer_der(), issuer.certificate().subject_der());
    assert_eq!(crl.authority_key_id(), issuer.key_id());
    let url = shard.and_then(|shard| issuer.crl_url(shard));
    let delta_url = shard.and_then(|shard| issuer.delta_crl_url(shard));
    assert!(crl.distribution_urls().iter().eq(&url));
    assert!(crl.delta_urls().iter().eq(delta_url.iter().filter(|_| parameters.delta_base.is_none())));
    let context = context(&issuer, url.as_deref(), delta_url.as_deref(), &crl);
    assert_eq!(check_crl(crl.tbs_bytes(), &context), []);
    edited(u, &entries)
}

/// A later CRL's entries, copied from these, are those that would be written anew.
fn edited(u: &mut Unstructured<'_>, entries: &[Entry]) -> Result<()> {
    let encode = |entries: &mut dyn Iterator<Item = &Entry>| {
        let mut writer = EntryWriter::new(Timestamp::MAX, Vec::new());
        entries.for_each(|entry| writer.entry(entry).unwrap());
        writer.finish().unwrap()
    };
    // One entry a certificate, as in a journal.
    let mut seen = HashSet::new();
    let earlier: Vec<Entry> = entries.iter().filter(|entry| seen.insert(entry.serial)).copied().collect();
    let (encoded, _) = encode(&mut earlier.iter());
    let (mut left, mut raised, mut later) = (Vec::new(), Vec::new(), Vec::new());
    for entry in earlier {
        match u.arbitrary::<u8>()? % 8 {
            0 => left.push(entry.serial),
            1 => {
                raised.push(entry.serial);
                later.push(Entry { reason: Reason::KeyCompromise, ..entry });
            }
            _ => later.push(entry),
        }
    }
    let mut edits = CrlEdits::new(left, raised);
    let mut copy = EntryWriter::new(Timestamp::MAX, Vec::new());
    let piece = u.int_in_range(1..=5_000)?;
    let (mut begin, mut end) = (0, 0);
    while end < encoded.len() {
        end = encoded.len().min(end + piece);
        begin += copy.copy(&encoded[begin..end], &mut edits).unwrap();
    }
    assert!(begin == encoded.len() && edits.are_made());
    assert_eq!(copy.finish().unwrap(), encode(&mut later.iter()));
    Ok(())
}

/// Written in pieces, with the length and the digest that its signature would need.
fn write(parameters: &CrlParameters<'_>, entries: &[Entry]) -> std::result::Result<Vec<u8>, CrlError> {
    let mut writer = CrlWriter::start(parameters, entries.iter().collect(), Vec::new())?;
    entries.iter().try_for_each(|entry| writer.entry(entry))?;
    let (octets, tbs) = writer.finish()?;
    assert_eq!((tbs.len, tbs.entries), (octets.len() as u64, entries.len() as u64));
    assert_eq!(tbs.digest, tbs.algorithm.digest(&octets));
    // Entries first, as signers write them.
    let mut ahead = EntryWriter::new(parameters.this_update, Vec::new());
    entries.iter().try_for_each(|entry| ahead.entry(entry))?;
    let (encoded, totals) = ahead.finish()?;
    let mut writer = CrlWriter::start(parameters, totals, Vec::new())?;
    writer.entries_from(encoded.as_slice())?;
    assert!(writer.finish()?.0 == octets);
    Ok(octets)
}
