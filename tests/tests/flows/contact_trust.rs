//! What a contact decides about a person's keys, in an encrypted chat with the bridge.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use tests::xmpp_server::COMPONENT;
use tests::{Namespace, World};

use crate::Chat;
use crate::security::pinned_key;
use crate::trust_commands::{texts_of, times_said};

impl Chat {
    /// Bob distrusts Alice, and both have been told.
    async fn bob_distrusts_alice(&self) -> Result<()> {
        self.bob_answers(&format!("distrust {}", self.alice.user_id())).await?;
        let told = self.bridge_tells_bob("You have distrusted").await?;
        ensure!(told.namespace.is_some(), "the answer to an encrypted message was not encrypted");
        self.bot_tells_alice("has distrusted your encryption identity").await
    }

    /// Bob writes to Alice, and the bridge has it.
    async fn bob_writes(&self, body: &str) -> Result<()> {
        let stanza = self.bob.send(&self.alices_jid(), body, Namespace::Omemo2).await?;
        self.bob.receipt_for(&stanza).await
    }

    /// Alice writes to Bob; the bot has looked at it when it says that it waits.
    async fn alice_writes_and_it_waits(&self, body: &str) -> Result<()> {
        self.alice.send(&self.room, body).await?;
        self.command("pending").await?;
        self.bot_tells_alice("distrusted your identity, and only they can end that").await
    }

    /// Bob tries to decide in the clear and by form. Returns how many of the four were taken.
    async fn decides_in_the_clear(&self, key: &str) -> Result<usize> {
        let in_the_clear = [format!("trust {key}"), "distrust".to_owned()];
        for command in &in_the_clear {
            self.bob.send_plain(COMPONENT, command).await?;
            let form = command.split(' ').next().unwrap_or_default();
            ensure!(self.bob.runs_command(COMPONENT, form, self.alice.user_id()).await.is_err());
        }
        // What is answered came behind both.
        self.bob_answers("devices").await?;
        self.bridge_tells_bob("Their identity: trusted on first use").await?;
        let refused = self.bob.texts_from(COMPONENT);
        let refused = refused.iter().filter(|text| text.contains("I take this only encrypted"));
        assert_eq!(refused.count(), 2);
        let log = self.world.bridge.keylog(&["show", self.alice.user_id()]).await?;
        Ok(log.matches("contact ").count())
    }

    /// Both read, and the key log says, that Bob has compared Alice's identity.
    async fn both_are_told_who_decided(&self, key: &str) -> Result<()> {
        self.command("security").await?;
        self.bot_tells_alice("verified by your contact, who has compared its fingerprint").await?;
        self.bob_answers("security").await?;
        self.bridge_tells_bob("Their identity: compared by you, its whole fingerprint").await?;
        let log = self.world.bridge.keylog(&["show", self.alice.user_id()]).await?;
        let by_bob = format!("contact {}", self.bob.jid());
        let decided: Vec<&str> = log
            .lines()
            .filter(|line| line.contains(&by_bob) && line.ends_with(key))
            .filter_map(|line| line.split_whitespace().nth(1))
            .collect();
        assert_eq!(decided, ["distrusted", "verified"], "{log}");
        let checked = self.world.bridge.keylog(&["verify"]).await?;
        ensure!(checked.starts_with("The key log is whole"), "{checked}");
        Ok(())
    }
}

#[tokio::test]
async fn a_contacts_distrust_holds_both_directions_and_trust_releases_them_in_order() -> Result<()>
{
    let (world, evil) = World::start_with_evil_homeserver("contact-distrusts").await?;
    let mut chat = Chat::open_in(world).await?;
    chat.alice.send(&chat.room, "Hello").await?;
    chat.bob.receives("Hello").await?;
    chat.bob_writes("Hello to you").await?;
    chat.alice.receives("Hello to you").await?;
    let (jid, ghost, key) = (chat.alices_jid(), chat.ghost(), pinned_key(&chat).await?);

    let taken = chat.decides_in_the_clear(&key).await?;
    println!("safety: contact_decides_in_the_clear: {taken} of 4 taken, in the clear and by form");
    assert_eq!(taken, 0);

    chat.bob_distrusts_alice().await?;
    let before = chat.ghosts_room_keys(&evil);
    for body in ["One", "Two"] {
        chat.alice.send(&chat.room, body).await?;
        chat.bob_writes(&format!("{body} to you")).await?;
    }
    chat.command("pending").await?;
    chat.bot_tells_alice("of your contact, until they trust you again").await?;
    chat.bob_answers("pending").await?;
    chat.bridge_tells_bob("2 messages").await?;
    chat.world.bridge.kill().await?;
    chat.world.bridge.run_connected().await?;
    chat.command("approve").await?;
    chat.bot_tells_alice("no approval of yours ends that").await?;
    chat.bob_answers(&format!("trust {} {}", chat.alice.user_id(), key.split_at(20).0)).await?;
    chat.bridge_tells_bob("this needs the whole fingerprint").await?;
    let other = chat.bob.fingerprint()?.replace(' ', "");
    chat.bob_answers(&format!("trust {} {other}", chat.alice.user_id())).await?;
    chat.bridge_tells_bob("this is not the fingerprint").await?;
    chat.bob_answers("security").await?;
    chat.bridge_tells_bob("⚠️ You have distrusted them, on 20").await?;

    let to_bob = chat.bob.texts_from(&jid).len() - 1;
    let to_alice = chat.ghosts_room_keys(&evil).len() - before.len();
    let told_bob = chat.bob.texts_from(COMPONENT);
    let told_bob = told_bob.iter().filter(|text| text.starts_with("You have distrusted")).count();
    let told_alice = times_said(&chat, "has distrusted your encryption identity");
    println!(
        "safety: contact_distrusts: {to_bob} of 2 to and {to_alice} of 2 from the contact passed, \
         told {told_alice} time and {told_bob} time"
    );
    assert_eq!((to_bob, to_alice, told_alice, told_bob), (0, 0, 1, 1));

    chat.bob_answers(&format!("trust {} {key}", chat.alice.user_id())).await?;
    chat.bridge_tells_bob("and trust it").await?;
    chat.bot_tells_alice("has compared the fingerprint of your encryption identity").await?;
    chat.bob.receives("Two").await?;
    chat.alice.receives("Two to you").await?;
    assert_eq!(chat.bob.texts_from(&jid), ["Hello", "One", "Two"]);
    let shown = texts_of(&chat.alice, &ghost);
    assert_eq!(shown, ["Hello to you", "One to you", "Two to you"]);
    let after = chat.ghosts_room_keys(&evil).split_off(before.len());
    ensure!(
        after.iter().all(|session| !before.contains(session)),
        "a room key from before is used"
    );

    chat.both_are_told_who_decided(&key).await?;
    chat.end().await
}

#[tokio::test]
async fn a_new_identity_does_not_lift_a_contacts_distrust_and_emoji_do() -> Result<()> {
    let chat = Chat::open_and_talk("contact-distrusts-reset").await?;
    let Chat { alice, bob, room, .. } = &chat;
    let jid = chat.alices_jid();
    chat.bob_distrusts_alice().await?;
    alice.set_up_cross_signing().await?;
    alice.discard_room_key(room).await?;
    alice.send(room, "It is me").await?;
    chat.bridge_tells_bob("whom you have distrusted, has changed").await?;
    chat.command("approve me").await?;
    chat.bot_tells_alice("no approval of yours ends that").await?;
    chat.bob_writes("Prove it").await?;
    chat.alice_writes_and_it_waits("Still me").await?;
    let passed = bob.texts_from(&jid).len() - 1;
    let shown = texts_of(alice, &chat.ghost()).len() - 1;
    println!(
        "safety: distrust_after_reset: {passed} of 2 to and {shown} of 1 from the contact passed"
    );
    assert_eq!((passed, shown), (0, 0));

    chat.bob_begins_and_both_match().await?;
    chat.bridge_tells_bob("Verified: ").await?;
    bob.receives("Still me").await?;
    alice.receives("Prove it").await?;
    assert_eq!(bob.texts_from(&jid), ["Hello", "It is me", "Still me"]);

    alice.set_up_cross_signing().await?;
    chat.bob_writes("Is it still you?").await?;
    chat.bridge_tells_bob("which you have verified, has changed").await?;
    chat.bot_tells_alice("which your contact has verified, has changed").await?;
    chat.end().await
}

#[tokio::test]
async fn a_contacts_distrust_is_in_a_backup() -> Result<()> {
    let mut chat = Chat::open_and_talk("contact-distrusts-backup").await?;
    chat.bob_distrusts_alice().await?;
    let event = chat.alice.send(&chat.room, "Before the backup").await?;
    let status = chat.alice.status_from(&chat.world.bridge.bot(), &event, "PENDING").await?;
    ensure!(status.to_string().contains("has distrusted your encryption identity"), "{status}");
    let (backup, before) = (chat.world.dir().join("backup"), chat.ghosts_devices().await?);
    chat.world.bridge.back_up(&backup).await?;
    chat.world.bridge.kill().await?;
    chat.world.bridge.restore(&backup).await?;
    chat.world.bridge.run_connected().await?;
    // The ghost has another device then.
    let is_replaced =
        |devices: &BTreeMap<String, bool>| devices.keys().all(|device| !before.contains(device));
    chat.alice.sees_devices(&chat.ghost(), is_replaced).await?;
    chat.alice_writes_and_it_waits("After it").await?;
    assert_eq!(chat.bob.texts_from(&chat.alices_jid()), ["Hello"]);
    chat.end().await
}

#[tokio::test]
async fn a_person_whose_identity_nobody_knows_is_distrusted_all_the_same() -> Result<()> {
    let world = World::start("contact-distrusts-unseen").await?;
    let (alice, bob) = (world.element_user("alice").await?, world.omemo_user("bob").await?);
    let ghost = world.ghost_of(bob.jid());
    let room = alice.create_plain_chat_with(&ghost).await?;
    alice.sees_join(&room, &ghost).await?;
    let chat = Chat { world, alice, bob, room };
    chat.alice.send(&chat.room, "Hello").await?;
    chat.bob.receives("⚠️ not encrypted on Matrix: Hello").await?;
    chat.bob_answers("devices").await?;
    chat.bridge_tells_bob("I know no identity of theirs yet").await?;

    chat.bob_distrusts_alice().await?;
    let event = chat.alice.send(&chat.room, "Hear me").await?;
    chat.alice.status_from(&chat.world.bridge.bot(), &event, "PENDING").await?;
    chat.bob_writes("Nobody hears me").await?;
    chat.alice_writes_and_it_waits("Me neither").await?;
    assert_eq!(chat.bob.texts_from(&chat.alices_jid()).len(), 1);
    assert!(texts_of(&chat.alice, &ghost).is_empty());
    let log = chat.world.bridge.keylog(&["show", chat.alice.user_id()]).await?;
    ensure!(log.lines().any(|line| line.contains("distrusted") && line.ends_with(" -")), "{log}");
    chat.end().await
}
