//! What the proxy does to which requests.

use std::fmt;

use axum::body::Bytes;
use axum::http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::Value;

use super::Request;
use super::fault::Fault;

/// One of the two links between homeserver and bridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Link {
    /// What the bridge asks of the homeserver.
    Client,
    /// What the homeserver pushes to the bridge.
    Push,
}

/// What becomes of the requests of a kind.
#[derive(Debug)]
pub struct Rule {
    pub(super) link: Link,
    /// Any, when there is none.
    pub(super) method: Option<Method>,
    /// Fits when it stands anywhere in the path.
    pub(super) path: String,
    /// What it must be besides; anything, when there is nothing.
    pub(super) condition: Option<Condition>,
    pub(super) action: Action,
    /// Of the requests that fit, only every so manieth.
    pub(super) every: usize,
    pub(super) times: usize,
}

#[derive(Debug)]
pub(super) enum Action {
    Refuse,
    LoseAnswer,
    Hold,
    Answer(StatusCode, Value),
    Suffer(Fault),
    RewriteRequest(Rewrite),
    RewriteAnswer(Rewrite),
    HoldAnswer(Wanted),
}

/// When a rule has something to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// When a request comes.
    Request,
    /// When its answer comes.
    Answer,
}

impl Action {
    pub fn stage(&self) -> Stage {
        match self {
            Self::RewriteAnswer(_) | Self::HoldAnswer(_) => Stage::Answer,
            _ => Stage::Request,
        }
    }
}

/// Changes a body, and says whether it has.
pub(super) struct Rewrite(Box<dyn Fn(&mut Value) -> bool + Send + Sync>);

/// Says whether a request is one that the rule is about.
pub(super) struct Condition(Box<dyn Fn(&Request) -> bool + Send + Sync>);

impl fmt::Debug for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Condition")
    }
}

/// Says whether a body is one that the rule is about.
pub(super) struct Wanted(Box<dyn Fn(&Value) -> bool + Send + Sync>);

impl fmt::Debug for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wanted")
    }
}

impl Wanted {
    pub fn is(&self, body: &[u8]) -> bool {
        serde_json::from_slice(body).is_ok_and(|value| (self.0)(&value))
    }
}

impl fmt::Debug for Rewrite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Rewrite")
    }
}

impl Rewrite {
    /// The changed body; nothing when there was nothing to change.
    pub fn of(&self, body: &[u8]) -> Option<Bytes> {
        let mut value: Value = serde_json::from_slice(body).ok()?;
        (self.0)(&mut value).then(|| value.to_string().into())
    }
}

impl Rule {
    /// Transactions, which are refused before the bridge sees them.
    pub fn refuse_transactions() -> Self {
        Self::on_transactions(Action::Refuse)
    }

    /// Transactions, which the bridge takes while the homeserver is told that they failed.
    pub fn lose_answers_to_transactions() -> Self {
        Self::on_transactions(Action::LoseAnswer)
    }

    /// Transactions, which arrive only when the order is dropped.
    pub fn hold_transactions() -> Self {
        Self::on_transactions(Action::Hold)
    }

    /// Events that are pushed to the bridge. `rewrite` says whether it has changed the event.
    pub fn rewrite_events(rewrite: impl Fn(&mut Value) -> bool + Send + Sync + 'static) -> Self {
        let rewrite = move |body: &mut Value| {
            let events = body.get_mut("events").and_then(Value::as_array_mut);
            // Every event is looked at, also behind one that was changed.
            events.is_some_and(|all| {
                all.iter_mut().filter_map(|e| rewrite(e).then_some(())).count() > 0
            })
        };
        Self::on_transactions(Action::RewriteRequest(Rewrite(Box::new(rewrite))))
    }

    /// Answers of the homeserver to requests of the bridge. `rewrite` says whether it has changed the answer.
    pub fn rewrite_answers(
        method: Method,
        path: &str,
        rewrite: impl Fn(&mut Value) -> bool + Send + Sync + 'static,
    ) -> Self {
        let action = Action::RewriteAnswer(Rewrite(Box::new(rewrite)));
        Self::new(Link::Client, method, path, action)
    }

    /// Requests of the bridge that the homeserver carries out, while its answer comes only when the order is dropped.
    /// `is_held` looks at the answer.
    pub fn hold_answers(
        method: Method,
        path: &str,
        is_held: impl Fn(&Value) -> bool + Send + Sync + 'static,
    ) -> Self {
        let action = Action::HoldAnswer(Wanted(Box::new(is_held)));
        Self::new(Link::Client, method, path, action)
    }

    /// Requests of the bridge that the homeserver never sees, and what the bridge is told instead.
    pub fn answer(method: Method, path: &str, status: StatusCode, body: Value) -> Self {
        let action = Action::Answer(status, body);
        Self::new(Link::Client, method, path, action)
    }

    /// The rule ends by itself after so many times.
    pub fn times(self, times: usize) -> Self {
        Self { times, ..self }
    }

    /// Only requests of which this is true besides.
    pub fn only(self, is_it: impl Fn(&Request) -> bool + Send + Sync + 'static) -> Self {
        Self { condition: Some(Condition(Box::new(is_it))), ..self }
    }

    /// Only requests that the bridge makes as this one of our users.
    pub fn by(self, user: &str) -> Self {
        let user = user.to_owned();
        self.only(move |request| request.user.as_deref() == Some(&user))
    }

    fn on_transactions(action: Action) -> Self {
        Self::new(Link::Push, Method::PUT, "/transactions/", action)
    }

    fn new(link: Link, method: Method, path: &str, action: Action) -> Self {
        Self::for_all(link, Some(method), path, action)
    }

    /// All requests of a kind.
    pub(super) fn for_all(link: Link, method: Option<Method>, path: &str, action: Action) -> Self {
        let path = path.to_owned();
        Self { link, method, path, condition: None, action, every: 1, times: usize::MAX }
    }

    pub(super) fn fits(&self, request: &Request) -> bool {
        self.link == request.link
            && self.method.as_ref().is_none_or(|method| *method == request.method)
            && request.path.contains(&self.path)
            && self.condition.as_ref().is_none_or(|condition| (condition.0)(request))
    }
}

/// Which requests it is for, and what becomes of them.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { link, method, path, condition: _, action, every, times: _ } = self;
        write!(f, "{link:?}")?;
        if let Some(method) = method {
            write!(f, " {method}")?;
        }
        if !path.is_empty() {
            write!(f, " {path}")?;
        }
        if *every > 1 {
            write!(f, ", one in {every}")?;
        }
        match action {
            Action::Suffer(fault) => write!(f, ", {fault:?}"),
            other => write!(f, ", {other:?}"),
        }
    }
}
