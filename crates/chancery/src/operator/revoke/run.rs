//! A run: pages, one after the other, and again when a signer did not answer.

use std::collections::HashSet;
use std::io::Write as _;
use std::time::Duration;

use anyhow::bail;
use indicatif::{ProgressBar, ProgressStyle};
use pki::{ErrorClass, Reason};
use rpc::proto::admin::v1 as admin;
use serde_json::{Value, json};
use tonic::Status;

use crate::operator::{Connection, explain, show};

/// Pauses while no signer answers, some two minutes in all: a signer that is started again, or another one of the list, has
/// answered by then. After an answer they begin anew.
const PAUSES_MILLISECONDS: [u64; 14] =
    [0, 100, 250, 500, 1000, 2000, 4000, 8000, 10_000, 15_000, 20_000, 20_000, 20_000, 20_000];

pub(in crate::operator) struct Runner {
    pub(in crate::operator) signer: Connection,
    pub(in crate::operator) selectors: Vec<admin::CertificateSelector>,
    pub(in crate::operator) reason: Reason,
    pub(in crate::operator) page_size: u32,
    pub(in crate::operator) json: bool,
}

/// What a run came to, or would. A certificate counts once, on however many pages it was.
#[derive(Debug, Default)]
pub(in crate::operator) struct Tally {
    certificates: HashSet<String>,
    upgraded: usize,
    /// Selected for their key alone.
    pub(in crate::operator) sharing: usize,
    pub(in crate::operator) already: HashSet<String>,
    pub(in crate::operator) expired: HashSet<String>,
    unknown: Vec<String>,
    tampered: Vec<String>,
    keys_blocked: u64,
    runs: Vec<String>,
}

impl Tally {
    pub(in crate::operator) fn count(&self) -> usize {
        self.certificates.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.certificates.is_empty()
    }

    /// Takes a page in; answers with the certificates that are new.
    fn add(&mut self, page: admin::SelectionPage) -> Vec<admin::SelectedCertificate> {
        let mut new = Vec::new();
        for selected in page.certificates {
            let serial = selected.certificate.as_ref().map(|it| it.serial.clone()).unwrap_or_default();
            if self.certificates.insert(serial.clone()) {
                self.already.remove(&serial);
                self.upgraded += usize::from(selected.upgraded);
                self.sharing += usize::from(selected.shares_key);
                new.push(selected);
            }
        }
        let certificates = &self.certificates;
        self.already.extend(page.already_revoked.into_iter().filter(|it| !certificates.contains(it)));
        self.expired.extend(page.expired);
        self.unknown.extend(page.unknown);
        self.tampered.extend(page.tampered);
        self.keys_blocked += page.keys_blocked;
        if !page.run.is_empty() && !self.runs.contains(&page.run) {
            self.runs.push(page.run);
        }
        new
    }

    /// # Errors
    /// When something that was asked for cannot be revoked.
    pub(in crate::operator) fn complete(&self) -> anyhow::Result<()> {
        complete(&self.unknown, &self.tampered)
    }
}

/// # Errors
/// When there is any of what was asked for and cannot be had.
pub(in crate::operator) fn complete(unknown: &[String], tampered: &[String]) -> anyhow::Result<()> {
    let mut left = Vec::new();
    if !unknown.is_empty() {
        left.push(format!("no such certificate, or not with these conditions: {}", unknown.join(" ")));
    }
    if !tampered.is_empty() {
        left.push(format!(
            "their rows in the database were changed by something else than a signer, see the audit trail: {}",
            tampered.join(" ")
        ));
    }
    if left.is_empty() { Ok(()) } else { bail!("{}", left.join("\n")) }
}

impl Runner {
    /// What would be revoked. `list`: shows each certificate.
    pub(in crate::operator) async fn look(&mut self, list: bool) -> anyhow::Result<Tally> {
        let mut tally = Tally::default();
        if list && !self.json {
            println!("{:<34}  {:<20}  {:<43}  NAMES", "SERIAL", "NOT AFTER", "ACCOUNT");
        }
        for selector in self.selectors.clone() {
            let mut page_token = String::new();
            loop {
                let request = admin::SelectCertificatesRequest {
                    selector: Some(selector.clone()),
                    reason: u32::from(self.reason.code()),
                    page_token,
                    page_size: self.page_size,
                };
                let page = patiently(|| {
                    let (mut signer, request) = (self.signer.clone(), request.clone());
                    async move { signer.select_certificates(request).await }
                })
                .await?;
                page_token = page.next_page_token.clone();
                for selected in tally.add(page) {
                    if list {
                        self.show(&selected, true)?;
                    }
                }
                if page_token.is_empty() {
                    break;
                }
            }
        }
        Ok(tally)
    }

    /// Revokes, page by page; `done` has what was, whenever it is given up.
    pub(super) async fn revoke(&mut self, told: &Tally, done: &mut Tally) -> anyhow::Result<()> {
        let bar = self.bar(told.count());
        let (mut run, expected) = (String::new(), told.count() as u64);
        for selector in self.selectors.clone() {
            let mut page_token = String::new();
            loop {
                let request = admin::RevokeSelectedRequest {
                    selector: Some(selector.clone()),
                    reason: u32::from(self.reason.code()),
                    page_token,
                    page_size: self.page_size,
                    run: run.clone(),
                    expected,
                };
                let page = patiently(|| {
                    let (mut signer, request) = (self.signer.clone(), request.clone());
                    async move { signer.revoke_selected(request).await }
                })
                .await?;
                page_token = page.next_page_token.clone();
                run.clone_from(&page.run);
                for selected in done.add(page) {
                    if self.json {
                        self.show(&selected, false)?;
                    }
                }
                bar.set_length(bar.length().unwrap_or(0).max(done.count() as u64));
                bar.set_position(done.count() as u64);
                if page_token.is_empty() {
                    break;
                }
            }
        }
        bar.finish_and_clear();
        Ok(())
    }

    fn bar(&self, count: usize) -> ProgressBar {
        if self.json {
            return ProgressBar::hidden();
        }
        let bar = ProgressBar::new(count as u64);
        if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} revoked, {per_sec}, {eta} left")
        {
            bar.set_style(style);
        }
        bar
    }

    /// A certificate on a line.
    fn show(&self, selected: &admin::SelectedCertificate, dry_run: bool) -> anyhow::Result<()> {
        let certificate = selected.certificate.clone().unwrap_or_default();
        let mut out = std::io::stdout().lock();
        if self.json {
            let outcome = match (dry_run, selected.upgraded) {
                (true, false) => "would-revoke",
                (true, true) => "would-upgrade",
                (false, false) => "revoked",
                (false, true) => "upgraded",
            };
            let line = json!({
                "serial": certificate.serial,
                "outcome": outcome,
                "reason": self.reason.as_str(),
                "revoked_at": show::time(selected.revoked_at),
                "shares_key": selected.shares_key,
                "issuer": certificate.issuer_id,
                "account": certificate.account_id,
                "names": certificate.names,
                "not_after": show::time(certificate.not_after),
            });
            writeln!(out, "{line}")?;
        } else {
            let note = match (selected.shares_key, selected.upgraded) {
                (true, true) => "  (shares a key; revoked for another reason)",
                (true, false) => "  (shares a key)",
                (false, true) => "  (revoked for another reason)",
                (false, false) => "",
            };
            let not_after = show::time(certificate.not_after);
            writeln!(
                out,
                "{:<34}  {:<20}  {:<43}  {}{note}",
                certificate.serial,
                not_after.as_str().unwrap_or("-"),
                if certificate.account_id.is_empty() { "-" } else { &certificate.account_id },
                certificate.names.join(" "),
            )?;
        }
        Ok(())
    }

    /// The last word.
    pub(super) fn summarize(&self, tally: &Tally, dry_run: bool) {
        if self.json {
            let summary = json!({
                "dry_run": dry_run,
                "reason": self.reason.as_str(),
                (if dry_run { "would_revoke" } else { "revoked" }): tally.count() - tally.upgraded,
                (if dry_run { "would_upgrade" } else { "upgraded" }): tally.upgraded,
                "shares_key": tally.sharing,
                "already_revoked": tally.already.len(),
                "expired": tally.expired.len(),
                "unknown": tally.unknown,
                "tampered": tally.tampered,
                "keys_blocked": tally.keys_blocked,
                "run": tally.runs.first().map_or(Value::Null, |run| run.as_str().into()),
            });
            println!("{}", json!({ "summary": summary }));
            return;
        }
        let verb = if dry_run { "would be revoked" } else { "revoked" };
        let mut words = vec![format!("{} {verb}", tally.count())];
        let mut also = |count: usize, what: &str| {
            if count > 0 {
                words.push(format!("{count} {what}"));
            }
        };
        also(tally.upgraded, "of them for another reason before");
        also(tally.sharing, "of them for a shared key alone");
        also(tally.keys_blocked.try_into().unwrap_or(usize::MAX), "keys blocked");
        words.push(format!(
            "left out: {} revoked already, {} expired",
            tally.already.len(),
            tally.expired.len()
        ));
        println!("{}", words.join("; "));
    }
}

/// Asks, and again while no signer answers: for calls that may be repeated.
pub(in crate::operator) async fn patiently<F, A, T>(mut ask: F) -> anyhow::Result<T>
where
    F: FnMut() -> A,
    A: Future<Output = Result<tonic::Response<T>, Status>>,
{
    let mut pauses = PAUSES_MILLISECONDS.into_iter().enumerate();
    loop {
        match ask().await {
            Ok(answer) => return Ok(answer.into_inner()),
            Err(status) if rpc::status_class(&status) == ErrorClass::Transient => match pauses.next() {
                Some((tries, pause)) => {
                    if tries == 3 {
                        eprintln!("No signer answers ({}); trying again for two minutes.", status.message());
                    }
                    let pause = Duration::from_millis(pause);
                    tokio::time::sleep(rpc::retry_after(&status).unwrap_or_default().max(pause)).await;
                }
                None => return Err(explain(status)),
            },
            Err(status) => return Err(explain(status)),
        }
    }
}
