use axum::{
    body::Body,
    http::{StatusCode, header::CONTENT_LENGTH},
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_util::sync::CancellationToken;

use super::support::{TOKEN, TestBridge, event, request};
use crate::appservice::serve;

#[tokio::test]
async fn the_intake_decides_which_users_exist() {
    let bridge = TestBridge::start().await;
    for (user, status) in [
        ("@xmpp_bob=40example.net:example.org", StatusCode::OK),
        ("%40xmpp_bob%3D40example.net%3Aexample.org", StatusCode::OK),
        ("@xmpp_nobody:example.org", StatusCode::NOT_FOUND),
    ] {
        let path = format!("/_matrix/app/v1/users/{user}");
        let answer = bridge.answer(request("GET", &path, Body::empty())).await;
        assert_eq!(answer.status, status, "{user}");
    }
    assert_eq!(bridge.hub.asked.lock().unwrap().len(), 3);
}

#[tokio::test]
async fn what_is_no_identifier_is_refused_unasked() {
    let bridge = TestBridge::start().await;
    for path in ["users/bob", "users/%ff", "users/@bob", "users/%00", "rooms/room", "rooms/%ff"] {
        let path = format!("/_matrix/app/v1/{path}");
        let answer = bridge.answer(request("GET", &path, Body::empty())).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{path}");
        assert_eq!(answer.errcode(), "M_INVALID_PARAM", "{path}");
    }
    assert!(bridge.hub.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn no_room_has_an_alias_of_ours() {
    let bridge = TestBridge::start().await;
    let path = "/_matrix/app/v1/rooms/%23room:example.org";
    let answer = bridge.answer(request("GET", path, Body::empty())).await;
    assert_eq!((answer.status, answer.errcode()), (StatusCode::NOT_FOUND, "M_NOT_FOUND"));
}

#[tokio::test]
async fn the_answer_to_a_ping_has_a_content_length() {
    let bridge = TestBridge::start().await;
    let body = json!({ "transaction_id": "1" }).to_string();
    let answer = bridge.answer(request("POST", "/_matrix/app/v1/ping", body)).await;
    assert_eq!((answer.status, &answer.body), (StatusCode::OK, &json!({})));
    assert_eq!(answer.headers[CONTENT_LENGTH], "2");
}

#[tokio::test]
async fn health_needs_no_token_and_follows_the_database() {
    let bridge = TestBridge::start().await;
    let health = || request("GET", "/health", Body::empty());
    assert_eq!(bridge.answer(health()).await.status, StatusCode::OK);

    bridge.db.close().await.unwrap();
    assert_eq!(bridge.answer(health()).await.status, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn health_says_that_the_database_takes_no_writes() {
    let bridge = TestBridge::start().await;
    let health = || request("GET", "/health", Body::empty());
    let refuse = "CREATE TRIGGER refuse BEFORE UPDATE ON store_owner \
        BEGIN SELECT RAISE(ABORT, 'no space'); END";
    bridge.execute(refuse).await;
    let refused = bridge.push_events(&[event("$1")]).await;
    assert_eq!(refused.status, StatusCode::INTERNAL_SERVER_ERROR);
    let ill = bridge.answer(health()).await;
    assert_eq!(ill.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(ill.body, json!({ "status": "the database takes no writes" }));

    bridge.execute("DROP TRIGGER refuse").await;
    assert_eq!(bridge.push_events(&[event("$1")]).await.status, StatusCode::OK);
    assert_eq!(bridge.answer(health()).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_stop_ends_idle_connections_and_the_server() {
    let bridge = TestBridge::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let homeserver = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let ping = format!(
            "POST /_matrix/app/v1/ping HTTP/1.1\r\nhost: bridge\r\n\
             authorization: Bearer {TOKEN}\r\ncontent-length: 2\r\n\r\n{{}}"
        );
        stream.write_all(ping.as_bytes()).await.unwrap();
        let mut first_byte = [0];
        stream.read_exact(&mut first_byte).await.unwrap();
        stop.cancel();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
        String::from_utf8(rest).unwrap()
    };
    let (served, answer) =
        tokio::join!(serve(listener, bridge.router.clone(), stop.clone()), homeserver);
    served.unwrap();
    assert!(answer.starts_with("TTP/1.1 200 OK"), "{answer}");
    assert!(answer.contains("content-length: 2"), "{answer}");
}
