//! Stories of people on Element and on OMEMO clients, with real servers and the bridge between them.

mod complement;
mod contact_trust;
mod crashes;
mod devices;
mod ejabberd;
mod expiry;
mod faults;
mod federation;
mod first_messages;
mod forgeries;
mod healing;
mod homeserver_faults;
mod hostile;
mod key_faults;
mod keys_used;
mod long_conversation;
mod machine;
mod management_room;
mod outages;
mod permissions;
mod policy;
mod postgres;
mod presence;
mod restore;
mod rooms;
mod security;
mod status;
mod support;
mod trust;
mod trust_commands;
mod verification;
mod withheld;
mod xmpp_faults;

use anyhow::Result;
use tests::{ElementUser, OmemoUser, World};

/// Alice on Element and Bob on an OMEMO client, in a chat that Alice opened.
struct Chat {
    world: World,
    alice: ElementUser,
    bob: OmemoUser,
    room: String,
}

impl Chat {
    async fn open(story: &str) -> Result<Self> {
        Self::open_in(World::start(story).await?).await
    }

    async fn open_in(world: World) -> Result<Self> {
        let alice = world.element_user("alice").await?;
        let bob = world.omemo_user("bob").await?;
        Self::between(world, alice, bob).await
    }

    async fn between(world: World, alice: ElementUser, bob: OmemoUser) -> Result<Self> {
        let ghost = world.ghost_of(bob.jid());
        let room = alice.create_chat_with(&ghost).await?;
        alice.sees_join(&room, &ghost).await?;
        Ok(Self { world, alice, bob, room })
    }

    /// The JID under which Bob knows Alice.
    fn alices_jid(&self) -> String {
        self.world.jid_of(self.alice.user_id())
    }

    /// Waits until the bridge's bot says something to Alice that contains these words.
    async fn bot_tells_alice(&self, words: &str) -> Result<()> {
        self.alice.hears(&self.world.bridge.bot(), words).await.map(drop)
    }

    async fn end(self) -> Result<()> {
        self.world.end().await
    }
}
