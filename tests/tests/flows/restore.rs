//! A backup is restored: the bridge goes on, and no key is used twice.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use anyhow::{Result, ensure};
use tests::{Namespace, Shield, World, postgres};

use crate::Chat;
use crate::keys_used::KeysUsed;

impl Chat {
    /// Ten messages each way, by turns, so that the ratchets of both turn at each.
    async fn talk(&self, when: &str) -> Result<()> {
        for number in 0..10 {
            let (question, answer) = (format!("{when}: {number}?"), format!("{when}: {number}."));
            self.alice.send(&self.room, &question).await?;
            self.bob.receives(&question).await?;
            self.bob.send(&self.alices_jid(), &answer, Namespace::Omemo2).await?;
            self.alice.receives(&answer).await?;
        }
        Ok(())
    }

    async fn restore_from_twenty_messages_ago(&mut self) -> Result<String> {
        let backup = self.world.dir().join("backup");
        self.talk("before").await?;
        self.world.bridge.back_up(&backup).await?;
        self.talk("since").await?;
        self.world.bridge.kill().await?;
        self.world.bridge.restore(&backup).await
    }

    /// The devices of the ghost, as Alice's client knows them.
    pub(super) async fn ghosts_devices(&self) -> Result<BTreeSet<String>> {
        let ghost = self.world.ghost_of(self.bob.jid());
        Ok(self.alice.devices_of(&ghost).await?.into_keys().collect())
    }

    /// Waits until Alice's client knows the device that has taken the place of `before`: what it writes earlier is
    /// encrypted for nobody who is there.
    async fn alice_knows_the_new_device(&self, before: &BTreeSet<String>) -> Result<()> {
        ensure!(before.len() == 1, "the ghost had other devices: {before:?}");
        let is_replaced = |devices: &BTreeMap<String, bool>| {
            let is_new =
                |(device, is_signed): (&String, &bool)| *is_signed && !before.contains(device);
            devices.len() == 1 && devices.iter().all(is_new)
        };
        self.alice.sees_devices(&self.ghost(), is_replaced).await.map(drop)
    }
}

#[tokio::test]
async fn after_a_restore_no_key_is_used_twice_and_both_go_on() -> Result<()> {
    let (world, evil) = World::start_with_evil_homeserver("restore").await?;
    let mut chat = Chat::open_in(world).await?;
    let told = chat.restore_from_twenty_messages_ago().await?;
    ensure!(told.contains("2 Matrix devices"), "{told}");
    let before = chat.ghosts_devices().await?;

    let began = Instant::now();
    chat.world.bridge.run_connected().await?;
    chat.alice_knows_the_new_device(&before).await?;
    chat.alice.send(&chat.room, "Are you back?").await?;
    chat.bob.receives("Are you back?").await?;
    let took = began.elapsed();
    let jid = chat.alices_jid();
    for namespace in Namespace::BOTH {
        let body = format!("I am, in {}", namespace.uri());
        chat.bob.send(&jid, &body, namespace).await?;
        assert_eq!(chat.alice.receives(&body).await?.shield, Some(Shield::None));
    }
    chat.talk("after").await?;

    let KeysUsed { twice, keys } = KeysUsed::seen(&evil, &chat.room)?;
    ensure!(keys > 100, "too few keys were seen: {keys}");
    println!(
        "safety: restored: {twice} of {keys} keys used twice, delivery again after {took:.1?}"
    );
    assert_eq!(twice, 0);
    assert_eq!(chat.bob.undecryptable(), 0, "a message key was used twice on XMPP");
    assert!(chat.alice.messages().iter().all(|message| message.failure.is_none()));
    chat.end().await
}

#[tokio::test]
async fn a_contact_who_writes_first_after_a_restore_is_understood_from_the_second_message_on()
-> Result<()> {
    let mut chat = Chat::open("restore-contact-first").await?;
    chat.restore_from_twenty_messages_ago().await?;
    chat.world.bridge.run_connected().await?;
    let jid = chat.alices_jid();
    chat.bob.send(&jid, "Lost", Namespace::Omemo2).await?;
    chat.bot_tells_alice("its encryption session is broken; a new one is being set up").await?;
    chat.bob.gets_empty_message(&jid).await?;
    chat.bob.send(&jid, "Heard", Namespace::Omemo2).await?;
    chat.alice.receives("Heard").await?;
    chat.talk("after").await?;
    assert_eq!(chat.bob.undecryptable(), 0);
    chat.end().await
}

#[tokio::test]
async fn a_database_that_was_put_back_by_hand_is_noticed() -> Result<()> {
    let mut chat = Chat::open("restore-by-hand").await?;
    let file = chat.world.bridge.dir().join("gephyra.db");
    let copy = chat.world.dir().join("copy.db");
    chat.talk("before").await?;
    chat.world.bridge.stop().await?;
    std::fs::copy(&file, &copy)?;
    chat.world.bridge.run_connected().await?;
    chat.talk("since").await?;
    chat.world.bridge.stop().await?;
    std::fs::copy(&copy, &file)?;
    let before = chat.ghosts_devices().await?;

    chat.world.bridge.run_connected().await?;
    let logged = chat.world.bridge.files_containing("app.rolled_back")?;
    ensure!(!logged.is_empty(), "the operator was not told");
    chat.alice_knows_the_new_device(&before).await?;
    chat.talk("after").await?;
    assert_eq!(chat.bob.undecryptable(), 0);
    chat.end().await
}

#[tokio::test]
async fn a_postgresql_database_is_backed_up_and_restored() -> Result<()> {
    let world = World::start_on("restore-postgres", postgres::new_database().await?).await?;
    let mut chat = Chat::open_in(world).await?;
    chat.restore_from_twenty_messages_ago().await?;
    let before = chat.ghosts_devices().await?;
    chat.world.bridge.run_connected().await?;
    chat.alice_knows_the_new_device(&before).await?;
    chat.talk("after").await?;
    assert_eq!(chat.bob.undecryptable(), 0);
    chat.end().await
}
