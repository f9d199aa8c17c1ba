//! What went through the proxy, and counting it.

use std::collections::BTreeSet;

use axum::http::Method;
use axum::http::request::Parts;
use serde_json::Value;

use super::Link;

/// A request as it was sent, before any rule.
#[derive(Debug, Clone)]
pub struct Request {
    /// The link that it came on.
    pub link: Link,
    /// The method.
    pub method: Method,
    /// The path, without the query.
    pub path: String,
    /// The one of our users as whom the bridge asks (`user_id` of the query).
    pub user: Option<String>,
    /// The device as which it asks (`device_id` of the query).
    pub device: Option<String>,
    /// The body; null when it was no JSON.
    pub body: Value,
}

/// An event that one of our users has sent into a room.
#[derive(Debug, Clone, PartialEq)]
pub struct Sent {
    /// Who sent it.
    pub sender: String,
    /// Its type, as the homeserver sees it.
    pub event_type: String,
    /// Its content, as the homeserver sees it.
    pub content: Value,
}

impl Request {
    pub(super) fn new(link: Link, parts: &Parts, body: &[u8]) -> Self {
        let path = parts.uri.path().to_owned();
        let body = serde_json::from_slice(body).unwrap_or_default();
        let query = parts.uri.query().unwrap_or_default();
        let url = reqwest::Url::parse(&format!("http://localhost/?{query}")).ok();
        let named = |field: &str| {
            let found = url.as_ref()?.query_pairs().find(|(name, _)| name == field);
            found.map(|(_, value)| value.into_owned())
        };
        let (user, device) = (named("user_id"), named("device_id"));
        Self { link, method: parts.method.clone(), path, user, device, body }
    }

    /// The events of a transaction.
    pub fn events(&self) -> impl Iterator<Item = Value> {
        let events = match self.link {
            Link::Push => self.body.get("events").and_then(Value::as_array),
            Link::Client => None,
        };
        events.into_iter().flatten().cloned()
    }
}

impl Sent {
    /// The Megolm session that it was encrypted in.
    pub fn session(&self) -> Option<&str> {
        self.content.get("session_id")?.as_str()
    }

    /// Whether it is a message that everybody can read.
    pub fn is_plain_message(&self) -> bool {
        self.event_type == "m.room.message"
    }
}

/// `/rooms/{room}/send/{type}/{transaction}`; a repeated request counts once.
pub(super) fn sent_into(requests: &[Request], room: &str) -> Vec<Sent> {
    let start = format!("/rooms/{room}/send/");
    let mut paths = BTreeSet::new();
    let sent = requests.iter().filter(|request| request.method == Method::PUT);
    sent.filter_map(|request| {
        let (_, rest) = request.path.split_once(&start)?;
        let (event_type, _) = rest.split_once('/')?;
        let is_first = paths.insert(request.path.clone());
        let content = request.body.clone();
        let sender = request.user.clone().unwrap_or_default();
        is_first.then(|| Sent { sender, event_type: event_type.to_owned(), content })
    })
    .collect()
}

/// Who has sent a message to a device: `/sendToDevice/{type}/{transaction}`; a repeated request counts once.
pub(super) fn senders_to(requests: &[Request], event_type: &str, device: &str) -> Vec<String> {
    let start = format!("/sendToDevice/{event_type}/");
    let mut paths = BTreeSet::new();
    let sent = requests
        .iter()
        .filter(|request| request.link == Link::Client && request.path.contains(&start))
        .filter(|request| paths.insert((&request.path, &request.user)));
    let is_to_it = |request: &&Request| {
        let users = request.body.get("messages").and_then(Value::as_object);
        users.into_iter().flatten().any(|(_, devices)| devices.get(device).is_some())
    };
    sent.filter(is_to_it).map(|request| request.user.clone().unwrap_or_default()).collect()
}
