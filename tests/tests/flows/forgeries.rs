//! A homeserver that forges, replays and rewrites. Each story counts what reached whom; lines that begin with `safety:`
//! are the figures of `cargo xtask safety`.

mod events;
mod keys;
mod state;

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};
use tests::evil_hs::Rule;
use tests::{EvilHomeserver, World};

use crate::Chat;

/// The bridge gives a key a minute to come; this is that and some time to say so.
const PATIENCE: Duration = Duration::from_secs(120);

impl Chat {
    /// A chat whose homeserver does what the test says.
    pub(super) async fn open_under_an_evil_homeserver(
        story: &str,
    ) -> Result<(Self, EvilHomeserver)> {
        let (world, evil) = World::start_with_evil_homeserver(story).await?;
        Ok((Self::open_in(world).await?, evil))
    }

    /// How often Bob has seen this text from Alice.
    fn times_at_bob(&self, body: &str) -> usize {
        self.bob.texts_from(&self.alices_jid()).iter().filter(|text| *text == body).count()
    }

    /// How often somebody told Alice something with these words.
    pub(super) fn times_told(&self, words: &str) -> usize {
        let says = |text: Option<String>| text.unwrap_or_default().contains(words);
        self.alice.messages().into_iter().filter(|message| says(message.body.clone())).count()
    }
}

/// Makes a sender of encrypted events into another one.
fn as_sent_by(whom: &str, instead_of: &str) -> Rule {
    let (whom, instead_of) = (whom.to_owned(), instead_of.to_owned());
    Rule::rewrite_events(move |event| {
        let is_it =
            field_is(event, "sender", &instead_of) && field_is(event, "type", "m.room.encrypted");
        if let Some(sender) = event.get_mut("sender").filter(|_| is_it) {
            *sender = json!(whom);
        }
        is_it
    })
}

/// Says in every sync that somebody's devices have changed.
fn devices_changed(user: &str) -> Rule {
    let user = user.to_owned();
    Rule::rewrite_answers(axum::http::Method::GET, "/sync", move |answer| {
        let Some(answer) = answer.as_object_mut() else { return false };
        let lists = answer.entry("device_lists").or_insert_with(|| json!({}));
        let Some(lists) = lists.as_object_mut() else { return false };
        lists.insert("changed".to_owned(), json!([user]));
        true
    })
}

fn field_is(value: &Value, field: &str, expected: &str) -> bool {
    value.get(field).is_some_and(|found| found == expected)
}
