//! What a ghost's encryption and decryption cost, against raw vodozemac in the same run.

#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking, in its helpers too"
)]

use std::{collections::BTreeSet, hint::black_box, sync::Arc};

use criterion::{Criterion, criterion_group, criterion_main};
use e2ee::matrix::{DeviceRole, EncryptError, EncryptedContent, Machine, RoomKeySettings};
use matrix_sdk_crypto::store::MemoryStore;
use ruma::{
    device_id,
    events::room::{encryption::RoomEncryptionEventContent, history_visibility::HistoryVisibility},
    room_id,
    serde::JsonObject,
    user_id,
};
use serde_json::{json, value::RawValue};
use tokio::runtime::Runtime;
use vodozemac::megolm::{GroupSession, InboundGroupSession, SessionConfig};

#[path = "../tests/matrix/homeserver.rs"]
#[expect(dead_code, reason = "the tests need more of it")]
mod homeserver;

use homeserver::Homeserver;

const BODY: &str = "The quick brown fox jumps over the lazy dog, and then does so once more.";

fn settings() -> RoomKeySettings {
    let algorithm = ruma::EventEncryptionAlgorithm::MegolmV1AesSha2;
    let encryption = RoomEncryptionEventContent::new(algorithm);
    RoomKeySettings { encryption, visibility: HistoryVisibility::Shared }
}

/// A ghost that writes and one that reads, with a shared room key and one event.
struct World {
    writer: Machine,
    reader: Machine,
    event: Box<RawValue>,
    content: JsonObject,
}

async fn world() -> World {
    let homeserver = Homeserver::default();
    let (writer_id, reader_id) = (user_id!("@writer:example.org"), user_id!("@reader:example.org"));
    let mut machines = Vec::new();
    for user in [writer_id, reader_id] {
        let store = Arc::new(MemoryStore::new());
        let machine =
            Machine::load(user, device_id!("GHOST"), store, DeviceRole::Full).await.unwrap();
        homeserver.carry(&machine, machine.publication().await.unwrap()).await;
        homeserver.settle(&machine).await;
        machines.push(machine);
    }
    let reader = machines.pop().unwrap();
    let writer = machines.pop().unwrap();
    let readers = BTreeSet::from([reader_id.to_owned()]);
    writer.track(&readers).await.unwrap();
    homeserver.settle(&writer).await;
    let claim = writer.claim(&readers).await.unwrap().unwrap();
    homeserver.carry(&writer, vec![claim]).await;
    let requests = writer.share(room_id!("!r:example.org"), &readers, &settings()).await.unwrap();
    homeserver.carry(&writer, requests).await;
    let content: JsonObject =
        serde_json::from_value(json!({ "msgtype": "m.text", "body": BODY })).unwrap();
    let encrypted =
        writer.encrypt(room_id!("!r:example.org"), "m.room.message", &content).await.unwrap();
    let event = json!({
        "type": "m.room.encrypted", "event_id": "$e", "sender": writer_id,
        "origin_server_ts": 1, "content":
            serde_json::from_str::<serde_json::Value>(&encrypted.into_json()).unwrap(),
    });
    homeserver.sync(&reader).await;
    reader.track(&BTreeSet::from([writer_id.to_owned()])).await.unwrap();
    homeserver.settle(&reader).await;
    World { writer, reader, event: serde_json::value::to_raw_value(&event).unwrap(), content }
}

/// A room key that is worn out, once in 50 messages, is replaced on the way.
async fn encrypt(world: &World) -> EncryptedContent {
    let room = room_id!("!r:example.org");
    loop {
        match world.writer.encrypt(room, "m.room.message", &world.content).await {
            Ok(encrypted) => return encrypted,
            Err(EncryptError::NotShared) => {
                let readers = BTreeSet::from([world.reader.user_id().to_owned()]);
                let requests = world.writer.share(room, &readers, &settings()).await.unwrap();
                Homeserver::default().carry(&world.writer, requests).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

fn ghosts(criterion: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let world = runtime.block_on(world());
    let room = room_id!("!r:example.org");
    let mut group = criterion.benchmark_group("matrix");
    group.bench_function("ghost encrypt, memory store", |bencher| {
        bencher.iter(|| black_box(runtime.block_on(encrypt(&world))));
    });
    group.bench_function("ghost decrypt, memory store", |bencher| {
        bencher.iter(|| {
            let opened = runtime.block_on(world.reader.decrypt(room, &world.event)).unwrap();
            black_box(opened.message_index)
        });
    });
    group.finish();
}

fn raw(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("matrix");
    let plaintext = json!({
        "type": "m.room.message", "room_id": "!r:example.org",
        "content": { "msgtype": "m.text", "body": BODY },
    })
    .to_string();
    group.bench_function("raw Megolm encrypt", |bencher| {
        let mut session = GroupSession::new(SessionConfig::version_1());
        bencher.iter(|| black_box(session.encrypt(&plaintext)));
    });
    group.bench_function("raw Megolm decrypt", |bencher| {
        let mut session = GroupSession::new(SessionConfig::version_1());
        let mut inbound =
            InboundGroupSession::new(&session.session_key(), SessionConfig::version_1());
        let message = session.encrypt(&plaintext);
        bencher.iter(|| black_box(inbound.decrypt(&message).unwrap()));
    });
    group.finish();
}

criterion_group!(benches, raw, ghosts);
criterion_main!(benches);
