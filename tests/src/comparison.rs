//! Comparing emoji as a person on Element.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::element::ElementUser;
use crate::journal::SOON;
use crate::peer::text;

/// What the client shows to compare.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Emoji {
    /// The seven symbols.
    pub symbols: Vec<String>,
    /// The three numbers that stand for the same.
    pub numbers: Vec<u64>,
}

impl ElementUser {
    /// Asks somebody in a room to compare.
    ///
    /// # Errors
    /// When the client could not.
    pub async fn verify_in_room(&self, user: &str, room: &str) -> Result<()> {
        let command = json!({ "user": user, "room": room });
        self.peer.ask("verify_in_room", command).await.map(drop)
    }

    /// Asks a device of somebody to compare, without a room.
    ///
    /// # Errors
    /// When the client could not.
    pub async fn verify_device_to_device(&self, user: &str, device: &str) -> Result<()> {
        let command = json!({ "user": user, "device": device });
        self.peer.ask("verify_device_to_device", command).await.map(drop)
    }

    /// Waits until the verification of the moment is in this phase (`Ready`, `Done`, …); gives the code with which it
    /// was cancelled, if it was.
    ///
    /// # Errors
    /// When it does not get there.
    pub async fn verification_is(&self, phase: &str) -> Result<Option<String>> {
        self.verification_is_within(phase, SOON).await
    }

    /// As [`ElementUser::verification_is`], no longer than told.
    ///
    /// # Errors
    /// When it does not get there.
    pub async fn verification_is_within(
        &self,
        phase: &str,
        within: Duration,
    ) -> Result<Option<String>> {
        let is_there =
            |event: &Value| (event.get("phase")? == phase).then(|| text(event, "code").ok());
        let waited = self.peer.wait_for("verification", within, is_there).await;
        waited.with_context(|| format!("the verification did not become {phase}"))
    }

    /// Accepts a verification that somebody has asked for.
    ///
    /// # Errors
    /// When there is none.
    pub async fn accept_verification_from(&self, user: &str) -> Result<()> {
        let from = |event: &Value| {
            (event.get("phase")? == "Requested" && event.get("by")? == user).then_some(())
        };
        self.peer.wait_for("verification", SOON, from).await?;
        self.peer.ask("accept_verification", json!({})).await.map(drop)
    }

    /// Begins to compare, once both want it.
    ///
    /// # Errors
    /// When the client could not.
    pub async fn compare_emoji(&self) -> Result<()> {
        self.peer.ask("compare_emoji", json!({})).await.map(drop)
    }

    /// Waits for what is to be compared.
    ///
    /// # Errors
    /// When nothing is shown.
    pub async fn sees_emoji(&self) -> Result<Emoji> {
        let shown = |event: &Value| {
            Some(Emoji {
                symbols: serde_json::from_value(event.get("emoji")?.clone()).ok()?,
                numbers: serde_json::from_value(event.get("numbers")?.clone()).ok()?,
            })
        };
        self.peer.wait_for("emoji", SOON, shown).await
    }

    /// Says that it is the same.
    ///
    /// # Errors
    /// When nothing is shown.
    pub async fn says_emoji_are_the_same(&self) -> Result<()> {
        self.peer.ask("emoji_are_the_same", json!({})).await.map(drop)
    }

    /// Says that it is not the same.
    ///
    /// # Errors
    /// When nothing is shown.
    pub async fn says_emoji_differ(&self) -> Result<()> {
        self.peer.ask("emoji_differ", json!({})).await.map(drop)
    }

    /// Ends the verification of the moment.
    ///
    /// # Errors
    /// When there is none.
    pub async fn cancels_verification(&self) -> Result<()> {
        self.peer.ask("cancel_verification", json!({})).await.map(drop)
    }

    /// Waits until this person's client shows somebody as verified.
    ///
    /// # Errors
    /// When it does not.
    pub async fn comes_to_see_verified(&self, user: &str) -> Result<()> {
        loop {
            let changes = self.peer.events("devices_changed").len();
            if self.sees_verified(user).await? {
                return Ok(());
            }
            let changed = self.peer.wait_for_number("devices_changed", changes + 1, SOON).await;
            changed.with_context(|| format!("{user} did not become verified"))?;
        }
    }

    /// Whether this person's client shows somebody as verified.
    ///
    /// # Errors
    /// When the client has gone.
    pub async fn sees_verified(&self, user: &str) -> Result<bool> {
        let answer = self.peer.ask("sees_verified", json!({ "user": user })).await?;
        Ok(answer.get("verified").and_then(Value::as_bool).unwrap_or(false))
    }
}
