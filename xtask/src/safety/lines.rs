//! The lines of the table. To add one, print `safety: <figure>: <words>` in its test and name both here.

/// One requirement.
pub struct Line {
    /// The heading it stands under.
    pub group: &'static str,
    /// What is required.
    pub requirement: &'static str,
    /// The test that holds it: nextest's name of the binary, a space, the path of the test.
    pub test: &'static str,
    /// The name of the figure that the test prints.
    pub figure: &'static str,
    /// What is claimed of it.
    pub claim: Claim,
}

/// What is claimed of a requirement.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// It holds.
    Holds,
    /// It cannot hold, for this reason; the test shows that it does not.
    CannotHold(&'static str),
}

use Claim::{CannotHold, Holds};

const fn line(
    group: &'static str,
    requirement: &'static str,
    test: &'static str,
    figure: &'static str,
    claim: Claim,
) -> Line {
    Line { group, requirement, test, figure, claim }
}

const IDENTITY: &str = "Identity";
const REPLAY: &str = "Replay";
const FORGERY: &str = "Forgery";
const DOWNGRADE: &str = "Downgrade";
const CRASH: &str = "Crash";
const FAULTS: &str = "Faults";

/// All of them, by group.
#[rustfmt::skip]
pub const LINES: &[Line] = &[
    line(IDENTITY, "a device that the homeserver adds to a person gets no room key and is told once",
        "tests::flows forgeries::keys::devices_that_the_homeserver_adds_get_no_room_key", "added_device", Holds),
    line(IDENTITY, "a device that is called like a master key gets no room key",
        "tests::flows forgeries::keys::devices_that_the_homeserver_adds_get_no_room_key", "device_like_master_key", Holds),
    line(IDENTITY, "an identity that the homeserver swaps in gets nothing; both sides are told once",
        "tests::flows forgeries::keys::an_identity_that_the_homeserver_swaps_in_gets_nothing", "swapped_identity", Holds),
    line(IDENTITY, "a one-time key with a bad signature is not used",
        "tests::flows forgeries::keys::a_one_time_key_with_a_bad_signature_is_not_used", "bad_one_time_key", Holds),
    line(IDENTITY, "a device that logs out is followed by a new room key",
        "tests::flows forgeries::keys::a_device_that_logs_out_is_followed_by_a_new_room_key", "logged_out", Holds),
    line(IDENTITY, "a member who leaves is followed by a new room key",
        "e2ee::matrix room_keys::whoever_leaves_is_followed_by_a_new_room_key", "left", Holds),
    line(IDENTITY, "other members of a portal's room get no room key",
        "tests::flows forgeries::events::what_others_write_is_not_bridged_under_a_persons_name", "keys_to_other_members", Holds),
    line(IDENTITY, "a contact's changed OMEMO identity gets nothing before approval",
        "tests::flows trust::a_contacts_changed_key_holds_messages_until_approved", "changed_contact", Holds),
    line(IDENTITY, "a new device of a verified contact gets nothing before approval",
        "tests::flows trust_commands::a_new_device_of_a_verified_contact_waits_until_it_is_approved", "new_contact_device", Holds),
    line(IDENTITY, "what waits for a decision about a key is given up in time, and never reaches that key",
        "tests::flows expiry::what_waits_for_a_decision_about_a_contacts_key_is_given_up_in_both_directions", "expired", Holds),
    line(IDENTITY, "what waits for a signed device is given up in time, and its author told once",
        "tests::flows expiry::what_waits_for_a_signed_device_is_given_up", "expired_unsigned", Holds),
    line(IDENTITY, "messages of a person that are given up are told once, and the rest goes in order",
        "bridge portal::tests::expiry::what_waited_too_long_is_given_up_once_and_the_rest_goes_in_order", "expired_from_matrix", Holds),
    line(IDENTITY, "messages of a contact that are given up are told once, and the rest goes in order",
        "bridge xmpp::tests::policy::what_is_held_too_long_is_given_up_once_and_the_rest_is_released_in_order", "expired_from_xmpp", Holds),
    line(IDENTITY, "emoji are not shown where a device that the person does not trust could read them",
        "tests::flows verification::a_device_that_alice_does_not_trust_is_shown_no_emoji", "invented_device_sees_emoji", Holds),
    line(IDENTITY, "a key that is swapped while people compare never looks the same",
        "e2ee::matrix verification::keys_that_were_swapped_on_their_way_never_look_the_same", "swapped_sas_key", Holds),
    line(IDENTITY, "an identity that is replaced while people compare is not verified",
        "e2ee::matrix verification::an_identity_that_changes_while_comparing_is_not_verified", "swapped_while_comparing", Holds),
    line(IDENTITY, "what an unsigned device writes is not bridged, and its owner is told once",
        "tests::flows trust::what_an_unsigned_device_writes_waits_until_its_owner_signs_it", "unsigned_sender", Holds),
    line(IDENTITY, "who has no chat with a person learns nothing of their keys from the bridge",
        "bridge portal::tests::legs::a_contact_learns_only_of_people_who_have_joined_a_chat_with_them", "strangers_inquiries", Holds),
    line(IDENTITY, "a person who resets their identity is known again",
        "tests::flows trust::a_matrix_persons_changed_identity_holds_messages_until_approved", "self_approval",
        CannotHold("nothing else of the person is left, so a homeserver that makes one for them can approve it too")),

    line(REPLAY, "a ciphertext that the homeserver repeats is bridged once: as a new event, later, elsewhere, after a restart",
        "tests::flows forgeries::events::a_replayed_message_is_bridged_once", "replays", Holds),
    line(REPLAY, "transactions that are delayed, repeated or refused change neither number nor order",
        "tests::flows forgeries::events::delayed_repeated_and_refused_transactions_change_nothing", "transactions", Holds),
    line(REPLAY, "a repeated stanza is one message",
        "bridge xmpp::tests::conversation::a_repeated_stanza_is_one_message", "stanzas", Holds),
    line(REPLAY, "an OMEMO message opens once, in both namespaces",
        "e2ee omemo::tests::refusals::a_replay_is_refused", "omemo_replays", Holds),

    line(FORGERY, "a request without the hs_token, or with one like it, is refused on every route",
        "bridge appservice::tests::tokens::a_wrong_token_is_refused_on_every_route", "tokens", Holds),
    line(FORGERY, "what others write is not bridged under a person's name (CVE-2025-48937)",
        "tests::flows forgeries::events::what_others_write_is_not_bridged_under_a_persons_name", "spoofed_senders", Holds),
    line(FORGERY, "a room key under another's name is not believed (CVE-2026-45056)",
        "e2ee::matrix forgeries::a_room_key_under_anothers_name_is_not_believed", "spoofed_room_keys", Holds),
    line(FORGERY, "keys that nobody asked for open nothing (CVE-2022-39251, CVE-2022-39252, in the clear, bundle)",
        "e2ee::matrix forgeries::keys_that_nobody_asked_for_open_nothing", "unasked_keys", Holds),
    line(FORGERY, "a relation outside the ciphertext makes no edit",
        "tests::flows forgeries::events::a_relation_outside_the_ciphertext_makes_no_edit", "outer_relations", Holds),
    line(FORGERY, "forged carbons, archive results and senders on XMPP have no effect",
        "bridge xmpp::tests::hostility::forged_senders_and_forwards_have_no_effect", "forged_stanzas", Holds),
    line(FORGERY, "no ad-hoc command decides about trust: the XMPP server could have written it",
        "bridge xmpp::tests::commands::what_decides_about_trust_is_no_command", "forged_commands", Holds),
    line(FORGERY, "a form starts a comparison and ends none",
        "tests::flows security::a_form_starts_a_comparison_but_decides_nothing", "decisions_by_form", Holds),
    line(FORGERY, "no byte of an OMEMO key message can be altered",
        "e2ee omemo::tests::refusals::no_byte_of_a_key_can_be_altered", "altered_keys", Holds),
    line(FORGERY, "low-order keys are refused in every agreement of an OMEMO key exchange",
        "e2ee omemo::tests::refusals::low_order_keys_are_refused_in_every_agreement_of_a_key_exchange", "low_order", Holds),
    line(FORGERY, "omemo:2: a recipient's other device cannot put another text into a message",
        "e2ee omemo::tests::co_recipient::an_omemo_2_text_cannot", "co_recipient_v2", Holds),
    line(FORGERY, "legacy OMEMO: a recipient's other device cannot put another text into a message",
        "e2ee omemo::tests::co_recipient::a_legacy_text_can_be_forged_by_another_device_of_the_receiver", "co_recipient_legacy",
        CannotHold("the tag does not bind the text to its sender; omemo:2 is preferred where every device has it")),

    line(DOWNGRADE, "a portal stays encrypted whatever the homeserver says of it",
        "tests::flows forgeries::state::a_portal_stays_encrypted_whatever_the_homeserver_says", "denied_encryption", Holds),
    line(DOWNGRADE, "a command in the clear is not obeyed where commands were encrypted",
        "tests::flows forgeries::state::a_command_in_the_clear_is_not_obeyed_where_commands_were_encrypted", "denied_commands", Holds),
    line(DOWNGRADE, "plaintext in an encrypted room is refused, and its author told",
        "tests::flows policy::plaintext_in_an_encrypted_room_is_refused", "plaintext_from_matrix", Holds),
    line(DOWNGRADE, "plaintext from Matrix that is encrypted to a contact is marked",
        "bridge xmpp::tests::conversation::what_came_in_the_clear_on_matrix_is_marked_when_it_is_encrypted", "plaintext_into_omemo", Holds),
    line(DOWNGRADE, "plaintext from XMPP is marked",
        "tests::flows policy::plaintext_from_xmpp_is_marked", "plaintext_from_xmpp", Holds),
    line(DOWNGRADE, "plaintext in a room without encryption is marked once the chat was encrypted",
        "bridge portal::tests::downgrade::plaintext_is_marked_in_a_plain_room_once_the_chat_was_encrypted", "plaintext_in_a_plain_room", Holds),
    line(DOWNGRADE, "plaintext from XMPP is refused where the operator says so, and told once",
        "tests::flows policy::plaintext_is_refused_where_the_operator_says_so_and_told_once", "refused_from_xmpp", Holds),
    line(DOWNGRADE, "refused plaintext is told to both sides once, over a restart too",
        "bridge portal::tests::downgrade::refused_plaintext_is_told_to_both_sides_once_until_something_encrypted_comes", "refused_plaintext", Holds),
    line(DOWNGRADE, "consent to plaintext ends once encryption was used",
        "tests::flows policy::consent_to_plaintext_ends_once_encryption_was_used", "ended_consent", Holds),
    line(DOWNGRADE, "a room key carries at most 50 messages, whatever the room allows",
        "e2ee::matrix room_keys::a_room_key_carries_fifty_messages_at_most", "messages_per_room_key", Holds),
    line(DOWNGRADE, "a room key is used for at most a day, whatever the room allows",
        "e2ee::matrix room_keys::a_room_key_lives_a_day_at_most", "age_of_room_key", Holds),
    line(DOWNGRADE, "a contact's device list that is taken away does not mean plaintext",
        "bridge xmpp::tests::trust::a_removed_device_list_does_not_mean_plaintext", "removed_list", Holds),

    line(CRASH, "after the restore of a backup no Olm, Megolm or one-time key is used twice (W13)",
        "tests::flows restore::after_a_restore_no_key_is_used_twice_and_both_go_on", "restored", Holds),

    line(FAULTS, "a death at any window of a crash loses nothing, shows nothing twice and uses no key twice: towards XMPP",
        "tests::flows crashes::a_death_at_each_window_towards_xmpp_loses_and_repeats_nothing", "crash_windows_to_xmpp", Holds),
    line(FAULTS, "and towards Matrix",
        "tests::flows crashes::a_death_at_each_window_towards_matrix_loses_and_repeats_nothing", "crash_windows_to_matrix", Holds),
    line(FAULTS, "nor does kill -9 at random moments",
        "tests::flows crashes::deaths_at_random_lose_and_repeat_nothing", "crash_random", Holds),
    line(FAULTS, "a homeserver that answers 500, 502 or 429 on every endpoint costs no message",
        "tests::flows homeserver_faults::errors_on_every_endpoint_cost_no_message", "homeserver_errors", Holds),
    line(FAULTS, "nor does one whose connections break before, in or instead of its answer",
        "tests::flows homeserver_faults::connections_that_break_on_every_endpoint_cost_no_message", "homeserver_breaks", Holds),
    line(FAULTS, "an event whose answer does not come in time is shown once",
        "tests::flows homeserver_faults::an_event_whose_answer_does_not_come_in_time_is_shown_once", "homeserver_late", Holds),
    line(FAULTS, "transactions that break, fail, are late or come twice are one message each, in order",
        "tests::flows homeserver_faults::transactions_that_fail_in_every_way_are_one_message_each", "push_faults", Holds),
    line(FAULTS, "a stream to the XMPP server that breaks in mid-stanza costs no message",
        "tests::flows xmpp_faults::a_stream_that_breaks_in_mid_stanza_costs_no_message", "broken_stream", Holds),
    line(FAULTS, "PostgreSQL that is away under traffic costs no message",
        "tests::flows machine::postgresql_that_is_away_costs_no_message", "postgres_away", Holds),
    line(FAULTS, "nor does a full disk",
        "tests::flows machine::a_full_disk_costs_no_message", "full_disk", Holds),
    line(FAULTS, "nor does a clock that jumps a day ahead, two back and one ahead",
        "tests::flows machine::a_clock_that_jumps_a_day_each_way_costs_no_message", "clock_jumps", Holds),
    line(FAULTS, "a second process on a database does not start",
        "tests::flows machine::a_second_process_on_a_database_does_not_start", "second_process", Holds),
    line(FAULTS, "a process that was replaced ends by itself and sends nothing twice",
        "tests::flows machine::a_process_that_was_replaced_sends_nothing_twice", "replaced_process", Holds),
];
