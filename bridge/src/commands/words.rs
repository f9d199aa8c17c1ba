//! How answers say devices, times and numbers. Pure, but for the log.

use chrono::{DateTime, SecondsFormat};

use super::Call;
use crate::{
    network::{DeviceTrust, Held, RemoteDevice},
    store::Portal,
};

/// What a device is, in a word.
pub(super) fn trust(trust: DeviceTrust) -> &'static str {
    match trust {
        DeviceTrust::Verified => "verified",
        DeviceTrust::Pinned => "trusted on first use or by approval, not compared",
        DeviceTrust::Waiting => "new, waits for you",
        DeviceTrust::Changed => "its identity has changed, waits for you",
        DeviceTrust::Distrusted => "distrusted",
        DeviceTrust::Unknown => "not used yet",
    }
}

/// One line for a device and one for its fingerprint.
pub(super) fn device(device: &RemoteDevice) -> String {
    let since = device.since_ms.map(|ms| format!(" since {}", time(ms))).unwrap_or_default();
    format!("Device {}: {}{since}\n{}", device.id, trust(device.trust), device.fingerprint)
}

/// A key in base64, in groups of four, as Matrix clients show fingerprints.
pub(crate) fn in_fours(key: &str) -> String {
    let mut grouped = String::new();
    for (at, digit) in key.chars().enumerate() {
        if at > 0 && at % 4 == 0 {
            grouped.push(' ');
        }
        grouped.push(digit);
    }
    grouped
}

/// A time in milliseconds since 1970, as people and programs read it (RFC 3339).
pub(crate) fn time(ms: i64) -> String {
    DateTime::from_timestamp_millis(ms)
        .map(|time| time.to_rfc3339_opts(SecondsFormat::Secs, true))
        .unwrap_or_else(|| "an unknown time".to_owned())
}

/// How many messages wait, and since when.
pub(crate) fn held(held: Held) -> String {
    let messages = if held.messages == 1 { "message" } else { "messages" };
    let since = held.since_ms.map(|ms| format!(", since {}", time(ms))).unwrap_or_default();
    format!("{} {messages}{since}", held.messages)
}

/// The answer to a decision that changed nothing: because all of it is so already, or because the
/// contact's server presents something else than a moment ago.
pub(super) async fn nothing_decided(
    call: &Call<'_>,
    portal: &Portal,
    fingerprints: &[String],
    known: DeviceTrust,
    before: String,
) -> String {
    let devices = match call.hub.devices_of_contact(portal).await {
        Ok(devices) => devices,
        Err(error) => return failed(&error),
    };
    let is_so = |fingerprint: &String| {
        devices.iter().any(|it| it.fingerprint == *fingerprint && it.trust == known)
    };
    if fingerprints.iter().all(is_so) {
        return before;
    }
    "⚠️ Nothing has changed: your contact's server now presents another key than a moment ago. Look at \
     “devices” again before you go on."
        .to_owned()
}

/// The answer to something that went wrong here.
pub(super) fn failed(error: &impl std::error::Error) -> String {
    tracing::warn!(error = %crate::error_chain(error), "commands.failed");
    "That did not work. Please try again later.".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_grouped_as_clients_show_it() {
        assert_eq!(in_fours("abcdefghij"), "abcd efgh ij");
        assert_eq!(in_fours("abcd"), "abcd");
    }

    #[test]
    fn a_device_is_said_with_its_fingerprint_and_since_when() {
        let said = device(&RemoteDevice {
            id: "7".to_owned(),
            fingerprint: "aaaaaaaa bbbbbbbb".to_owned(),
            trust: DeviceTrust::Verified,
            since_ms: Some(1_700_000_000_000),
        });
        assert_eq!(said, "Device 7: verified since 2023-11-14T22:13:20Z\naaaaaaaa bbbbbbbb");
        assert_eq!(held(Held { messages: 1, since_ms: None }), "1 message");
    }
}
