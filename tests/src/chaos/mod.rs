//! Crashes at every step: real programs on a real token, clients that never stop, and a SIGKILL at each failpoint.
//!
//! A [`Stack`] is a whole CA whose roles are started again as soon as they die. A [`Director`] arms each new process with
//! the failpoints that were hit least. [`load`] keeps clients issuing; [`audit`] then looks whether anything was lost,
//! doubled or stuck, by SQL and by the clients' own memory. `docs/chaos.md` tells how to run it.

pub mod audit;
pub mod campaign;
pub mod client;
pub mod director;
mod http;
pub mod ledger;
pub mod load;
pub mod points;
pub mod relying;
pub mod roles;
pub mod stack;
pub mod tally;

pub use campaign::{Campaign, Plan};
pub use director::Director;
pub use stack::{Kind, Stack};
pub use tally::Tally;
