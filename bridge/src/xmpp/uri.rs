//! `xmpp:` URIs with OMEMO fingerprints, as Conversations and Dino show and scan them.
//!
//! `xmpp:bob@example.org?omemo-sid-1=FINGERPRINT;omemo-sid-2=FINGERPRINT`, the fingerprints as 64
//! hex digits. What may not stand in a URI (our own JIDs have a `%`) is percent-encoded.
//!
//! Spec: RFC 5122 for the form; the parameters have none.

use e2ee::omemo::{DeviceId, IdentityKey};
use jid::BareJid;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::network::VerifyUriError;

const ENCODED: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'@').remove(b'+');

const PARAMETER: &str = "omemo-sid-";

/// An account and the identities of its devices.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct AccountUri {
    pub jid: BareJid,
    pub devices: Vec<(DeviceId, IdentityKey)>,
}

impl AccountUri {
    pub(super) fn to_text(&self) -> String {
        let devices: Vec<String> = self
            .devices
            .iter()
            .map(|(id, key)| format!("{PARAMETER}{id}={}", hex::encode(key.to_bytes())))
            .collect();
        let jid = utf8_percent_encode(self.jid.as_str(), ENCODED);
        format!("xmpp:{jid}?{}", devices.join(";"))
    }

    /// Reads such a URI. A fingerprint that cannot be read is not passed over: somebody has seen it
    /// and believes it checked.
    pub(super) fn parse(text: &str) -> Result<Self, VerifyUriError> {
        let refuse = VerifyUriError::NotUnderstood;
        let scheme = text.get(..5).unwrap_or_default();
        if !scheme.eq_ignore_ascii_case("xmpp:") {
            return Err(refuse("it does not begin with “xmpp:”"));
        }
        let rest = text.get(5..).unwrap_or_default();
        let (jid, query) = rest.split_once('?').unwrap_or((rest, ""));
        let jid = percent_decode_str(jid).decode_utf8().ok();
        let jid = jid.and_then(|jid| BareJid::new(&jid).ok()).ok_or(refuse("it has no address"))?;
        let mut devices: Vec<(DeviceId, IdentityKey)> = Vec::new();
        for parameter in query.split([';', '&']).map(str::to_ascii_lowercase) {
            let Some(device) = parameter.strip_prefix(PARAMETER) else { continue };
            let (id, key) =
                parse_device(device).ok_or(refuse("a fingerprint in it cannot be read"))?;
            if devices.iter().any(|(known, _)| *known == id) {
                return Err(refuse("it names a device twice"));
            }
            devices.push((id, key));
        }
        if devices.is_empty() {
            return Err(refuse("there is no OMEMO fingerprint in it"));
        }
        Ok(Self { jid, devices })
    }
}

fn parse_device(text: &str) -> Option<(DeviceId, IdentityKey)> {
    let (id, fingerprint) = text.split_once('=')?;
    let mut bytes = [0; 32];
    hex::decode_to_slice(fingerprint, &mut bytes).ok()?;
    Some((DeviceId::new(id.parse().ok()?)?, IdentityKey::from_bytes(&bytes)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uri(jid: &str, devices: &[(u32, u8)]) -> AccountUri {
        let key = |u: u8| {
            let mut bytes = [0; 32];
            bytes[0] = u;
            IdentityKey::from_bytes(&bytes).unwrap()
        };
        let devices = devices.iter().map(|(id, u)| (DeviceId::new(*id).unwrap(), key(*u)));
        AccountUri { jid: BareJid::new(jid).unwrap(), devices: devices.collect() }
    }

    #[test]
    fn a_uri_has_the_form_that_conversations_scans() {
        let zeros = "00".repeat(31);
        let bob = uri("bob@example.org", &[(7, 9), (8, 16)]);
        let text = format!("xmpp:bob@example.org?omemo-sid-7=09{zeros};omemo-sid-8=10{zeros}");
        assert_eq!(bob.to_text(), text);
        assert_eq!(AccountUri::parse(&text), Ok(bob));
        let alice = uri("alice%example.com=3a8448@bridge.example.net", &[(7, 9)]);
        let text =
            format!("xmpp:alice%25example.com%3D3a8448@bridge.example.net?omemo-sid-7=09{zeros}");
        assert_eq!(alice.to_text(), text);
        assert_eq!(AccountUri::parse(&text.to_uppercase().replace("XMPP", "Xmpp")), Ok(alice));
    }

    #[test]
    fn what_is_not_understood_is_not_passed_over() {
        let zeros = "00".repeat(31);
        for text in [
            String::new(),
            "xmp".to_owned(),
            format!("https://example.org/i/bob@example.org?omemo-sid-7=09{zeros}"),
            "xmpp:bob@example.org".to_owned(),
            "xmpp:bob@example.org?message;body=hi".to_owned(),
            format!("xmpp:?omemo-sid-7=09{zeros}"),
            format!("xmpp:bob@example.org?omemo-sid-7=09{zeros};omemo-sid-8=10"),
            format!("xmpp:bob@example.org?omemo-sid-7=09{zeros};omemo-sid-7=10{zeros}"),
            format!("xmpp:bob@example.org?omemo-sid-7=09{zeros};omemo-sid-0=10{zeros}"),
            format!("xmpp:bob@example.org?omemo-sid-7=0509{zeros}"),
            // Of low order.
            format!("xmpp:bob@example.org?omemo-sid-7=01{zeros}"),
            format!("xmpp:bob%ff@example.org?omemo-sid-7=09{zeros}"),
        ] {
            let refused = AccountUri::parse(&text);
            assert!(matches!(refused, Err(VerifyUriError::NotUnderstood(_))), "{text}");
        }
    }
}
