//! `qr`: shows the person's own key as a picture, or checks what the contact's client shows.

use async_trait::async_trait;

use super::{Call, Command, usage_of, words};
use crate::network::{DeviceTrust, VerifyUriError};

pub(super) struct Qr;

#[async_trait]
impl Command for Qr {
    fn name(&self) -> &'static str {
        "qr"
    }

    fn usage(&self) -> &'static str {
        "[<uri>]"
    }

    fn about(&self) -> &'static str {
        "Shows a QR code with the key that I have for you on the other side: your contact scans it, and has verified it. With the URI in the QR code that your contact's client shows, said in their chat: verifies their devices."
    }

    fn example(&self) -> &'static str {
        "qr xmpp:bob@example.org?omemo-sid-123456=0123abcd…"
    }

    async fn run(&self, call: &Call<'_>, arguments: &[&str]) -> String {
        match arguments {
            [] => show(call).await,
            [uri] => check(call, uri).await,
            _ => usage_of(self),
        }
    }
}

async fn show(call: &Call<'_>) -> String {
    let shown = async {
        let uri = call.hub.own_uri(call.sender).await?;
        call.hub.post_qr((call.room, call.sender), call.encryption, &uri).await?;
        Ok::<_, crate::portal::QrError>(uri)
    };
    match shown.await {
        Ok(uri) => format!(
            "{uri}\nThis is the key that the bridge has for you. Whoever has scanned it knows that \
             they encrypt to this bridge."
        ),
        Err(error) => words::failed(&error),
    }
}

async fn check(call: &Call<'_>, uri: &str) -> String {
    let portal = match call.deciding_portal() {
        Ok(portal) => portal,
        Err(refusal) => return refusal,
    };
    let fingerprints = match call.hub.match_uri(portal, uri).await {
        Ok(fingerprints) => fingerprints,
        Err(error) => return refusal(error),
    };
    match call.hub.verify_devices(portal, &fingerprints, &call.decider()).await {
        Ok(0) => {
            let before = "The keys match. All these devices were verified before.".to_owned();
            let known = DeviceTrust::Verified;
            words::nothing_decided(call, portal, &fingerprints, known, before).await
        }
        Ok(verified) => format!(
            "The keys match. Newly verified devices: {verified}. What waited because of them is \
             on its way."
        ),
        Err(error) => words::failed(&error),
    }
}

fn refusal(error: VerifyUriError) -> String {
    match error {
        VerifyUriError::NotUnderstood(why) => {
            format!("Nothing has changed: I do not understand this URI, because {why}.")
        }
        VerifyUriError::OtherContact => {
            "Nothing has changed: this is the URI of somebody else than the contact of this chat."
                .to_owned()
        }
        VerifyUriError::Mismatch { devices } => format!(
            "⚠️ THE KEYS DO NOT MATCH. What your contact's client shows is not what I have been \
             given for: {}. Somebody may be in the middle, or your contact's client is newer than \
             what their server tells me. Nothing was verified. Do not go on before you know why.",
            devices.join(", ")
        ),
        VerifyUriError::Temporary => words::failed(&error),
    }
}
