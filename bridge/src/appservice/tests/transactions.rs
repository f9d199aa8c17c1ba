use axum::http::StatusCode;
use serde_json::{Value, json};

use super::support::{TestBridge, event};
use crate::appservice::MAX_BODY_BYTES;

const ROOM: &str = "!room:example.org";

#[tokio::test]
async fn events_are_committed_in_order_before_the_answer() {
    let bridge = TestBridge::start().await;
    let answer = bridge.push_events(&[event("$1"), event("$2"), event("$3")]).await;

    assert_eq!((answer.status, answer.body), (StatusCode::OK, json!({})));
    assert_eq!(*bridge.hub.rooms.lock().unwrap(), [ROOM]);
    let bridge = bridge.restart().await;
    assert_eq!(bridge.inbox_ids(ROOM).await, ["$1", "$2", "$3"]);
}

#[tokio::test]
async fn an_event_is_stored_whole() {
    let bridge = TestBridge::start().await;
    let mut name = event("$1");
    name["type"] = "m.room.name".into();
    name["state_key"] = "".into();
    bridge.push_events(&[name.clone()]).await;

    let stored = bridge.inbox(ROOM).await.remove(0).event;
    assert_eq!(stored.sender, "@alice:example.org");
    assert_eq!(stored.event_type, "m.room.name");
    assert_eq!(stored.state_key.as_deref(), Some(""));
    assert_eq!(stored.origin_ts, 1_700_000_000_000);
    assert_eq!(serde_json::from_str::<Value>(&stored.json).unwrap(), name);
}

#[tokio::test]
async fn an_event_pushed_twice_is_stored_once() {
    let bridge = TestBridge::start().await;
    bridge.push_events(&[event("$1"), event("$1")]).await;
    // The same again, under the same transaction id and with more in it.
    let answer = bridge.push_events(&[event("$1"), event("$2")]).await;

    assert_eq!(answer.status, StatusCode::OK);
    let bridge = bridge.restart().await;
    bridge.push_events(&[event("$2"), event("$1")]).await;
    assert_eq!(bridge.inbox_ids(ROOM).await, ["$1", "$2"]);
}

#[tokio::test]
async fn a_transaction_that_was_left_behind_while_we_were_away_is_asked_for() {
    let bridge = TestBridge::start().await;
    assert_eq!(bridge.push_as(7, &[event("$7")]).await.status, StatusCode::OK);
    let bridge = bridge.restart().await;
    let refused = bridge.push_as(9, &[event("$9")]).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(bridge.inbox_ids(ROOM).await, ["$7"]);
    for number in [8, 9] {
        let events = [event(&format!("${number}"))];
        assert_eq!(bridge.push_as(number, &events).await.status, StatusCode::OK);
    }
    assert_eq!(bridge.inbox_ids(ROOM).await, ["$7", "$8", "$9"]);
    let bridge = bridge.restart().await;
    assert_eq!(bridge.push_as(10, &[event("$10")]).await.status, StatusCode::OK, "there is no gap");
}

#[tokio::test]
async fn what_is_done_does_not_come_back() {
    let bridge = TestBridge::start().await;
    bridge.push_events(&[event("$1")]).await;
    let row = bridge.inbox(ROOM).await.remove(0);
    let mut tx = bridge.db.begin().await.unwrap();
    tx.matrix_inbox().mark_done(row.id).await.unwrap();
    tx.commit().await.unwrap();

    bridge.push_events(&[event("$1")]).await;
    assert_eq!(bridge.inbox_ids(ROOM).await, [""; 0]);
}

#[tokio::test]
async fn what_is_not_stored_is_not_acknowledged() {
    let bridge = TestBridge::start().await;
    bridge.db.close().await.unwrap();
    let answer = bridge.push_events(&[event("$1")]).await;

    assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(bridge.hub.rooms.lock().unwrap().is_empty());
    let bridge = bridge.restart().await;
    assert_eq!(bridge.inbox_ids(ROOM).await, [""; 0]);
    assert_eq!(bridge.push_events(&[event("$1")]).await.status, StatusCode::OK);
    assert_eq!(bridge.inbox_ids(ROOM).await, ["$1"]);
}

#[tokio::test]
async fn a_malformed_event_keeps_no_other_waiting() {
    let bridge = TestBridge::start().await;
    let broken = |key: &str, value: Value| {
        let mut event = event("$broken");
        event[key] = value;
        event
    };
    let events = [
        event("$1"),
        json!(null),
        json!("event"),
        json!({}),
        broken("event_id", json!("no sigil")),
        broken("event_id", json!(5)),
        broken("room_id", json!("room")),
        broken("sender", json!("alice")),
        broken("type", json!(["m.room.message"])),
        broken("type", json!("m.room\u{0}")),
        broken("state_key", json!(7)),
        broken("state_key", json!("\u{0}")),
        broken("origin_server_ts", json!("yesterday")),
        broken("origin_server_ts", json!(1e300)),
        broken("content", json!("text")),
        event("$2"),
    ];
    let answer = bridge.push_events(&events).await;

    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(bridge.inbox_ids(ROOM).await, ["$1", "$2"]);
}

#[tokio::test]
async fn an_event_nested_a_hundred_thousand_deep_keeps_no_other_waiting() {
    let bridge = TestBridge::start().await;
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let deep_event = event("$deep").to_string().replace("\"hello\"", &deep);
    let body = format!(r#"{{"events":[{},{deep_event},{}]}}"#, event("$1"), event("$2"));
    let answer = bridge.push(body).await;

    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(bridge.inbox_ids(ROOM).await, ["$1", "$2"]);
}

#[tokio::test]
async fn a_key_that_stands_twice_means_the_same_to_every_reader() {
    let bridge = TestBridge::start().await;
    let twice = event("$1").to_string().replacen('{', r#"{"sender":"@mallory:example.org","#, 1);
    bridge.push(format!(r#"{{"events":[{twice}]}}"#)).await;

    let stored = bridge.inbox(ROOM).await.remove(0).event;
    assert_eq!(stored.json.matches("\"sender\"").count(), 1);
    let json: Value = serde_json::from_str(&stored.json).unwrap();
    assert_eq!(json["sender"], stored.sender.as_str());
}

#[tokio::test]
async fn a_body_that_is_no_transaction_is_refused() {
    let bridge = TestBridge::start().await;
    let deep = "[".repeat(1_000_000);
    for (body, errcode) in [
        ("", "M_NOT_JSON"),
        ("events", "M_NOT_JSON"),
        (r#"{"events":["#, "M_NOT_JSON"),
        (&deep, "M_NOT_JSON"),
        ("\u{fffd}", "M_NOT_JSON"),
        ("{}", "M_BAD_JSON"),
        ("[]", "M_BAD_JSON"),
        (r#"{"events":{}}"#, "M_BAD_JSON"),
        (r#"{"events":[],"de.sorunome.msc2409.to_device":5}"#, "M_BAD_JSON"),
    ] {
        let answer = bridge.push(body.to_owned()).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{body:.40}");
        assert_eq!(answer.errcode(), errcode, "{body:.40}");
    }
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_and_one_at_the_limit_is_not() {
    let bridge = TestBridge::start().await;
    let mut body = json!({ "events": [event("$1")] }).to_string();
    body.push_str(&" ".repeat(MAX_BODY_BYTES - body.len()));
    assert_eq!(bridge.push(body.clone()).await.status, StatusCode::OK);

    body.push(' ');
    let answer = bridge.push(body).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(answer.errcode(), "M_TOO_LARGE");
}

#[tokio::test]
async fn pushed_to_device_messages_only_ring_the_bell() {
    let bridge = TestBridge::start().await;
    let message = |to: &str| json!({ "to_user_id": to, "type": "m.room.encrypted", "content": {} });
    let body = json!({
        "events": [],
        "de.sorunome.msc2409.to_device": [
            message("@gephyra:example.org"),
            message("@gephyra:example.org"),
            message("nobody"),
            { "type": "m.dummy" },
        ],
    });
    assert_eq!(bridge.push(body.to_string()).await.status, StatusCode::OK);
    assert_eq!(*bridge.hub.hinted.lock().unwrap(), ["@gephyra:example.org"]);
}
