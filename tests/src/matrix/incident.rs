//! An incident over one certificate: how an operator has a client renew at once (RFC 9773).

use std::time::{Duration, SystemTime};

use pki::{Serial, Timestamp};
use serde_json::Value;

use super::{Feature, Run};
use crate::program::succeed;

/// A window that began so long ago lies in the past as a whole: no client picks a later time in it.
const BEGAN_AGO: Duration = Duration::from_secs(3600);

/// An incident that is open.
#[derive(Debug)]
pub struct Incident(String);

impl Run {
    /// The CA asks for a renewal of this certificate at once: an operator opens an incident.
    ///
    /// # Panics
    ///
    /// When it cannot be opened.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the demo's clock is this host's")]
    pub fn open_incident(&self, serial: &Serial) -> Incident {
        let began = Timestamp::from(SystemTime::now() - BEGAN_AGO);
        let mut command = self.demo.operator();
        command.args(["incident", "open"]).arg(serial.to_string());
        command.args(["--title", "wrong policy OID", "--url", "https://ca.example/incidents/7"]);
        command.args(["--deadline", "+1d", "--waves", "1", "--wave-minutes", "1", "--yes", "--json"]);
        command.arg("--begins").arg(began.to_string());
        let said: Value = serde_json::from_slice(&succeed(&mut command).stdout).expect("JSON");
        assert_eq!((&said["state"], &said["total"]["left"]), (&"open".into(), &1.into()), "{said}");
        Incident(said["id"].as_str().expect("its id").to_owned())
    }

    /// What the incident asked for was done: `renewed`, or `replaced` where the client names the certificate in `replaces`.
    ///
    /// # Panics
    ///
    /// When it was not.
    pub fn has_followed(&self, incident: &Incident, how: &str) {
        let mut command = self.demo.operator();
        command.args(["incident", "report", "--json"]).arg(&incident.0);
        let said: Value = serde_json::from_slice(&succeed(&mut command).stdout).expect("JSON");
        assert_eq!((&said["total"][how], &said["total"]["left"]), (&1.into(), &0.into()), "{said}");
        self.did(Feature::Ari);
    }
}
