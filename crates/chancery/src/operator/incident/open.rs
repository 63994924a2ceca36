//! `chancery incident open`: look, ask, make the incident, collect its certificates, start it.

use std::io::{IsTerminal as _, Write as _};

use anyhow::{Context as _, bail};
use pki::Reason;
use rpc::proto::admin::v1 as admin;
use serde_json::json;

use super::{OpenArgs, members, now, progress, report};
use crate::operator::revoke::run::{Runner, Tally, complete, patiently};
use crate::operator::revoke::selector;
use crate::operator::{Connection, explain, show};

pub(super) struct Opening {
    pub(super) signer: Connection,
    pub(super) json: bool,
    pub(super) args: OpenArgs,
}

/// What the incident will be, or is already where one is resumed.
struct Terms {
    reason: Reason,
    waves: u32,
    /// Unix seconds.
    begins: i64,
    wave_seconds: i64,
    /// Unix seconds.
    deadline: i64,
}

impl Opening {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let selectors = selector::read(&self.args.selection)?;
        let stored = match &self.args.resume {
            Some(id) => Some(self.stored(id).await?),
            None => None,
        };
        if let Some(incident) = &stored
            && incident.state != "collecting"
        {
            // The answer of its start was lost.
            report::show(self.json, incident, None)?;
            if incident.state == "open" {
                return Ok(());
            }
            bail!("incident {} is {}: there is nothing to go on with", incident.id, incident.state);
        }
        if let (Some(incident), false) = (&stored, self.json) {
            show::object(false, &members(incident))?;
            println!();
        }
        let mut runner = Runner {
            signer: self.signer.clone(),
            selectors: selectors.clone(),
            reason: match &stored {
                Some(incident) => reason(incident)?,
                None => self.args.reason.reason(),
            },
            page_size: 0,
            json: self.json,
        };
        let told = runner.look(false).await.context("nothing was changed")?;
        told.complete()?;
        let terms = match &stored {
            Some(incident) => Terms::of(incident)?,
            None => Terms::asked(&self.args, told.count() as u64)?,
        };
        if self.args.dry_run {
            return self.plan(&told, &terms);
        }
        self.confirm(&told, &terms)?;
        let id = match stored {
            Some(incident) => incident.id,
            None => self.open(&terms).await?,
        };
        let collected = self.collect(&id, selectors, told.count() as u64).await;
        collected.with_context(|| {
            format!(
                "incident {id} is not complete, and nothing follows from it yet: go on with --resume {id}"
            )
        })?;
        let request = admin::IncidentRequest { incident: id.clone() };
        let started = patiently(|| {
            let (mut signer, request) = (self.signer.clone(), request.clone());
            async move { signer.start_incident(request).await }
        });
        started.await.with_context(|| format!("incident {id} has not started: go on with --resume {id}"))?;
        report::show(self.json, &self.stored(&id).await?, None)
    }

    async fn stored(&self, id: &str) -> anyhow::Result<admin::Incident> {
        let mut signer = self.signer.clone();
        let request = admin::IncidentRequest { incident: id.to_owned() };
        Ok(signer.show_incident(request).await.map_err(explain)?.into_inner())
    }

    /// What would be, and nothing else.
    fn plan(&self, told: &Tally, terms: &Terms) -> anyhow::Result<()> {
        let waves = i64::from(terms.waves);
        let ends = terms.begins.saturating_add(terms.wave_seconds.saturating_mul(waves));
        show::object(
            self.json,
            &[
                ("would_be_selected", json!(told.count())),
                ("already_revoked", json!(told.already.len())),
                ("expired", json!(told.expired.len())),
                ("reason", json!(terms.reason.as_str())),
                ("waves", json!(terms.waves)),
                ("certificates_per_wave", json!((told.count() as u64).div_ceil(terms.waves.max(1).into()))),
                ("first_wave_begins", show::time(terms.begins)),
                ("last_wave_ends", show::time(ends)),
                ("deadline", show::time(terms.deadline)),
            ],
        )
    }

    fn confirm(&self, told: &Tally, terms: &Terms) -> anyhow::Result<()> {
        if told.count() == 0 {
            bail!("no certificate is to be replaced; nothing was changed");
        }
        if self.args.yes {
            return Ok(());
        }
        if !(std::io::stdin().is_terminal() && std::io::stderr().is_terminal()) {
            bail!("nobody can be asked: look with --dry-run, then say --yes");
        }
        let (count, waves, deadline) = (told.count(), terms.waves, show::time(terms.deadline));
        let fate = match terms.reason {
            Reason::KeyCompromise => "block their keys and revoke all of them",
            _ => "revoke what is left",
        };
        eprint!(
            "Have {count} certificates replaced in {waves} waves, and {fate} at {}, reason {}? Type \"yes\": ",
            deadline.as_str().unwrap_or_default(),
            terms.reason,
        );
        std::io::stderr().flush()?;
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer)?;
        if answer.trim() != "yes" {
            bail!("nothing was changed");
        }
        Ok(())
    }

    async fn open(&self, terms: &Terms) -> anyhow::Result<String> {
        let mut signer = self.signer.clone();
        let request = admin::OpenIncidentRequest {
            title: self.args.title.clone().unwrap_or_default(),
            url: self.args.url.clone().unwrap_or_default(),
            reason: u32::from(terms.reason.code()),
            deadline: terms.deadline,
            begins_at: self.args.begins.unwrap_or_default(),
            waves: terms.waves,
            wave_seconds: self.args.wave_minutes.map_or(0, |minutes| minutes * 60),
        };
        Ok(signer.open_incident(request).await.map_err(explain)?.into_inner().id)
    }

    /// Makes all that is selected members.
    ///
    /// # Errors
    /// When something that was asked for is not among them.
    async fn collect(
        &self,
        id: &str,
        selectors: Vec<admin::CertificateSelector>,
        count: u64,
    ) -> anyhow::Result<()> {
        let bar = progress(self.json, count, "selected");
        let mut collected = Collected::default();
        for selector in selectors {
            let mut page_token = Some(String::new());
            while let Some(token) = page_token {
                let request = admin::CollectIncidentRequest {
                    incident: id.to_owned(),
                    selector: Some(selector.clone()),
                    page_token: token,
                    page_size: 0,
                };
                let page = patiently(|| {
                    let (mut signer, request) = (self.signer.clone(), request.clone());
                    async move { signer.collect_incident(request).await }
                })
                .await?;
                bar.inc(page.left);
                page_token = collected.take(page);
            }
        }
        bar.finish_and_clear();
        complete(&collected.unknown, &collected.tampered)
    }
}

/// What could not be made a member, over all pages.
#[derive(Debug, Default)]
struct Collected {
    unknown: Vec<String>,
    tampered: Vec<String>,
}

impl Collected {
    /// Takes a page in; where to go on.
    fn take(&mut self, page: admin::CollectIncidentResponse) -> Option<String> {
        self.unknown.extend(page.unknown);
        self.tampered.extend(page.tampered);
        Some(page.next_page_token).filter(|token| !token.is_empty())
    }
}

impl Terms {
    fn of(incident: &admin::Incident) -> anyhow::Result<Self> {
        Ok(Self {
            reason: reason(incident)?,
            waves: incident.waves,
            begins: incident.begins_at,
            wave_seconds: i64::try_from(incident.wave_seconds).unwrap_or(i64::MAX),
            deadline: incident.deadline,
        })
    }

    fn asked(args: &OpenArgs, count: u64) -> anyhow::Result<Self> {
        let deadline = args.deadline.context("--deadline is missing")?;
        let begins = args.begins.unwrap_or_else(now);
        let waves = args.wave_size.map_or(args.waves, |size| waves_of(count, size));
        let share = deadline.saturating_sub(begins) / (i64::from(waves) + 1);
        let wave_seconds = args
            .wave_minutes
            .map_or(share, |minutes| i64::try_from(minutes.saturating_mul(60)).unwrap_or(i64::MAX));
        Ok(Self { reason: args.reason.reason(), waves, begins, wave_seconds, deadline })
    }
}

/// The most waves that an incident may have.
const MOST_WAVES: u32 = 366;

/// As many waves as no one needs to have more than `size` certificates, were they spread evenly.
fn waves_of(count: u64, size: u64) -> u32 {
    u32::try_from(count.div_ceil(size.max(1))).unwrap_or(MOST_WAVES).clamp(1, MOST_WAVES)
}

fn reason(incident: &admin::Incident) -> anyhow::Result<Reason> {
    Reason::try_from(i64::from(incident.reason))
        .with_context(|| format!("incident {} has no reason that is known here", incident.id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_wave_has_more_than_its_size() {
        let cases = [(0, 10, 1), (1, 10, 1), (10, 10, 1), (11, 10, 2), (19, 10, 2), (21, 10, 3), (9, 0, 9)];
        for (count, size, waves) in cases {
            assert_eq!(waves_of(count, size), waves, "{count} by {size}");
        }
        assert_eq!(waves_of(u64::MAX, 1), 366);
    }

    #[test]
    fn what_a_page_could_not_collect_is_remembered() {
        let mut collected = Collected::default();
        let page = |unknown: &[&str], tampered: &[&str], next: &str| {
            let texts = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect();
            let (unknown, tampered) = (texts(unknown), texts(tampered));
            let next_page_token = next.to_owned();
            admin::CollectIncidentResponse { unknown, tampered, next_page_token, ..Default::default() }
        };
        assert_eq!(collected.take(page(&[], &[], "2")).as_deref(), Some("2"));
        complete(&collected.unknown, &collected.tampered).unwrap();
        assert_eq!(collected.take(page(&["5a01"], &["5a02"], "3")).as_deref(), Some("3"));
        assert_eq!(collected.take(page(&[], &[], "")), None);
        let error = complete(&collected.unknown, &collected.tampered).unwrap_err().to_string();
        assert!(error.contains("5a01") && error.contains("5a02"), "{error}");
    }
}
