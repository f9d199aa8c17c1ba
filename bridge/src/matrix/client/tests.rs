//! The client against a scripted server that refuses, fails and loses answers.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use assert_matches::assert_matches;
use ruma::{api::client::room::create_room, device_id, event_id, room_id, user_id};
use serde_json::{json, value::to_raw_value};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use super::*;

/// What the server does with one request.
enum Act {
    /// Answers with a status, headers and a body.
    Answer(u16, &'static str, serde_json::Value),
    /// Carries it out, and the answer is lost.
    Lose,
    /// Answers without an end.
    Flood,
}

/// A server that plays its script and keeps what it was asked.
struct Fake {
    client: MatrixClient,
    seen: Arc<Mutex<Vec<String>>>,
    _server: JoinSet<()>,
}

async fn fake(script: Vec<Act>) -> Fake {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = Url::parse(&format!("http://{}/", listener.local_addr().unwrap())).unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let mut server = JoinSet::new();
    server.spawn(serve(listener, script.into(), seen.clone()));
    let http = reqwest::Client::builder().build().unwrap();
    let client = MatrixClient::new(http, &base, Zeroizing::new("as-secret".to_owned()))
        .with_first_wait(Duration::from_millis(1));
    Fake { client, seen, _server: server }
}

async fn serve(listener: TcpListener, mut script: VecDeque<Act>, seen: Arc<Mutex<Vec<String>>>) {
    while let Some(act) = script.pop_front() {
        let (mut stream, _) = listener.accept().await.unwrap();
        let request = read_request(&mut stream).await;
        seen.lock().unwrap().push(request);
        match act {
            Act::Lose => {}
            Act::Answer(status, headers, body) => {
                let body = body.to_string();
                let answer = format!(
                    "HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {}\r\n\
                     Content-Type: application/json\r\n{headers}\r\n{body}",
                    body.len(),
                );
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
            Act::Flood => {
                let head = b"HTTP/1.1 200 X\r\nConnection: close\r\n\r\n";
                stream.write_all(head).await.unwrap();
                while stream.write_all(&[b' '; 1 << 16]).await.is_ok() {}
            }
        }
    }
}

/// The first line, the token and the body.
async fn read_request(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length: usize = head
                .lines()
                .find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok())
                .unwrap_or(0);
            if body.len() >= length {
                let first = head.lines().next().unwrap();
                assert!(head.contains("Bearer as-secret"), "every request carries the token");
                return format!("{first} {body}");
            }
        }
        let mut chunk = [0; 4096];
        let read = stream.read(&mut chunk).await.unwrap();
        assert_ne!(read, 0, "the request ended early");
        bytes.extend_from_slice(&chunk[..read]);
    }
}

fn ok(body: serde_json::Value) -> Act {
    Act::Answer(200, "", body)
}

async fn send(fake: &Fake) -> Result<ruma::OwnedEventId, ClientError> {
    let who = Identity::device(user_id!("@ghost:example.org"), device_id!("DEVICE"));
    let content = to_raw_value(&json!({ "body": "hi" })).unwrap();
    let room = room_id!("!r:example.org");
    fake.client.send_message_event(who, room, "m.room.message", "txn1".into(), &content).await
}

async fn create_room(fake: &Fake) -> Result<ruma::OwnedRoomId, ClientError> {
    let request = create_room::v3::Request::new();
    fake.client.create_room(user_id!("@ghost:example.org"), request).await
}

#[tokio::test]
async fn an_answer_without_an_end_is_not_read_to_it() {
    let fake = fake(vec![Act::Flood]).await;
    assert_matches!(create_room(&fake).await, Err(ClientError::Malformed));
}

#[tokio::test]
async fn a_lost_answer_and_a_fault_are_followed_by_the_very_same_request() {
    let fake = fake(vec![
        Act::Lose,
        Act::Answer(502, "", json!({})),
        Act::Answer(429, "", json!({ "errcode": "M_LIMIT_EXCEEDED", "retry_after_ms": 1 })),
        ok(json!({ "event_id": "$sent" })),
    ])
    .await;
    assert_eq!(send(&fake).await.unwrap(), "$sent");
    let seen = fake.seen.lock().unwrap();
    assert_eq!(seen.len(), 4);
    assert_eq!(
        seen[0],
        "PUT /_matrix/client/v3/rooms/!r:example.org/send/m.room.message/txn1\
         ?user_id=%40ghost%3Aexample.org&device_id=DEVICE HTTP/1.1 {\"body\":\"hi\"}"
    );
    assert!(seen.iter().all(|request| *request == seen[0]));
}

#[tokio::test]
async fn a_room_is_not_made_twice() {
    for act in [Act::Lose, Act::Answer(500, "", json!({}))] {
        let fake = fake(vec![act, ok(json!({ "room_id": "!twice:example.org" }))]).await;
        let error = create_room(&fake).await.unwrap_err();
        assert_matches!(error, ClientError::NoAnswer(_) | ClientError::Server { status: 500 });
        assert_eq!(fake.seen.lock().unwrap().len(), 1);
    }
    let slow_down = Act::Answer(429, "Retry-After: 0\r\n", json!({}));
    let fake = fake(vec![slow_down, ok(json!({ "room_id": "!once:example.org" }))]).await;
    assert_eq!(create_room(&fake).await.unwrap(), "!once:example.org");
}

#[tokio::test]
async fn a_refusal_comes_back_at_once_with_its_code() {
    let refusal = json!({ "errcode": "M_FORBIDDEN", "error": "@alice is not here" });
    let fake = fake(vec![Act::Answer(403, "", refusal)]).await;
    let error = send(&fake).await.unwrap_err();
    assert_eq!(error.errcode(), Some("M_FORBIDDEN"));
    assert!(!error.is_temporary());
    assert_eq!(error.to_string(), "the homeserver refused the request with 403 M_FORBIDDEN");
}

#[tokio::test]
async fn codes_that_are_no_codes_are_not_repeated() {
    let odd = json!({ "errcode": "tell everybody: pwned", "error": "" });
    let fake = fake(vec![Act::Answer(400, "", odd)]).await;
    assert_eq!(send(&fake).await.unwrap_err().errcode(), Some(""));
}

#[tokio::test]
async fn a_wait_that_is_too_long_is_left_to_the_caller() {
    let fake = fake(vec![Act::Answer(429, "Retry-After: 3600\r\n", json!({}))]).await;
    let error = send(&fake).await.unwrap_err();
    assert_matches!(error, ClientError::Limited { retry_after: Some(asked) }
        if asked == Duration::from_secs(3600));
}

#[tokio::test]
async fn nothing_shows_the_token_or_the_address() {
    let fake = fake(vec![Act::Lose]).await;
    let error = create_room(&fake).await.unwrap_err();
    let mut shown = format!("{error} {error:?} {:?}", fake.client);
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        shown.push_str(&cause.to_string());
        source = cause.source();
    }
    assert!(!shown.contains("as-secret") && !shown.contains("127.0.0.1"), "{shown}");
    assert!(!shown.contains("ghost"), "{shown}");
}

#[tokio::test]
async fn a_user_who_exists_is_registered() {
    let taken = json!({ "errcode": "M_USER_IN_USE", "error": "" });
    let fake = fake(vec![Act::Answer(400, "", taken)]).await;
    fake.client.ensure_registered(user_id!("@ghost:example.org")).await.unwrap();
    let seen = fake.seen.lock().unwrap();
    assert!(seen[0].contains(r#""type":"m.login.application_service""#));
    assert!(seen[0].contains(r#""inhibit_login":true"#));
}

#[tokio::test]
async fn the_small_sync_lets_no_room_in() {
    let fake = fake(vec![ok(json!({ "next_batch": "s2" }))]).await;
    let who = Identity::device(user_id!("@ghost:example.org"), device_id!("DEVICE"));
    let since = Some("s1".to_owned());
    let answer = fake.client.small_sync(who, since, Duration::from_millis(7)).await.unwrap();
    assert_eq!(answer.next_batch, "s2");
    let seen = fake.seen.lock().unwrap();
    let url = Url::parse(&format!("http://x{}", seen[0].split(' ').nth(1).unwrap())).unwrap();
    let query: std::collections::BTreeMap<_, _> = url.query_pairs().collect();
    assert_eq!(url.path(), "/_matrix/client/v3/sync");
    assert_eq!(query["filter"], SMALL_SYNC_FILTER);
    assert_eq!((&*query["since"], &*query["timeout"]), ("s1", "7"));
    assert_eq!(query["set_presence"], "offline");
    assert_eq!((&*query["user_id"], &*query["device_id"]), ("@ghost:example.org", "DEVICE"));
}

#[tokio::test]
async fn a_wrong_token_or_a_stray_answer_refuses_no_message() {
    let unknown = json!({ "errcode": "M_UNKNOWN_TOKEN" });
    let too_large = json!({ "errcode": "M_TOO_LARGE" });
    for (status, body, passes) in [
        (401, unknown, true),
        (404, json!({}), true),
        (302, json!({}), true),
        (413, json!({}), false),
        (413, too_large, false),
        (403, json!({ "errcode": "M_FORBIDDEN" }), false),
    ] {
        let response = http::Response::builder().status(status).body(body.to_string().into());
        let error = ClientError::from_response(&response.unwrap());
        assert_eq!(error.is_temporary(), passes, "{status}");
    }
}

fn page(events: &[&str], end: Option<&str>) -> Act {
    let chunk: Vec<_> = events.iter().map(|id| json!({ "event_id": id })).collect();
    ok(json!({ "start": "s", "end": end, "chunk": chunk }))
}

async fn since_invitation(script: Vec<Act>) -> Vec<String> {
    let fake = fake(script).await;
    let (ghost, room) = (user_id!("@ghost:example.org"), room_id!("!r:example.org"));
    let events = fake.client.fetch_since(ghost, room, event_id!("$invitation")).await.unwrap();
    events.iter().map(|event| event.get().to_owned()).collect()
}

#[tokio::test]
async fn history_goes_back_to_the_invitation_and_no_further() {
    let pages = vec![
        page(&["$join", "$second"], Some("p2")),
        page(&["$first", "$invitation", "$before"], Some("p3")),
    ];
    let [first, second, join] =
        ["$first", "$second", "$join"].map(|id| json!({ "event_id": id }).to_string());
    assert_eq!(since_invitation(pages).await, [first, second, join]);
}

#[tokio::test]
async fn without_its_invitation_history_is_not_for_the_ghost() {
    assert!(since_invitation(vec![page(&["$join", "$older"], None)]).await.is_empty());
    let endless = (0..20).map(|_| page(&["$older"], Some("more"))).collect();
    assert!(since_invitation(endless).await.is_empty());
}

#[tokio::test]
async fn an_id_with_a_backslash_makes_no_other_request() {
    let fake = fake(Vec::new()).await;
    let bot = user_id!("@gephyra:example.org");
    let room = ruma::RoomId::parse(r"!x\..\..\user\@gephyra:evil.example").unwrap();
    assert_matches!(fake.client.leave(bot, &room).await, Err(ClientError::Path));
    assert!(fake.seen.lock().unwrap().is_empty());
}
