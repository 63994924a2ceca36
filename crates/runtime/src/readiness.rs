//! Whether a program can do its work, and on what that depends.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;
use serde::Serialize;

/// The named dependencies of a program. Clones are one register.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    register: Arc<Mutex<BTreeMap<String, Entry>>>,
}

/// How a dependency is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum State {
    /// Nothing was heard of it yet.
    Waiting,
    /// It works.
    Up,
    /// It does not, and why.
    Down {
        /// For the operator.
        detail: String,
    },
}

#[derive(Clone, Debug, Serialize)]
struct Entry {
    required: bool,
    #[serde(flatten)]
    state: State,
}

/// The whole of it, as `/health/ready` shows it.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    ready: bool,
    draining: bool,
    dependencies: BTreeMap<String, Entry>,
}

impl Report {
    /// Whether work can be given to this program.
    pub fn is_ready(&self) -> bool {
        self.ready
    }
}

impl Readiness {
    /// Names something without which the program is not ready. It waits until it is reported up.
    pub fn dependency(&self, name: impl Into<String>) -> Dependency {
        self.enter(name.into(), true)
    }

    /// Names something whose failure shows, but does not make the program unready.
    pub fn notice(&self, name: impl Into<String>) -> Dependency {
        self.enter(name.into(), false)
    }

    /// How everything is.
    pub fn report(&self, draining: bool) -> Report {
        let dependencies = self.register.lock().clone();
        let up = dependencies.values().all(|entry| !entry.required || entry.state == State::Up);
        // A role that has not yet said what it needs has not started.
        let fit = up && !dependencies.is_empty();
        Report { ready: fit && !draining, draining, dependencies }
    }

    fn enter(&self, name: String, required: bool) -> Dependency {
        self.register.lock().insert(name.clone(), Entry { required, state: State::Waiting });
        metrics::gauge!("chancery_dependency_up", "name" => name.clone()).set(0.0);
        Dependency { name: name.into(), readiness: self.clone() }
    }
}

/// The right to report on one dependency.
#[derive(Clone, Debug)]
pub struct Dependency {
    name: Arc<str>,
    readiness: Readiness,
}

impl Dependency {
    /// It works.
    pub fn up(&self) {
        self.set(State::Up);
    }

    /// It does not.
    pub fn down(&self, detail: impl Into<String>) {
        self.set(State::Down { detail: detail.into() });
    }

    /// Its last report.
    pub fn state(&self) -> State {
        self.readiness.register.lock().get(&*self.name).map_or(State::Waiting, |entry| entry.state.clone())
    }

    fn set(&self, state: State) {
        let up = state == State::Up;
        let mut register = self.readiness.register.lock();
        let Some(entry) = register.get_mut(&*self.name) else { return };
        if entry.state == state {
            return;
        }
        match &state {
            State::Down { detail } => tracing::warn!(dependency = &*self.name, detail, "health.down"),
            _ => tracing::info!(dependency = &*self.name, "health.up"),
        }
        entry.state = state;
        metrics::gauge!("chancery_dependency_up", "name" => self.name.to_string())
            .set(f64::from(u8::from(up)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_required_dependencies_and_draining_make_unready() {
        let readiness = Readiness::default();
        assert!(!readiness.report(false).is_ready(), "nothing has started yet");
        let (database, token) = (readiness.dependency("database"), readiness.notice("token"));
        assert!(!readiness.report(false).is_ready(), "nothing was heard of the database yet");
        database.up();
        token.down("away");
        assert!(readiness.report(false).is_ready());
        assert!(!readiness.report(true).is_ready());
        database.down("gone");
        let report = serde_json::to_value(readiness.report(false)).unwrap();
        assert_eq!(
            report,
            serde_json::json!({"ready": false, "draining": false, "dependencies": {
                "database": {"required": true, "state": "down", "detail": "gone"},
                "token": {"required": false, "state": "down", "detail": "away"},
            }})
        );
    }
}
