//! A person who makes a new identity, and goes on with the device and the room key that they had.

use e2ee::matrix::RequestBody;
use ruma::api::client::keys::upload_signing_keys;

use super::*;

/// Gives a bare library machine a new identity, signs its device with it if wanted, and returns
/// the public master key.
async fn make_identity(homeserver: &Homeserver, machine: &OlmMachine, signs: bool) -> String {
    let made = machine.bootstrap_cross_signing(true).await.unwrap();
    let keys = made.upload_signing_keys_req;
    let (_, master_key) = keys.master_key.as_ref().unwrap().get_first_key_and_id().unwrap();
    let master_key = master_key.to_base64();
    let mut identity = upload_signing_keys::v3::Request::new();
    identity.master_key = keys.master_key.map(|key| key.to_raw());
    identity.self_signing_key = keys.self_signing_key.map(|key| key.to_raw());
    identity.user_signing_key = keys.user_signing_key.map(|key| key.to_raw());
    let identity = RequestBody::SigningKeysUpload(identity);
    let _ = homeserver.answer(machine.user_id(), machine.device_id(), identity);
    if signs {
        let signatures = RequestBody::SignaturesUpload(made.upload_signatures_req);
        let _ = homeserver.answer(machine.user_id(), machine.device_id(), signatures);
    }
    master_key
}

/// The trust of two messages of Alice's under one room key, between which she makes a new
/// identity, and the master keys of both.
async fn before_and_after_a_reset(signs_again: bool) -> ([SenderTrust; 2], [String; 2]) {
    let homeserver = Homeserver::default();
    let ghost_device = person(&homeserver, ghost(), device_id!("GHOST")).await;
    let alice_device = unsigned(&homeserver, alice(), device_id!("ALICE")).await;
    let old = make_identity(&homeserver, &alice_device, true).await;
    let first = send_laxly(&homeserver, &alice_device, ghost(), "before").await;
    let first = receive(&homeserver, &ghost_device, alice(), &first).await.unwrap();

    let new = make_identity(&homeserver, &alice_device, signs_again).await;
    let second = send_laxly(&homeserver, &alice_device, ghost(), "after").await;
    let second = receive(&homeserver, &ghost_device, alice(), &second).await.unwrap();
    assert_eq!(first.session_id, second.session_id, "she goes on with her room key");
    ([first.trust, second.trust], [old, new])
}

fn signed(master_key: &str, master_key_now: Option<&str>) -> SenderTrust {
    SenderTrust::Signed {
        master_key: master_key.to_owned(),
        master_key_now: master_key_now.map(str::to_owned),
        is_verified: false,
    }
}

#[tokio::test]
async fn who_signs_their_device_again_stands_behind_the_old_room_key() {
    let (trust, [old, new]) = before_and_after_a_reset(true).await;
    assert_eq!(trust, [signed(&old, None), signed(&old, Some(&new))]);
}

#[tokio::test]
async fn an_identity_that_has_not_signed_the_device_stands_behind_nothing() {
    let (trust, [old, _]) = before_and_after_a_reset(false).await;
    assert_eq!(trust, [signed(&old, None), signed(&old, None)]);
}
