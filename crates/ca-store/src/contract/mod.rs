//! What every backend does, as tests: `ca_store::contract_suite!(fixture)` makes a `#[tokio::test]`
//! of each. A fixture is an empty database of its own.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    reason = "tests, in a feature that no program has: each case is named after what it shows"
)]

mod account;
mod audit;
mod authority;
mod certificate;
mod crl;
mod database;
mod incident;
mod intent;
mod orphan;
mod record;
mod revocation;
pub mod sample;
mod signers;

use std::sync::Arc;

use async_trait::async_trait;

pub use account::*;
pub use audit::*;
pub use authority::*;
pub use certificate::*;
pub use crl::*;
pub use database::*;
pub use incident::*;
pub use intent::*;
pub use orphan::*;
pub use record::*;
pub use revocation::*;
pub use signers::*;

use crate::{CaStore, Incarnation};

/// A database that is empty at first.
#[async_trait]
pub trait Fixture: Send + Sync {
    /// Opens it, beside whoever has it open.
    async fn open(&self, incarnation: Incarnation) -> Arc<dyn CaStore>;

    /// Whether the backend serves several signers at once. One that does not is spared the cases of their work side by side.
    fn several_signers(&self) -> bool {
        true
    }
}

/// Opens the fixture for the node of this name.
async fn open(fixture: &dyn Fixture, node: &str) -> Arc<dyn CaStore> {
    let mut id = [0; 16];
    id.iter_mut().zip(node.bytes()).for_each(|(to, from)| *to = from);
    fixture.open(Incarnation { id, node: node.to_owned() }).await
}

/// Makes a test of each case, with a new fixture.
#[macro_export]
macro_rules! contract_suite {
    ($fixture:expr) => {
        $crate::contract_suite! { $fixture;
            an_incarnation_has_a_number
            time_has_a_high_water_mark
            an_epoch_begins_once
            a_lease_has_one_owner
            what_was_written_before_closing_is_there
            every_row_of_authority_reads_back
            changes_of_authority_are_all_or_none
            a_join_token_is_redeemed_once
            first_rows_stay
            blocked_keys_come_in_the_order_of_time
            registrations_are_paged
            an_account_is_registered_once
            an_eab_key_is_used_once
            a_registration_is_cited
            an_update_is_accepted_once
            a_former_key_never_returns
            a_key_in_other_use_is_no_accounts
            accounts_are_paged
            an_intent_reads_back
            an_intent_has_no_signature
            one_order_has_one_intent
            one_new_order_has_one_intent
            a_certificate_has_one_successor
            j1_a_serial_is_taken_once
            a_precertificate_shares_serial_and_order
            what_an_intent_cites_is_checked
            a_deactivated_authorization_does_not_count
            a_bad_key_does_not_count
            a_bad_intent_does_not_fail_its_neighbours
            limits_hold_within_a_batch
            limits_count_what_they_say
            what_is_exempt_is_not_counted
            a_reached_limit_says_what_must_leave
            an_intent_can_be_repeated
            a_signature_is_recorded_once
            a_signature_needs_an_intent
            an_orphan_is_taken_over
            a_lease_is_extended_by_its_owner
            an_abandoned_intent_is_fenced
            certificates_are_found
            certificates_are_paged
            a_domain_is_not_its_neighbour
            what_may_have_been_signed_is_revoked
            a_revocation_is_made_once
            a_revocation_is_upgraded_once
            a_ledger_entry_comes_with_its_shards_revision
            what_was_revoked_after_a_revision_is_told_in_order
            a_shard_begins_where_its_epoch_does
            numbers_and_revisions_of_crls_rise
            a_crl_is_the_same_at_any_later_time
            a_delta_has_what_changed
            edits_make_a_later_crl_of_an_earlier_one
            an_entry_leaves_after_its_certificate_ended
            a_crl_is_journaled_before_it_is_published
            a_crl_is_never_replaced_by_an_older_one
            an_imported_crl_is_never_replaced_by_an_older_one
            an_incident_reads_back
            members_are_added_while_it_collects
            members_are_followed
            what_is_revoked_or_a_member_is_no_successor
            the_newest_certificates_of_a_name_are_looked_at
            the_audit_chain_holds
            a_change_without_effect_is_not_reported
            incarnations_have_chains_of_their_own
            refusals_add_up
            many_at_once
            limits_hold_between_signers
            signers_race_for_an_order
            signers_race_for_everything
            changes_of_other_signers_are_heard
        }
    };
    ($fixture:expr; $($case:ident)+) => {
        $(
            #[tokio::test]
            async fn $case() {
                $crate::contract::$case(&$fixture).await;
            }
        )+
    };
}
