//! A homeserver whose answers a test makes up.

use axum::{
    Json, Router,
    body::Bytes,
    http::{StatusCode, Uri},
};
use serde_json::Value;
use tokio::{net::TcpListener, task::JoinSet};
use url::Url;

/// It answers until this is dropped.
pub(crate) struct MadeUp {
    /// Its base address.
    pub(crate) url: Url,
    _server: JoinSet<()>,
}

impl MadeUp {
    /// Answers each request, told its address and body, with a status and JSON.
    pub(crate) async fn start<F>(answer: F) -> Self
    where
        F: Fn(&Uri, &Bytes) -> (StatusCode, Value) + Clone + Send + Sync + 'static,
    {
        Self::start_stalling(answer, |_| false).await
    }

    /// As [`Self::start`], but what is asked at addresses that `stalls` says gets no answer.
    pub(crate) async fn start_stalling<F, S>(answer: F, stalls: S) -> Self
    where
        F: Fn(&Uri, &Bytes) -> (StatusCode, Value) + Clone + Send + Sync + 'static,
        S: Fn(&Uri) -> bool + Clone + Send + Sync + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = Url::parse(&format!("http://{}/", listener.local_addr().unwrap())).unwrap();
        let answer = async move |uri: Uri, body: Bytes| {
            if stalls(&uri) {
                std::future::pending::<()>().await;
            }
            let (status, json) = answer(&uri, &body);
            (status, Json(json))
        };
        let mut server = JoinSet::new();
        server.spawn(async move {
            axum::serve(listener, Router::new().fallback(answer)).await.unwrap();
        });
        Self { url, _server: server }
    }
}
