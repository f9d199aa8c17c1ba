//! The support library itself: its clients talk to each other without a bridge, and judge each other as Element and an
//! OMEMO client would.

use anyhow::Result;
use tests::journal::SOON;
use tests::ports::free_port;
use tests::synapse::SynapseConfig;
use tests::xmpp_server::{XmppServerConfig, XmppSoftware};
use tests::{ElementUser, Namespace, OmemoUser, RustUser, Shield, Synapse, XmppServer, paths};

async fn homeserver(dir: &std::path::Path) -> Result<Synapse> {
    let config = SynapseConfig {
        dir: dir.join("homeserver"),
        server_name: "localhost".to_owned(),
        client_port: free_port()?,
        federation_port: None,
        registrations: vec![],
    };
    Synapse::start(config).await
}

async fn xmpp_server(dir: &std::path::Path) -> Result<XmppServer> {
    let config = XmppServerConfig {
        dir: dir.join("xmpp"),
        client_port: free_port()?,
        component_port: free_port()?,
    };
    XmppServer::start(XmppSoftware::Prosody, config).await
}

#[tokio::test]
async fn element_and_a_rust_client_see_each_other_without_shields() -> Result<()> {
    let dir = paths::scratch("two-matrix-clients")?;
    let server = homeserver(&dir).await?;
    let (alice, _) = ElementUser::start(&server, "alice", &dir).await?;
    let carol = RustUser::start(&server, "carol").await?;

    let room = alice.create_chat_with(carol.user_id()).await?;
    let carols_room = carol.accept_invitation_from(alice.user_id()).await?;
    alice.sees_join(&room, carol.user_id()).await?;

    alice.send(&room, "Hello from Element").await?;
    assert!(carol.receives("Hello from Element").await?.is_unshielded());
    carol.send(&carols_room, "Hello from Rust").await?;
    let shown = alice.receives("Hello from Rust").await?;
    assert_eq!((shown.encrypted, shown.shield), (true, Some(Shield::None)));

    alice.exclude_insecure_devices().await?;
    carol.send(&carols_room, "Still here?").await?;
    assert_eq!(alice.receives("Still here?").await?.shield, Some(Shield::None));
    paths::clear(&dir);
    Ok(())
}

#[tokio::test]
async fn a_device_that_its_owner_has_not_signed_is_seen_as_such() -> Result<()> {
    let dir = paths::scratch("unsigned-device")?;
    let server = homeserver(&dir).await?;
    let (alice, _) = ElementUser::start(&server, "alice", &dir).await?;
    let (carol, recovery_key) = ElementUser::start(&server, "carol", &dir).await?;
    let laptop = ElementUser::log_in(&server, carol.account(), "laptop", &dir).await?;

    let room = alice.create_chat_with(carol.user_id()).await?;
    laptop.invitation_from(alice.user_id()).await?;
    laptop.join(&room).await?;
    alice.sees_join(&room, carol.user_id()).await?;
    laptop.send(&room, "From my new laptop").await?;
    assert_eq!(alice.receives("From my new laptop").await?.shield, Some(Shield::Red));

    laptop.recover(&recovery_key).await?;
    alice.sees_signed(carol.user_id(), laptop.device_id()).await?;
    paths::clear(&dir);
    Ok(())
}

#[tokio::test]
async fn omemo_clients_talk_in_both_namespaces() -> Result<()> {
    let dir = paths::scratch("two-omemo-clients")?;
    let server = xmpp_server(&dir).await?;
    let romeo = OmemoUser::start(&server, "romeo", &dir).await?;
    let juliet = OmemoUser::start(&server, "juliet", &dir).await?;
    for namespace in Namespace::BOTH {
        let body = format!("In {}", namespace.uri());
        let stanza = romeo.send(juliet.jid(), &body, namespace).await?;
        let received = juliet.receives(&body).await?;
        assert_eq!(received.namespace.as_deref(), Some(namespace.uri()));
        assert_eq!(received.sender, romeo.jid());
        romeo.receipt_for(&stanza).await?;
    }
    romeo.send_plain(juliet.jid(), "In the clear").await?;
    assert_eq!(juliet.receives("In the clear").await?.namespace, None);
    paths::clear(&dir);
    Ok(())
}

#[tokio::test]
async fn an_omemo_client_can_come_back_under_its_device_id_with_new_keys() -> Result<()> {
    use tests::omemo::Device;
    let dir = paths::scratch("reinstalled-omemo-client")?;
    let server = xmpp_server(&dir).await?;
    let romeo = OmemoUser::start(&server, "romeo", &dir).await?;
    let phone = OmemoUser::start(&server, "juliet", &dir).await?;
    let device_id = phone.device_id();
    phone.stop().await?;
    let again = Device { name: "reinstalled", device_id, ..Device::default() };
    let juliet = OmemoUser::start_device(&server, "juliet", &dir, &again).await?;
    assert_eq!(juliet.device_id(), device_id);
    romeo.send(juliet.jid(), "Are you the same?", Namespace::Legacy).await?;
    juliet.receives_within("Are you the same?", SOON).await?;
    paths::clear(&dir);
    Ok(())
}
