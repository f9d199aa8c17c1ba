//! What people decide about identities and plaintext, and what they are told of it.

use super::*;

#[tokio::test]
async fn consent_to_plaintext_ends_with_the_first_encrypted_message_of_either_side() {
    let world = World::new().await;
    world.bob(&chat(), message(LegSecurity::Plaintext)).await;
    assert_eq!(world.portal().await.plaintext, PlaintextPolicy::Allow);
    world.bob(&chat(), message(ENCRYPTED)).await;
    assert_eq!(world.portal().await.plaintext, PlaintextPolicy::Refuse);

    world.command(IdentityTrust::Pinned, "plaintext allow").await;
    assert_eq!(world.portal().await.plaintext, PlaintextPolicy::Allow);
    world.alice_says("$1", "hi").await;
    assert!(world.remote.sent.lock().unwrap().iter().any(|(_, text)| text == "hi"));
    assert_eq!(world.portal().await.plaintext, PlaintextPolicy::Refuse);
}

#[tokio::test]
async fn a_changed_identity_decides_nothing_about_others() {
    let world = World::new().await;
    world.command(IdentityTrust::Pinned, "plaintext refuse").await;
    world.command(IdentityTrust::Changed, "plaintext allow").await;
    assert_eq!(world.portal().await.plaintext, PlaintextPolicy::Refuse);
    let fingerprint = "00".repeat(32);
    *world.remote.devices.lock().unwrap() = vec![device("7", &fingerprint)];
    for command in [
        "approve".to_owned(),
        format!("trust {fingerprint}"),
        format!("distrust {fingerprint}"),
        "rotate".to_owned(),
        "qr xmpp:bob@example.net".to_owned(),
    ] {
        let answer = world.command(IdentityTrust::Changed, &command).await;
        assert!(answer.starts_with("Approve your own identity first"), "{command}: {answer}");
    }
    assert!(world.remote.decided.lock().unwrap().is_empty());
}

#[tokio::test]
async fn every_new_fingerprint_is_said_once_and_only_those_are_approved() {
    let world = World::new().await;
    for fingerprint in ["aaaa", "bbbb", "aaaa"] {
        let hold = Hold::IdentityChanged { fingerprints: vec![fingerprint.to_owned()] };
        world.bob(&chat(), RemoteEventKind::Held(hold)).await;
    }
    for _ in 0..2 {
        let hold = Hold::NewDevices { fingerprints: vec!["cccc".to_owned()] };
        world.bob(&chat(), RemoteEventKind::Held(hold)).await;
    }
    let said = world.said().await;
    assert_eq!(said.len(), 3, "{said:?}");
    for (text, fingerprint) in said.iter().zip(["aaaa", "bbbb", "cccc"]) {
        assert!(text.contains(fingerprint), "{said:?}");
    }
    world.command(IdentityTrust::Pinned, "approve").await;
    let all = ["aaaa", "bbbb", "cccc"].map(str::to_owned).to_vec();
    assert_eq!(*world.remote.decided.lock().unwrap(), [(DeviceDecision::Approve, all)]);
    world.command(IdentityTrust::Pinned, "approve").await;
    assert!(world.remote.decided.lock().unwrap()[1].1.is_empty(), "said and settled");
}

#[tokio::test]
async fn a_device_is_trusted_by_its_whole_fingerprint_only() {
    let world = World::new().await;
    let fingerprint = "0123abcd ".repeat(8).trim().to_owned();
    *world.remote.devices.lock().unwrap() = vec![device("7", &fingerprint)];
    for (command, words) in [
        ("trust", "Usage"),
        ("trust 0123abcd", "whole fingerprint"),
        ("trust 4567ef01", "no device"),
        ("distrust 0123", "at least the first 8 digits"),
        ("distrust", "Usage"),
    ] {
        let answer = world.command(IdentityTrust::Pinned, command).await;
        assert!(answer.contains(words), "{command}: {answer}");
    }
    assert!(world.remote.decided.lock().unwrap().is_empty());
    let typed = format!("trust {}", fingerprint.to_uppercase());
    world.command(IdentityTrust::Pinned, &typed).await;
    let decided = world.remote.decided.lock().unwrap().clone();
    assert_eq!(decided, [(DeviceDecision::Verify, vec![fingerprint])]);
}

#[tokio::test]
async fn a_key_is_distrusted_whatever_is_known_of_the_first_device_that_has_it() {
    let world = World::new().await;
    let fingerprint = "01".repeat(32);
    let changed = RemoteDevice { trust: DeviceTrust::Changed, ..device("1", &fingerprint) };
    *world.remote.devices.lock().unwrap() = vec![changed, device("5", &fingerprint)];
    let typed = format!("distrust {fingerprint}");
    // There is no homeserver for new room keys.
    world.command(IdentityTrust::Pinned, &typed).await;
    let decided = world.remote.decided.lock().unwrap().clone();
    assert_eq!(decided, [(DeviceDecision::Distrust, vec![fingerprint])]);
}

#[tokio::test]
async fn a_key_that_does_not_match_is_said_loudly() {
    let world = World::new().await;
    let answer = world.command(IdentityTrust::Pinned, "qr xmpp:bob@example.net").await;
    assert!(answer.contains("DO NOT MATCH") && answer.contains('7'), "{answer}");
    assert!(world.remote.decided.lock().unwrap().is_empty());
}

#[tokio::test]
async fn what_waits_is_told_with_its_reason_and_age() {
    let world = World::new().await;
    *world.remote.devices.lock().unwrap() = vec![device("7", "0123abcd")];
    *world.remote.takes.lock().unwrap() = Takes::Nothing;
    world.alice_says("$1", "hi").await;
    world.alice_says("$2", "are you there?").await;
    // What the bot has said comes back from the homeserver.
    world.writes(user_id!("@gephyra:example.org"), "$3", "Your messages wait").await;
    let told = world.command(IdentityTrust::Pinned, "pending").await;
    for words in [
        "bob@example.net:",
        "2 messages, since 1970-01-01T00:00:00Z of yours",
        "2 messages, since 1970-01-01T00:00:01Z of your contact",
        "Device 7: new, waits for you",
        "0123abcd",
    ] {
        assert!(told.contains(words), "{words} is not in: {told}");
    }
}

#[tokio::test]
async fn what_was_shown_of_one_device_is_still_approved_after_a_word_about_another() {
    let world = World::new().await;
    let (one, other) = ("01".repeat(32), "02".repeat(32));
    let fingerprints = vec![one.clone(), other.clone()];
    world.bob(&chat(), RemoteEventKind::Held(Hold::NewDevices { fingerprints })).await;
    *world.remote.devices.lock().unwrap() = vec![device("7", &one), device("8", &other)];
    world.command(IdentityTrust::Pinned, &format!("distrust {one}")).await;
    world.command(IdentityTrust::Pinned, "approve").await;
    let decided = world.remote.decided.lock().unwrap().clone();
    assert_eq!(decided[1], (DeviceDecision::Approve, vec![other]));
}

#[tokio::test]
async fn a_refused_device_is_told_of_once() {
    let world = World::new().await;
    for fingerprint in ["aaaa", "aaaa", "bbbb"] {
        let fingerprint = fingerprint.to_owned();
        world.bob(&chat(), RemoteEventKind::Refused { fingerprint }).await;
    }
    assert_eq!(world.said().await.len(), 2);
}

#[tokio::test]
async fn approving_a_contact_approves_nothing_of_ones_own() {
    let world = World::new().await;
    let mut tx = world.db.begin().await.unwrap();
    let _ = tx.pins().pin_or_check(alice(), "master key", 1).await.unwrap();
    let _ = tx.pins().pin_or_check(alice(), "another key", 2).await.unwrap();
    tx.commit().await.unwrap();
    let pinned = async || {
        let mut tx = world.db.read().await.unwrap();
        tx.pins().find(alice()).await.unwrap().unwrap().master_key
    };

    world.command(IdentityTrust::Pinned, "approve").await;
    assert_eq!(pinned().await, "master key");
    assert!(world.remote.sent.lock().unwrap().is_empty());
    world.command(IdentityTrust::Pinned, "approve me").await;
    assert_eq!(pinned().await, "another key");
    let sent = world.remote.sent.lock().unwrap();
    assert_matches!(sent.as_slice(), [(chat, text)]
        if chat.local == Author::Bridge && text.contains("has changed"));
}

#[tokio::test]
async fn a_command_behind_many_waiting_messages_is_carried_out() {
    let world = World::new().await;
    *world.remote.takes.lock().unwrap() = Takes::Nothing;
    for number in 0..520 {
        world.alice_writes(&format!("$waits{number}"), "waits").await;
    }
    world.alice_says("$command", "!xmpp version").await;
    let said = world.said().await;
    assert!(said.iter().any(|text| text.starts_with("Gephyra")), "{said:?}");
    assert!(world.remote.sent.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_failure_of_no_message_is_not_told() {
    let world = World::new().await;
    let id = RemoteMessageId::new("made up");
    world.bob(&chat(), RemoteEventKind::Failed { id, reason: "because".to_owned() }).await;
    assert!(world.said().await.is_empty());
}

#[tokio::test]
async fn who_writes_to_somebody_that_does_not_use_the_bridge_is_told_once() {
    let world = World::new().await;
    for _ in 0..2 {
        world.bob(&chat_with(user_id!("@eve:example.org")), message(ENCRYPTED)).await;
    }
    let sent = world.remote.sent.lock().unwrap();
    assert_matches!(sent.as_slice(), [(chat, text)]
        if chat.local == Author::Bridge && text.contains("not delivered"));
}

#[tokio::test]
async fn that_messages_wait_is_told_again_after_one_has_left() {
    let world = World::new().await;
    let told = async || {
        let said = world.said().await;
        said.iter().filter(|text| text.contains("can be encrypted to")).count()
    };
    for (round, id, next) in [(1, "$1", "$2"), (2, "$3", "$4")] {
        *world.remote.takes.lock().unwrap() = Takes::Nothing;
        world.alice_says(id, "one").await;
        world.alice_says(next, "two").await;
        assert_eq!(told().await, round);
        *world.remote.takes.lock().unwrap() = Takes::Everything;
        Drain::<OwnedRoomId>::drain(&*world.hub, &room()).await;
        let mut tx = world.db.read().await.unwrap();
        let waits = tx.notices().subjects(room().as_str(), "no_usable_device").await.unwrap();
        assert!(waits.is_empty(), "both have left");
    }
}

#[tokio::test]
async fn only_a_person_who_may_use_the_bridge_gives_a_command() {
    let world = World::new().await;
    let portal = world.portal().await;
    let bot = owned_user_id!("@gephyra:example.org");
    let other_ghost = owned_user_id!("@any_carol:example.org");
    let stranger = owned_user_id!("@mallory:example.org");
    for (sender, id) in
        [(portal.ghost.clone(), "$1"), (other_ghost, "$2"), (bot, "$3"), (stranger, "$4")]
    {
        world.writes(&sender, id, "!xmpp help").await;
        Drain::<OwnedRoomId>::drain(&*world.hub, &room()).await;
        assert!(world.said().await.is_empty(), "{sender}");
    }
    world.alice_says("$5", "!xmpp help").await;
    assert_eq!(world.said().await.len(), 1);
}

#[tokio::test]
async fn what_clients_show_and_the_bridge_does_not_carry_is_refused_with_a_word() {
    let world = World::new().await;
    for (id, event_type, words) in [
        ("$1", "m.sticker", "does not carry stickers yet"),
        ("$2", "m.poll.start", "does not carry polls yet"),
        ("$3", "org.matrix.msc3381.poll.start", "does not carry polls yet"),
    ] {
        world.pushed(event(alice(), id, event_type, json!({ "body": "smile" }))).await;
        Drain::<OwnedRoomId>::drain(&*world.hub, &room()).await;
        let said = world.said().await;
        assert!(said.last().unwrap().contains(words), "{said:?}");
        let status = world.homeserver.statuses().pop().unwrap();
        assert_eq!(status.content["m.relates_to"]["event_id"], id);
        assert_eq!(status.content["status"], "FAIL_PERMANENT");
    }
    for (id, event_type) in [("$4", "m.reaction"), ("$5", "m.poll.response"), ("$6", "m.unknown")] {
        world.pushed(event(alice(), id, event_type, json!({ "body": "smile" }))).await;
    }
    Drain::<OwnedRoomId>::drain(&*world.hub, &room()).await;
    assert_eq!((world.said().await.len(), world.homeserver.statuses().len()), (3, 3));
    assert!(world.remote.sent.lock().unwrap().is_empty());
}
