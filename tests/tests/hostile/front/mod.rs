//! A front that is against its clients. It has its own mTLS key, a copy of `acme`, every request that its clients have
//! sent, and the say over which order a client believes to finalize. Whatever it tries, the signer refuses for a reason
//! of its own, nothing comes of it, and the audit trail has it.

/// The signer must refuse this call of the scene.
macro_rules! refuse {
    ($scene:ident, $call:ident($($argument:expr),*)) => {{
        let outcome = $scene.$call($($argument),*).await;
        $scene.refuse(outcome);
    }};
}

mod accounts;
mod authorizations;
mod binding;
mod csrs;
mod evidence;
mod keys;
mod orders;
mod receipts;
mod revocation;
mod roles;
pub(crate) mod scene;
pub(crate) mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;

use crate::support::documented;
use scene::Scene;

/// An attack: its name, the reasons for which it must be refused (all of them, and no other), and what it does. An attack
/// without reasons is answered with what is there already, and changes nothing.
struct Attack {
    name: &'static str,
    reasons: &'static [&'static str],
    run: for<'a> fn(&'a mut Scene) -> Pin<Box<dyn Future<Output = ()> + 'a>>,
}

macro_rules! attacks {
    ($($module:ident::$name:ident => [$($reason:literal),*];)*) => {
        const ATTACKS: &[Attack] = &[$(Attack {
            name: stringify!($name),
            reasons: &[$($reason),*],
            run: |scene| Box::pin($module::$name(scene)),
        },)*];
    };
}

attacks! {
    accounts::swapped_account_key => ["jws-signature"];
    accounts::registration_in_another_directory => ["jws-signature"];
    accounts::registration_for_another_ca => ["url-foreign"];
    accounts::update_of_anothers_account => ["account-foreign"];
    accounts::altered_update => ["jws-signature"];
    accounts::replayed_update => [];
    accounts::deactivation_by_post_as_get => ["payload-malformed"];
    accounts::request_for_another_operation => ["url-operation"];
    accounts::account_of_another_directory => ["kid-foreign"];
    accounts::account_that_does_not_exist => ["account-unknown"];
    accounts::deactivated_account => ["account-inactive"];
    keys::key_change_to_the_fronts_key => ["jws-signature"];
    keys::key_change_without_the_new_key => ["key-change-inner"];
    keys::key_change_for_another_account => ["key-change-account"];
    keys::key_change_from_another_key => ["key-change-old-key"];
    keys::key_change_for_another_url => ["key-change-url"];
    keys::key_change_to_anothers_key => ["key-in-use"];
    keys::key_change_back => ["key-former", "key-in-use"];
    keys::former_key => ["key-former"];
    keys::former_key_registers => ["key-retired"];
    binding::no_binding => ["eab-required"];
    binding::anothers_binding => ["eab-other-key"];
    binding::invented_binding => ["eab-mac", "eab-unknown", "payload-malformed"];
    binding::binding_of_another_directory => ["eab-directory", "eab-url"];
    binding::binding_twice_at_once => ["eab-used-up"];
    binding::revoked_binding => ["eab-revoked"];
    orders::new_order_replayed => ["new-order-taken"];
    orders::new_order_encoded_anew => ["new-order-taken"];
    orders::new_order_altered => ["jws-signature", "order-forged"];
    orders::new_order_of_another_profile => ["profile-unknown"];
    orders::replacement_of_anothers_certificate => ["replaced-foreign", "replaced-names", "replaced-unknown"];
    orders::replaced_twice => ["already-replaced"];
    orders::more_than_a_limit => ["rate-limited"];
    orders::signers_name_ordered => ["identifier-unsupported", "name-rejected"];
    orders::name_that_is_not_permitted => ["name-rejected"];
    orders::finalize_replayed => [];
    orders::finalize_encoded_anew => [];
    orders::finalize_by_the_front => ["jws-signature"];
    orders::finalize_for_another_new_order => ["order-forged"];
    orders::finalize_by_another_account => ["order-foreign"];
    orders::order_id_forged => ["order-forged"];
    orders::order_id_of_another_account => ["order-forged"];
    orders::order_id_too_old => ["order-expired"];
    orders::authorization_id_for_an_order_id => ["url-foreign"];
    csrs::second_csr => ["order-taken"];
    csrs::other_names => ["csr-names"];
    csrs::wildcard_on_a_plain_order => ["csr-names"];
    csrs::csr_of_another_key => ["csr-signature"];
    csrs::csr_with_a_nodes_identity => ["csr-invalid"];
    csrs::csr_with_an_account_key => ["csr-account-key"];
    csrs::csr_with_a_blocked_key => ["csr-key-blocked"];
    csrs::csr_with_a_weak_key => ["csr-key-weak"];
    csrs::csr_with_a_key_the_profile_does_not_take => ["csr-key-unacceptable"];
    authorizations::authorization_given_up => ["authorization-deactivated"];
    authorizations::authorization_given_up_by_the_front => ["authorization-forged", "jws-signature"];
    authorizations::another_authorization_given_up => ["authorization-foreign", "authorization-forged"];
    authorizations::authorization_given_up_by_a_look => ["payload-malformed", "url-operation"];
    authorizations::authorization_without_an_order => ["extension-requested", "url-operation"];
    authorizations::order_passed_off_as_pre_authorization => ["authorization-forged"];
    authorizations::domain_above_the_name => ["ancestor-foreign"];
    evidence::no_evidence => ["evidence-missing"];
    evidence::evidence_for_another_name => ["evidence-foreign"];
    evidence::evidence_that_cannot_be_read => ["evidence-malformed"];
    evidence::authorization_of_another_account => ["authorization-forged"];
    evidence::authorization_of_another_name => ["authorization-forged"];
    evidence::wildcard_from_a_plain_validation => ["authorization-forged", "receipt-method", "receipt-name"];
    evidence::validation_used_again => ["receipt-stale"];
    evidence::grant_of_another_registration => ["quorum-missed"];
    evidence::grant_taken_back => ["quorum-missed"];
    receipts::anothers_receipts => ["receipt-authorization"];
    receipts::receipts_of_another_authorization => ["receipt-authorization"];
    receipts::receipts_for_another_name => ["receipt-name"];
    receipts::receipts_for_another_account => ["receipt-account"];
    receipts::receipts_for_another_account_url => ["receipt-account-url"];
    receipts::receipts_for_another_cas_caa => ["receipt-caa"];
    receipts::receipts_without_caa => ["receipt-caa"];
    receipts::caa_alone_as_control => ["quorum-missed"];
    receipts::old_caa_answers => ["caa"];
    receipts::caa_asked_for_another_method => ["caa"];
    receipts::receipts_without_dnssec => ["receipt-dnssec"];
    receipts::receipts_of_reserved_addresses => ["receipt-address"];
    receipts::receipts_of_a_validator_that_looks_at_nothing => ["receipt-assumed", "receipt-malformed"];
    receipts::account_label_of_another_account => ["receipt-account-url"];
    receipts::wildcard_by_a_web_server => ["receipt-method"];
    receipts::receipts_of_a_method_that_is_not_offered => ["receipt-method"];
    receipts::receipts_for_another_directory => ["receipt-directory"];
    receipts::receipts_for_the_fronts_key => ["receipt-key"];
    receipts::receipts_for_another_token => ["receipt-malformed"];
    receipts::receipts_of_another_time => ["receipt-early", "receipt-future"];
    receipts::quorum_invented_by_the_primary => ["receipt-unregistered", "receipt-signature"];
    receipts::one_perspective_several_times => ["quorum-missed"];
    receipts::more_receipts_than_are_read => ["quorum-missed"];
    receipts::runs_mixed => ["quorum-missed"];
    receipts::dissent_left_out => ["quorum-missed"];
    receipts::unsigned_receipts => ["receipt-malformed", "receipt-signature"];
    receipts::receipts_signed_by_the_front => ["receipt-malformed", "receipt-signature"];
    receipts::receipt_with_a_mac_of_the_public_key => ["receipt-malformed"];
    receipts::copied_order_finalized_by_the_front => ["jws-signature", "order-foreign", "order-forged"];
    revocation::anothers_certificate => ["evidence-missing"];
    revocation::anothers_certificate_by_another_key => ["revocation-foreign"];
    revocation::anothers_certificate_with_old_receipts => ["authorization-forged"];
    revocation::certificate_of_another_directory => ["certificate-unknown"];
    revocation::altered_certificate => ["certificate-unknown"];
    revocation::altered_revocation => ["jws-signature"];
    revocation::revocation_replayed => ["already-revoked"];
    revocation::reason_that_is_the_cas => ["revocation-reason"];
    revocation::fronts_own_certificate_by_acme => ["certificate-unknown"];
    roles::operators_rpcs => ["rpc-role"];
    roles::status_nodes_rpcs => ["rpc-role"];
    roles::fronts_rpcs_by_others => ["rpc-role"];
    roles::rpcs_that_are_not_there => ["rpc-unlisted"];
    roles::server_certificate_for_another_name => ["node-name"];
    roles::server_certificate_with_a_clients_key => ["csr-account-key"];
    roles::renewal_as_another_node => [];
    roles::front_that_is_revoked => [];
    roles::join_with_an_invented_token => ["join-token"];
    words::no_algorithm => ["jws-algorithm"];
    words::mac_with_the_public_key => ["jws-algorithm"];
    words::algorithm_of_another_key => ["jws-algorithm-mismatch"];
    words::key_and_account_at_once => ["jws-key-reference"];
    words::weak_key => ["jws-key"];
    words::members_twice => ["jws-duplicate"];
    words::critical_parameters => ["jws-critical"];
    words::unencoded_payload => ["jws-unencoded"];
    words::unprotected_header => ["jws-unprotected"];
    words::several_signatures => ["jws-serialization"];
    words::malformed_words => ["jws-malformed"];
    words::oversized_words => ["jws-too-large"];
    words::oversized_message => ["rpc-too-large"];
    words::malformed_message => ["rpc-malformed"];
    words::damaged_words => ["jws-malformed", "jws-signature"];
}

const HEADING: &str = "`hostile::front`";

#[tokio::test(flavor = "multi_thread")]
async fn m4_nothing_comes_of_what_a_hostile_front_does() {
    let mut scene = Scene::open().await;
    let mut faults = Vec::new();
    for attack in ATTACKS {
        scene.begin(attack.name).await;
        (attack.run)(&mut scene).await;
        let expected: BTreeSet<_> = attack.reasons.iter().map(ToString::to_string).collect();
        faults.extend(scene.end(&expected).await);
    }
    // The audit trail has each refusal, under its reason, as often as it was given, and not one more.
    let refused = scene.refused.clone();
    let audited = scene.audited().await;
    let both: BTreeMap<_, _> =
        [&refused, &audited].into_iter().flatten().map(|(reason, _)| (reason, ())).collect();
    for reason in both.keys() {
        let (given, written) = (refused.get(*reason), audited.get(*reason));
        if given != written {
            faults.push(format!("{reason}: refused {given:?} times, audited {written:?} times"));
        }
    }
    assert!(faults.is_empty(), "{} attacks:\n{}", ATTACKS.len(), faults.join("\n"));
    println!(
        "{} attacks, {} refusals for {} reasons",
        ATTACKS.len(),
        refused.values().sum::<u64>(),
        refused.len()
    );
}

#[test]
fn the_document_lists_the_attacks_and_their_refusals() {
    let said = documented(HEADING);
    let known: BTreeMap<String, BTreeSet<String>> = ATTACKS
        .iter()
        .map(|attack| (attack.name.to_owned(), attack.reasons.iter().map(ToString::to_string).collect()))
        .collect();
    assert_eq!(known.len(), ATTACKS.len(), "two attacks have one name");
    assert_eq!(said, known);
}
