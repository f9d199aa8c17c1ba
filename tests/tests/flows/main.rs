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

use anyhow::{Context, Result};
use tests::journal::SOON;
use tests::omemo::Received;
use tests::xmpp_server::COMPONENT;
use tests::{ElementUser, EvilHomeserver, OmemoUser, World};

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

    /// Somebody new writes to Bob's ghost, with which their client has no session.
    async fn newcomer_writes(&self, person: &ElementUser, text: &str) -> Result<()> {
        let ghost = self.ghost();
        let room = person.create_chat_with(&ghost).await?;
        person.sees_join(&room, &ghost).await?;
        person.send(&room, text).await?;
        self.bob.receives_within(text, SOON * 2).await.map(drop)
    }

    /// The room keys under which Bob's ghost has sent into the room, one for each message.
    fn ghosts_room_keys(&self, evil: &EvilHomeserver) -> Vec<String> {
        let ghost = self.ghost();
        let sent = evil.sent_into(&self.room).into_iter().filter(|sent| sent.sender == ghost);
        sent.filter_map(|sent| sent.session().map(str::to_owned)).collect()
    }

    async fn end(self) -> Result<()> {
        self.world.end().await
    }
}

/// Waits until the bridge itself says something to somebody on XMPP that contains these words.
async fn bridge_tells(contact: &OmemoUser, words: &str) -> Result<Received> {
    let says = |it: &Received| it.sender == COMPONENT && it.body.contains(words);
    let waited = contact.message_where(SOON, says).await;
    waited.with_context(|| format!("the bridge did not say `{words}` to {}", contact.jid()))
}
