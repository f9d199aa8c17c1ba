//! Devices, identities and one-time keys that are not what the homeserver says.

use anyhow::{Context, Result};
use axum::http::Method;
use serde_json::{Value, json};
use tests::evil_hs::Rule;
use tests::evil_hs::forger::{ForgedDevice, ForgedIdentity};
use tests::{ElementUser, EvilHomeserver, Namespace, World};

use super::{PATIENCE, devices_changed};
use crate::Chat;

/// Adds devices to what is said of a user's keys.
fn with_devices(user: &str, devices: Vec<(String, Value)>) -> Rule {
    let path = format!("/device_keys/{user}");
    Rule::rewrite_answers(Method::POST, "/keys/query", move |answer| {
        let Some(known) = answer.pointer_mut(&path) else { return false };
        for (id, keys) in &devices {
            known[id] = keys.clone();
        }
        true
    })
}

/// Adds one-time keys to every answer to a claim.
fn with_one_time_keys(user: &str, keys: Value) -> Rule {
    let user = user.to_owned();
    Rule::rewrite_answers(Method::POST, "/keys/claim", move |answer| {
        let all = answer.get_mut("one_time_keys").and_then(Value::as_object_mut);
        let of_user = all.map(|all| all.entry(user.clone()).or_insert_with(|| json!({})));
        let (Some(Value::Object(known)), Some(keys)) = (of_user, keys.as_object()) else {
            return false;
        };
        known.extend(keys.clone());
        true
    })
}

/// The public master key of a user, as the homeserver gave it to the bridge.
async fn master_key_of(evil: &EvilHomeserver, chat: &Chat) -> Result<String> {
    let (sender, mut learned) = tokio::sync::mpsc::channel(8);
    let path = format!("/master_keys/{}/keys", chat.alice.user_id());
    let _watched = evil.obey(Rule::rewrite_answers(Method::POST, "/keys/query", move |answer| {
        let keys = answer.pointer(&path).and_then(Value::as_object);
        let key = keys.and_then(|keys| keys.values().next()?.as_str().map(str::to_owned));
        // A test that has learned it listens no longer.
        key.is_some_and(|key| sender.try_send(key).is_ok())
    }));
    let _changed = evil.obey(devices_changed(chat.alice.user_id()));
    chat.bob.send(&chat.alices_jid(), "Before", Namespace::Omemo2).await?;
    chat.alice.receives("Before").await?;
    learned.recv().await.context("no master key was seen")
}

#[tokio::test]
async fn devices_that_the_homeserver_adds_get_no_room_key() -> Result<()> {
    let (chat, evil) = Chat::open_under_an_evil_homeserver("added-devices").await?;
    let Chat { world, alice, bob, .. } = &chat;
    let master_key = master_key_of(&evil, &chat).await?;
    // One with any name, and one that is called like the person's own master key.
    let mut forged = [
        ForgedDevice::new(alice.user_id(), "FORGED"),
        ForgedDevice::new(alice.user_id(), &master_key),
    ];
    let mut keys = Vec::new();
    let mut one_time_keys = json!({});
    for device in &mut forged {
        keys.push((device.id().to_owned(), device.keys()?));
        one_time_keys[device.id()] = device.one_time_key()?;
    }
    let added = evil.obey(with_devices(alice.user_id(), keys));
    let _claimable = evil.obey(with_one_time_keys(alice.user_id(), one_time_keys));
    let _changed = evil.obey(devices_changed(alice.user_id()));

    for body in ["First", "Second", "Third"] {
        bob.send(&chat.alices_jid(), body, Namespace::Omemo2).await?;
        alice.receives(body).await?;
    }
    added.applied(1).await?;
    let ghost = world.ghost_of(bob.jid());
    let room_keys = forged.each_ref().map(|device| evil.room_keys_to(device.id()));
    let told = forged.each_ref().map(|device| evil.refusals_to(device.id(), &ghost));
    println!("safety: added_device: {} room keys, told {} time", room_keys[0], told[0]);
    println!("safety: device_like_master_key: {} room keys, told {} time", room_keys[1], told[1]);
    assert_eq!((room_keys, told), ([0, 0], [1, 1]), "three messages, one word");
    assert!(evil.room_keys_to(alice.device_id()) > 0);
    chat.end().await
}

#[tokio::test]
async fn an_identity_that_the_homeserver_swaps_in_gets_nothing() -> Result<()> {
    let (chat, evil) = Chat::open_under_an_evil_homeserver("swapped-identity").await?;
    let Chat { world, alice, bob, room } = &chat;
    bob.send(&chat.alices_jid(), "Before", Namespace::Omemo2).await?;
    alice.receives("Before").await?;
    alice.send(room, "Before as well").await?;
    bob.receives("Before as well").await?;

    let user = alice.user_id().to_owned();
    let mut device = ForgedDevice::new(&user, "FORGED");
    let identity = ForgedIdentity::new(&user);
    let (master, self_signing) = (identity.master_key(), identity.self_signing_key()?);
    let devices = json!({ device.id(): identity.signed(&device)? });
    let one_time_keys = json!({ device.id(): device.one_time_key()? });
    let of = user.clone();
    let swapped = evil.obey(Rule::rewrite_answers(Method::POST, "/keys/query", move |answer| {
        let asked = answer["device_keys"].get(&of).is_some();
        if asked {
            answer["master_keys"][&of] = master.clone();
            answer["self_signing_keys"][&of] = self_signing.clone();
            answer["device_keys"][&of] = devices.clone();
        }
        asked
    }));
    let claimable = evil.obey(with_one_time_keys(&user, one_time_keys));
    let changed = evil.obey(devices_changed(&user));
    let before = evil.sent_into(room).len();
    bob.send(&chat.alices_jid(), "For the real Alice", Namespace::Omemo2).await?;
    swapped.applied(1).await?;
    chat.bot_tells_alice("Your encryption identity has changed").await?;
    bob.send(&chat.alices_jid(), "And this", Namespace::Omemo2).await?;
    bob.message_where(tests::journal::SOON, |message| message.body.contains("has changed")).await?;
    let ghost = world.ghost_of(bob.jid());
    let since = evil.sent_into(room).into_iter().skip(before);
    let early = since.filter(|sent| sent.sender == ghost).count();
    drop(swapped);

    bob.send(&chat.alices_jid(), "And that", Namespace::Omemo2).await?;
    for body in ["For the real Alice", "And this", "And that"] {
        alice.receives_within(body, PATIENCE).await?;
    }
    drop((claimable, changed));
    let room_keys = evil.room_keys_to(device.id());
    let sent = evil.sent_into(room);
    let plain = sent.iter().skip(before).filter(|sent| sent.is_plain_message()).count();
    let told = chat.times_told("Your encryption identity has changed");
    let bob_told =
        bob.messages().iter().filter(|message| message.body.contains("has changed")).count();
    println!(
        "safety: swapped_identity: {room_keys} room keys, {early} of 2 messages before the real one \
         came back; told {told} and {bob_told} time"
    );
    assert_eq!((room_keys, early, told, bob_told), (0, 0, 1, 1));
    assert_eq!(plain, 1, "only the word about it was said in the clear");
    assert!(alice.messages().iter().all(|message| message.failure.is_none()));
    world.bridge.pid().context("the bridge has ended")?;
    chat.end().await
}

#[tokio::test]
async fn a_one_time_key_with_a_bad_signature_is_not_used() -> Result<()> {
    let (world, evil) = World::start_with_evil_homeserver("bad-one-time-key").await?;
    let alice = world.element_user("alice").await?;
    let bob = world.omemo_user("bob").await?;
    let mut forged = ForgedDevice::new(alice.user_id(), alice.device_id());
    let key = forged.one_time_key()?;
    let (user, device) = (alice.user_id().to_owned(), alice.device_id().to_owned());
    let swapped = evil.obey(Rule::rewrite_answers(Method::POST, "/keys/claim", move |answer| {
        let found = answer["one_time_keys"][&user].get_mut(&device);
        found.map(|found| *found = key.clone()).is_some()
    }));

    bob.send(&world.jid_of(alice.user_id()), "Signed keys only", Namespace::Omemo2).await?;
    let ghost = world.ghost_of(bob.jid());
    let room = alice.invitation_from(&ghost).await?.room;
    alice.join(&room).await?;
    swapped.applied(1).await?;
    let room_keys = evil.room_keys_to(alice.device_id());
    let messages = evil.sent_into(&room).len();
    drop(swapped);
    alice.receives_within("Signed keys only", PATIENCE).await?;
    println!("safety: bad_one_time_key: {room_keys} room keys, {messages} messages under it");
    assert_eq!((room_keys, messages), (0, 0));
    world.end().await
}

#[tokio::test]
async fn a_device_that_logs_out_is_followed_by_a_new_room_key() -> Result<()> {
    let (world, evil) = World::start_with_evil_homeserver("logged-out").await?;
    let (alice, recovery_key) = ElementUser::start(&world.homeserver, "alice", world.dir()).await?;
    let bob = world.omemo_user("bob").await?;
    let chat = Chat::between(world, alice, bob).await?;
    let Chat { world, alice, bob, .. } = &chat;
    let second =
        ElementUser::log_in(&world.homeserver, alice.account(), "second", world.dir()).await?;
    second.recover(&recovery_key).await?;
    alice.sees_signed(alice.user_id(), second.device_id()).await?;

    for body in ["To both", "Again to both"] {
        bob.send(&chat.alices_jid(), body, Namespace::Omemo2).await?;
        alice.receives(body).await?;
        second.receives(body).await?;
    }
    let keys_before = evil.room_keys_to(second.device_id());
    second.log_out().await?;
    bob.send(&chat.alices_jid(), "To the first only", Namespace::Omemo2).await?;
    alice.receives("To the first only").await?;

    let sessions = chat.ghosts_room_keys(&evil);
    let [first, again, after] = sessions.as_slice() else {
        anyhow::bail!("{} messages of the ghost", sessions.len());
    };
    let keys = evil.room_keys_to(second.device_id()) - keys_before;
    let new = usize::from(again != after);
    println!("safety: logged_out: {new} new room key, {keys} room keys to the old device");
    assert_eq!(keys, 0);
    assert_eq!(first, again, "nothing had changed");
    assert_ne!(again, after, "the old room key was used for a device less");
    chat.end().await
}
