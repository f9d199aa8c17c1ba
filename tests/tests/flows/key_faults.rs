//! A homeserver that has lost, or has another idea of, what a ghost has published. Lines that begin with `safety:` are
//! figures of `cargo xtask safety`.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::evil_hs::Request;
use tests::{ElementUser, EvilHomeserver, Namespace};

use crate::Chat;

/// Between two tries of one device.
const PATIENCE: Duration = Duration::from_secs(120);

fn is_upload(request: &Request, user: &str) -> bool {
    request.path.ends_with("/keys/upload") && request.user.as_deref() == Some(user)
}

/// The number behind those of all one-time keys that a ghost has published.
fn next_number(evil: &EvilHomeserver, ghost: &str) -> Result<u64> {
    let uploads = evil.requests().read(|all| {
        let of_ghost = all.iter().filter(|it| is_upload(it, ghost));
        let keys = of_ghost.filter_map(|it| it.body.get("one_time_keys")?.as_object().cloned());
        keys.collect::<Vec<_>>()
    });
    let numbers = uploads.iter().flat_map(|keys| keys.keys()).filter_map(|id| {
        let bytes = vodozemac::base64_decode(id.split_once(':')?.1).ok()?;
        Some(u64::from_be_bytes(bytes.try_into().ok()?))
    });
    Ok(numbers.max().context("the ghost has published no one-time keys")? + 1)
}

/// Somebody whose client has no session with Bob's ghost writes to it and is answered.
async fn meets_bob(person: &ElementUser, chat: &Chat, name: &str) -> Result<()> {
    chat.newcomer_writes(person, &format!("I am {name}")).await?;
    let answer = format!("Hello {name}");
    let to = chat.world.jid_of(person.user_id());
    chat.bob.send(&to, &answer, Namespace::Omemo2).await?;
    person.receives_within(&answer, PATIENCE).await.map(drop)
}

/// As after a lost answer of a life that the database does not know: the ids of the next keys are taken, by keys that
/// nobody has the private half of.
#[tokio::test]
async fn one_time_keys_whose_ids_are_taken_are_given_up_and_new_ones_made() -> Result<()> {
    let (mut chat, evil) = Chat::open_under_an_evil_homeserver("one-time-key-clash").await?;
    chat.alice.send(&chat.room, "Before").await?;
    chat.bob.receives("Before").await?;
    let ghost = chat.ghost();
    let account = chat.world.account_of(&ghost).await?;
    chat.world.bridge.stop().await?;
    let held = account.one_time_keys().await?;
    for _ in 0..20 {
        account.claim().await?;
    }
    let next = next_number(&evil, &ghost)?;
    account.publish_others(next..next + 15).await?;
    let seen = evil.requests().len();
    chat.world.bridge.run_connected().await?;

    let carol = chat.world.element_user("carol").await?;
    let dave = chat.world.element_user("dave").await?;
    meets_bob(&carol, &chat, "Carol").await?;
    meets_bob(&dave, &chat, "Dave").await?;
    chat.bob.send(&chat.alices_jid(), "After", Namespace::Omemo2).await?;
    chat.alice.receives_within("After", PATIENCE).await?;
    chat.alice.send(&chat.room, "After as well").await?;
    chat.bob.receives_within("After as well", PATIENCE).await?;

    let (uploads, claims) = evil.requests().read(|all| {
        let since = all.get(seen..).unwrap_or_default();
        let of_ghost = |request: &&Request| request.user.as_deref() == Some(ghost.as_str());
        let claims = since.iter().filter(of_ghost).filter(|it| it.path.ends_with("/keys/claim"));
        (since.iter().filter(|it| is_upload(it, &ghost)).count(), claims.count())
    });
    let left = account.one_time_keys().await?;
    let told = chat.world.bridge.times_logged("matrix.keys.given_up")?;
    let unreadable = chat.bob.undecryptable()
        + [&chat.alice, &carol, &dave]
            .iter()
            .flat_map(|person| person.messages())
            .filter(|message| message.failure.is_some())
            .count();
    println!(
        "safety: one_time_key_clash: {uploads} uploads, {claims} claims, {left} keys afterwards (of {held}); \
         {unreadable} messages undecryptable, the operator told {told} time"
    );
    ensure!(unreadable == 0 && left > 0 && told == 1);
    // One is refused, one has the rest, and one has the new keys; each newcomer takes one more.
    ensure!(uploads <= 8, "{uploads} uploads: the same is tried again and again");
    chat.end().await
}

#[tokio::test]
async fn a_device_that_the_homeserver_has_ended_is_replaced() -> Result<()> {
    let (chat, evil) = Chat::open_under_an_evil_homeserver("ended-device").await?;
    let to = chat.alices_jid();
    chat.alice.send(&chat.room, "Before").await?;
    chat.bob.receives("Before").await?;
    chat.bob.send(&to, "Before", Namespace::Omemo2).await?;
    chat.alice.receives("Before").await?;
    let account = chat.world.account_of(&chat.ghost()).await?;
    let old = account.device().to_owned();
    account.end_device().await?;

    chat.bob.send(&to, "After", Namespace::Omemo2).await?;
    let shown = chat.alice.receives_within("After", PATIENCE).await?;
    let ghost = chat.ghost();
    let is_new = |devices: &std::collections::BTreeMap<String, bool>| {
        devices.len() == 1 && devices.iter().all(|(id, is_signed)| *id != old && *is_signed)
    };
    chat.alice.sees_devices(&ghost, is_new).await?;
    chat.alice.send(&chat.room, "Are you back?").await?;
    chat.bob.receives_within("Are you back?", PATIENCE).await?;
    chat.bob.send(&to, "I am", Namespace::Legacy).await?;
    chat.alice.receives_within("I am", PATIENCE).await?;

    let unknown = evil.requests().read(|all| {
        let as_old = |it: &&Request| it.device.as_deref() == Some(old.as_str());
        let begun = all.iter().rposition(|it| {
            it.path.ends_with("/devices") && it.user.as_deref() == Some(ghost.as_str())
        });
        all.get(begun.unwrap_or_default()..).unwrap_or_default().iter().filter(as_old).count()
    });
    let told = chat.world.bridge.times_logged("matrix.device.replaced")?;
    let failures = chat.alice.messages().iter().filter(|it| it.failure.is_some()).count();
    println!(
        "safety: ended_device: 4 of 4 messages after it, {failures} undecryptable, {unknown} requests as the old device \
         once there was a new one, the operator told {told} time"
    );
    ensure!((failures, chat.bob.undecryptable(), unknown, told) == (0, 0, 0, 1));
    ensure!(shown.shield == Some(tests::Shield::None), "the new device is not signed");
    chat.world.bridge.pid().context("the bridge has ended")?;
    chat.end().await
}
