//! Who owns a device, and for how long.

mod homeserver;
mod opening;
mod sealing;
mod two_bridges;
mod wedged;

use std::{
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use assert_matches::assert_matches;
use ruma::{room_id, user_id};
use serde_json::json;
use tokio::sync::{Notify, oneshot};
use url::Url;
use zeroize::Zeroizing;

use self::homeserver::Homeserver;
use super::{device::Device, *};
use crate::{
    clock::SystemClock,
    store::testing::{TestDatabase, sqlite},
};

struct NoBell;

impl DeviceEvents for NoBell {
    fn keys_arrived(&self, _: &RoomId) {}
    fn device_lists_changed(&self, _: &[OwnedUserId]) {}
    fn verifications_changed(&self, _: &UserId) {}
}

/// Devices whose homeserver answers nothing.
async fn devices(loaded: usize) -> (Arc<Devices>, TestDatabase) {
    devices_at(&Url::parse("http://127.0.0.1:9/").unwrap(), loaded).await
}

async fn devices_at(homeserver: &Url, loaded: usize) -> (Arc<Devices>, TestDatabase) {
    let database = sqlite();
    let limits = DeviceLimits { loaded, ..DeviceLimits::default() };
    (devices_on(&database, homeserver, "xmpp", limits).await, database)
}

/// The devices of the bridge to a network.
async fn devices_on(
    database: &TestDatabase,
    homeserver: &Url,
    network: &str,
    limits: DeviceLimits,
) -> Arc<Devices> {
    let http = reqwest::Client::builder().build().unwrap();
    let client = MatrixClient::new(http, homeserver, Zeroizing::new("token".to_owned()))
        .with_first_wait(Duration::from_millis(1));
    let bot = OwnedUserId::try_from(format!("@{network}:example.org")).unwrap();
    Devices::new(DevicesParts {
        client,
        db: database.open().await,
        clock: Arc::new(SystemClock),
        namespace: Namespace::new(network, bot),
        events: Arc::new(NoBell),
        tracker: TaskTracker::new(),
        stop: CancellationToken::new(),
        limits,
    })
}

fn ghost(number: usize) -> OwnedUserId {
    OwnedUserId::try_from(format!("@xmpp_g{number}:example.org")).unwrap()
}

#[tokio::test]
async fn a_job_is_done_to_its_end_though_its_caller_has_gone() {
    let (devices, _database) = devices(4).await;
    let (started, begun) = oneshot::channel();
    let (go_on, may_go_on) = oneshot::channel::<()>();
    let order = Arc::new(Mutex::new(Vec::new()));
    let call = {
        let (devices, order) = (devices.clone(), order.clone());
        async move {
            devices
                .directory
                .call(&ghost(1), Interest::Wanted, move |_: &mut Device| {
                    Box::pin(async move {
                        started.send(()).unwrap();
                        may_go_on.await.unwrap();
                        order.lock().unwrap().push("first");
                    })
                })
                .await
        }
    };
    {
        let mut call = Box::pin(call);
        tokio::select! {
            _ = &mut call => panic!("it cannot end yet"),
            result = begun => result.unwrap(),
        }
        // Here the caller goes away.
    }
    go_on.send(()).unwrap();
    let second = order.clone();
    devices
        .directory
        .call(&ghost(1), Interest::Wanted, move |_: &mut Device| {
            Box::pin(async move { second.lock().unwrap().push("second") })
        })
        .await
        .unwrap();
    assert_eq!(*order.lock().unwrap(), ["first", "second"]);
}

#[tokio::test]
async fn there_are_never_two_tasks_for_one_device_however_small_the_memory() {
    let (devices, _database) = devices(2).await;
    let alive: Arc<[AtomicUsize; 5]> = Arc::default();
    let mut calls = tokio::task::JoinSet::new();
    for round in 0..60 {
        let (devices, alive) = (devices.clone(), alive.clone());
        calls.spawn(async move {
            let number = round % 5;
            devices
                .directory
                .call(&ghost(number), Interest::Wanted, move |_: &mut Device| {
                    Box::pin(async move {
                        let before = alive[number].fetch_add(1, Ordering::SeqCst);
                        tokio::task::yield_now().await;
                        alive[number].fetch_sub(1, Ordering::SeqCst);
                        before
                    })
                })
                .await
        });
    }
    while let Some(result) = calls.join_next().await {
        assert_eq!(result.unwrap().unwrap(), 0, "another task had the device");
    }
}

#[tokio::test]
async fn a_device_whose_task_died_is_begun_anew() {
    let (devices, _database) = devices(2).await;
    let died = devices
        .directory
        .call(&ghost(1), Interest::Wanted, |_: &mut Device| {
            Box::pin(async { panic!("a fault of the library") })
        })
        .await;
    assert_matches!(died, Err(MatrixError::PutAway));
    let alive = devices
        .directory
        .call(&ghost(1), Interest::Wanted, |_: &mut Device| Box::pin(async {}))
        .await;
    assert_matches!(alive, Ok(()));
}

#[tokio::test]
async fn a_stop_ends_all_tasks_after_what_they_are_at() {
    let (devices, _database) = devices(2).await;
    let done = Arc::new(Notify::new());
    let seen = done.clone();
    devices
        .directory
        .call(&ghost(1), Interest::Wanted, move |_: &mut Device| {
            Box::pin(async move { seen.notify_one() })
        })
        .await
        .unwrap();
    done.notified().await;
    devices.stop.cancel();
    devices.tracker.close();
    devices.tracker.wait().await;
    let refused = devices.ensure_published(&ghost(1)).await;
    assert_matches!(refused, Err(MatrixError::PutAway));
}

#[tokio::test]
async fn a_device_in_the_place_of_another_waits_for_messages_only_if_it_expects_some() {
    let (homeserver, database) = (Homeserver::start().await, sqlite());
    let limits =
        DeviceLimits { loaded: 1, settled: Duration::from_secs(3600), ..DeviceLimits::default() };
    let devices = devices_on(&database, &homeserver.url, "xmpp", limits).await;
    devices.ensure_published(&ghost(1)).await.unwrap();
    homeserver.syncs(&ghost(1)).await;

    devices.ensure_published(&ghost(2)).await.unwrap();
    let second = ghost(2);
    let waited = tokio::time::timeout(Duration::from_millis(200), homeserver.syncs(&second)).await;
    assert!(waited.is_err(), "it has a reason to wait for nothing");
    let event = json!({
        "type": "m.room.encrypted", "event_id": "$one", "sender": "@alice:example.org",
        "room_id": "!room:example.org", "origin_server_ts": 1, "content": {
            "algorithm": "m.megolm.v1.aes-sha2", "session_id": "none", "ciphertext": "AwgA",
        },
    });
    let room = room_id!("!room:example.org");
    assert!(devices.decrypt(&ghost(2), None, room, &event.to_string()).await.is_err());
    // That was a look; now it waits.
    homeserver.syncs(&ghost(2)).await;
}

#[tokio::test]
async fn whoever_is_published_is_ready_while_the_homeserver_is_away() {
    let (homeserver, database) = (Homeserver::start().await, sqlite());
    let limits = DeviceLimits { waiting: 0, ..DeviceLimits::default() };
    let devices = devices_on(&database, &homeserver.url, "xmpp", limits).await;
    devices.ensure_published(&ghost(1)).await.unwrap();
    devices.stop.cancel();
    devices.tracker.close();
    devices.tracker.wait().await;
    drop(devices);

    let nowhere = Url::parse("http://127.0.0.1:9/").unwrap();
    let devices = devices_on(&database, &nowhere, "xmpp", limits).await;
    devices.ensure_published(&ghost(1)).await.unwrap();
    assert!(devices.ensure_published(&ghost(2)).await.is_err());
}

#[tokio::test]
async fn users_of_others_are_never_made() {
    let (devices, _database) = devices(2).await;
    for user in [user_id!("@alice:example.org"), user_id!("@xmpp_=zz:example.org")] {
        assert_matches!(devices.ensure_published(user).await, Err(MatrixError::NotOurs));
    }
}

#[tokio::test]
async fn a_homeserver_that_is_away_is_a_passing_fault() {
    let (devices, _database) = devices(2).await;
    let error = devices.ensure_published(&ghost(1)).await.unwrap_err();
    assert_matches!(error, MatrixError::Client(error) if error.is_temporary());
}

#[test]
fn keys_are_offered_again_after_a_pause_whatever_the_clock_does() {
    let mut uploads = super::uploads::Uploads::default();
    assert!(!uploads.are_paused(0));
    uploads.pause(1000);
    assert!(uploads.are_paused(1000) && uploads.are_paused(30_999));
    assert!(!uploads.are_paused(31_000), "the pause is over");
    assert!(!uploads.are_paused(999), "the clock was set back");
}
