use axum::{
    body::Body,
    http::{Request, StatusCode, header::AUTHORIZATION},
};

use super::support::{TOKEN, TRANSACTION, TestBridge, event, request};

/// Every route that the homeserver calls.
const ROUTES: [(&str, &str); 4] = [
    ("PUT", TRANSACTION),
    ("GET", "/_matrix/app/v1/users/@xmpp_bob=40example.net:example.org"),
    ("GET", "/_matrix/app/v1/rooms/%23room:example.org"),
    ("POST", "/_matrix/app/v1/ping"),
];

fn with_headers(method: &str, path: &str, headers: &[&str]) -> Request<Body> {
    let body = serde_json::json!({ "events": [event("$1")] }).to_string();
    let builder = Request::builder().method(method).uri(path);
    let builder =
        headers.iter().fold(builder, |builder, value| builder.header(AUTHORIZATION, *value));
    builder.body(Body::from(body)).unwrap()
}

async fn assert_untouched(bridge: &TestBridge) {
    assert_eq!(bridge.inbox("!room:example.org").await.len(), 0);
    assert_eq!(*bridge.hub.asked.lock().unwrap(), Vec::<ruma::OwnedUserId>::new());
    assert_eq!(*bridge.hub.rooms.lock().unwrap(), Vec::<ruma::OwnedRoomId>::new());
}

#[tokio::test]
async fn a_wrong_token_is_refused_on_every_route() {
    let bridge = TestBridge::start().await;
    let (prefix, _) = TOKEN.split_at(TOKEN.len() - 1);
    let wrong = [
        "Bearer ffffffffffffffffffffffffffffffff".to_owned(),
        format!("Bearer {prefix}"),
        format!("Bearer {TOKEN}0"),
        format!("Bearer {}", TOKEN.to_uppercase()),
        format!("Bearer  {TOKEN}"),
        format!("Basic {TOKEN}"),
        TOKEN.to_owned(),
        "Bearer ".to_owned(),
        "Bearer".to_owned(),
        String::new(),
    ];
    let mut refused = 0;
    for (method, path) in ROUTES {
        for header in &wrong {
            let answer = bridge.answer(with_headers(method, path, &[header])).await;
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "{path} {header:?}");
            assert_eq!(answer.errcode(), "M_FORBIDDEN");
            refused += 1;
        }
    }
    println!("safety: tokens: {refused} of {} requests refused", ROUTES.len() * wrong.len());
    assert_untouched(&bridge).await;
}

#[tokio::test]
async fn two_tokens_are_refused_even_when_both_are_right() {
    let bridge = TestBridge::start().await;
    let right = format!("Bearer {TOKEN}");
    for (method, path) in ROUTES {
        for headers in [[right.as_str(), right.as_str()], [right.as_str(), "Bearer x"]] {
            let answer = bridge.answer(with_headers(method, path, &headers)).await;
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "{path}");
        }
    }
    assert_untouched(&bridge).await;
}

#[tokio::test]
async fn no_token_or_one_in_the_query_only_is_refused_on_every_route() {
    let bridge = TestBridge::start().await;
    for (method, path) in ROUTES {
        for path in [path.to_owned(), format!("{path}?access_token={TOKEN}")] {
            let answer = bridge.answer(with_headers(method, &path, &[])).await;
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{path}");
            assert_eq!(answer.errcode(), "M_MISSING_TOKEN");
        }
    }
    assert_untouched(&bridge).await;
}

#[tokio::test]
async fn the_scheme_is_read_in_any_case() {
    let bridge = TestBridge::start().await;
    let header = format!("bearer {TOKEN}");
    let answer = bridge.answer(with_headers("POST", "/_matrix/app/v1/ping", &[&header])).await;
    assert_eq!(answer.status, StatusCode::OK);
}

#[tokio::test]
async fn a_refusal_repeats_no_token() {
    let bridge = TestBridge::start().await;
    let near = format!("Bearer {TOKEN}0");
    let answer = bridge.answer(with_headers("PUT", TRANSACTION, &[&near])).await;
    assert!(!answer.body.to_string().contains(TOKEN));
}

#[tokio::test]
async fn legacy_and_unknown_paths_are_not_recognized() {
    let bridge = TestBridge::start().await;
    for (method, path) in [
        ("PUT", "/transactions/1"),
        ("GET", "/users/@xmpp_bob=40example.net:example.org"),
        ("GET", "/rooms/%23room:example.org"),
        ("PUT", "/_matrix/app/v2/transactions/1"),
        ("GET", "/_matrix/app/unstable/thirdparty/protocol/xmpp"),
        ("GET", "/"),
    ] {
        let answer = bridge.answer(request(method, path, Body::empty())).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
        assert_eq!(answer.errcode(), "M_UNRECOGNIZED", "{path}");
    }
}

#[tokio::test]
async fn a_wrong_method_is_not_recognized() {
    let bridge = TestBridge::start().await;
    let answer = bridge.answer(request("POST", TRANSACTION, Body::empty())).await;
    assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(answer.errcode(), "M_UNRECOGNIZED");
}
