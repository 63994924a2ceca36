//! A registration's own limits, in the place of its directory's (RFC 8555 §6.6).

use acme::limit::{LimitName, LimitSettings, Limits, Rate, Setting};
use ca_store::{AuthorityRow, RegistrationRow};
use serde_json::json;

use super::{RegistrationSettings, refused};
use crate::ca::Ca;
use crate::refusal::{Outcome, Refusal};

/// What takes a registration's own limit back.
const DEFAULT: &str = "default";

/// A limit that holds for a registration's accounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitInForce {
    /// Which.
    pub name: LimitName,
    /// The limit; none where there is none.
    pub rate: Option<Rate>,
    /// Whether it is the registration's own, and not the directory's.
    pub own: bool,
}

impl Ca {
    /// The limits that hold for a registration's accounts.
    ///
    /// # Errors
    /// A refusal when there is no such registration.
    pub async fn list_limits(&self, registration: &str) -> Outcome<Vec<LimitInForce>> {
        let row = self.secrets.rows.open(self.authority_of(registration).await?.registration)?;
        Ok(self.limits_in_force(&row))
    }

    /// Sets limits of a registration, each a name with a rate, `none`, or `default`: the directory's again. They hold from the
    /// next request on; a front may refuse for a minute still an account that had reached the former.
    ///
    /// # Errors
    /// A refusal when there is no such registration or limit, or a rate cannot be read.
    pub async fn set_limits(
        &self,
        operator: &str,
        registration: &str,
        limits: &[(String, String)],
    ) -> Outcome<Vec<LimitInForce>> {
        let mut row = self.active_registration(registration).await?;
        let mut settings = RegistrationSettings::of(&row);
        if limits.is_empty() {
            return Err(refused("no limit is named".to_owned()).into());
        }
        for (name, rate) in limits {
            set(&mut settings.limits, name, rate)?;
        }
        let changes: serde_json::Map<_, _> =
            limits.iter().map(|(name, rate)| (name.clone(), json!(rate))).collect();
        row.settings = json!(settings).to_string();
        let expected = row.version;
        row.version += 1;
        let change = AuthorityRow::Registration(self.secrets.rows.seal(row.clone()));
        let detail = json!({ "limits": changes });
        self.act(operator, "registration.limits", registration, detail, vec![(change, Some(expected))])
            .await?;
        Ok(self.limits_in_force(&row))
    }

    fn limits_in_force(&self, row: &RegistrationRow) -> Vec<LimitInForce> {
        let own = RegistrationSettings::of(row).limits;
        let directory = row.directory.parse().ok().and_then(|name| self.registry.directory(&name));
        let limits = match directory {
            Some(directory) => directory.policy.limits_of(&own),
            // It is not in the policy any more.
            None => Limits::default().with(&own),
        };
        let of_registrations =
            LimitName::ALL.iter().filter(|name| **name != LimitName::accounts_per_address());
        of_registrations
            .map(|&name| LimitInForce { name, rate: limits.of(name), own: own.of(name).is_some() })
            .collect()
    }
}

fn set(settings: &mut LimitSettings, name: &str, rate: &str) -> Result<(), Refusal> {
    let limit: LimitName = name.parse().map_err(|error| refused(format!("{name:?}: {error}")))?;
    if limit == LimitName::accounts_per_address() {
        let detail = "accounts_per_address is counted before it is known whose account it will be: set it in policy.toml";
        return Err(refused(detail.to_owned()));
    }
    let setting: Option<Setting> = match rate {
        DEFAULT => None,
        rate => {
            let setting = rate.parse().map_err(|error| {
                refused(format!("{name} = {rate:?}: {error}, or {DEFAULT:?} for the directory's"))
            })?;
            Some(setting)
        }
    };
    settings.set(limit, setting);
    Ok(())
}
