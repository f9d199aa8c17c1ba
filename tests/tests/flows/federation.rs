//! A person on another homeserver.

use anyhow::Result;
use tests::{ElementUser, Namespace, Shield, World};

#[tokio::test]
async fn a_person_on_another_homeserver_talks_like_a_local_one() -> Result<()> {
    let world = World::start_federating("federation").await?;
    let other = world.start_other_homeserver().await?;
    let (dora, _) = ElementUser::start(&other, "dora", world.dir()).await?;
    let bob = world.omemo_user("bob").await?;
    let ghost = world.ghost_of(bob.jid());
    let jid = world.jid_of(dora.user_id());

    let room = dora.create_chat_with(&ghost).await?;
    dora.sees_join(&room, &ghost).await?;
    dora.send(&room, "From far away").await?;
    assert_eq!(bob.receives("From far away").await?.sender, jid);
    bob.send(&jid, "Welcome", Namespace::Omemo2).await?;
    let shown = dora.receives("Welcome").await?;
    assert_eq!((shown.encrypted, shown.shield), (true, Some(Shield::None)));
    world.end().await
}

#[tokio::test]
async fn a_person_on_another_homeserver_is_written_to_first() -> Result<()> {
    let world = World::start_federating("federation-xmpp-first").await?;
    let other = world.start_other_homeserver().await?;
    let (dora, _) = ElementUser::start(&other, "dora", world.dir()).await?;
    let bob = world.omemo_user("bob").await?;
    let ghost = world.ghost_of(bob.jid());

    bob.send(&world.jid_of(dora.user_id()), "Anybody there?", Namespace::Legacy).await?;
    let room = dora.invitation_from(&ghost).await?.room;
    dora.join(&room).await?;
    assert_eq!(dora.receives("Anybody there?").await?.shield, Some(Shield::None));
    dora.send(&room, "Over here").await?;
    bob.receives("Over here").await?;
    world.end().await
}
