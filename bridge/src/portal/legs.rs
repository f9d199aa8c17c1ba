//! How both legs of a message were protected, as machines read it. Pure.
//!
//! [`KEY`] stands in the content of every message of a contact, inside the encryption, and in the
//! status (`com.beeper.message_send_status`) of every message of a person that has left:
//!
//! ```json
//! {
//!   "matrix": { "encrypted": true, "protocol": "megolm", "identity": "verified" },
//!   "remote": { "encrypted": true, "protocol": "omemo", "identity": "pinned" }
//! }
//! ```
//!
//! `identity` is `verified` (compared by people), `pinned` (trusted on first use or by approval),
//! `changed` or `unknown`. A leg in the clear has `"encrypted": false` and nothing else.

use serde_json::{Map, Value, json};

use crate::network::LegSecurity;

/// The key in the content of events.
pub const KEY: &str = "dev.gephyra.leg_security";

/// What encrypts between the bridge and people on Matrix.
const MATRIX_PROTOCOL: &str = "megolm";

/// How both legs of a message were protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Legs {
    /// Between the bridge and the person.
    pub matrix: LegSecurity,
    /// Between the bridge and the contact.
    pub remote: LegSecurity,
}

impl Legs {
    /// Adds them to the content of an event. `protocol` is what encrypts on the other network.
    pub(super) fn write_into(self, content: &mut Map<String, Value>, protocol: &str) {
        let legs = json!({
            "matrix": leg(self.matrix, MATRIX_PROTOCOL),
            "remote": leg(self.remote, &protocol.to_ascii_lowercase()),
        });
        content.insert(KEY.to_owned(), legs);
    }
}

fn leg(security: LegSecurity, protocol: &str) -> Value {
    match security {
        LegSecurity::Plaintext => json!({ "encrypted": false }),
        LegSecurity::Encrypted { identity } => {
            json!({ "encrypted": true, "protocol": protocol, "identity": identity })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::IdentityTrust;

    #[test]
    fn machines_read_both_legs() {
        let encrypted = |identity| LegSecurity::Encrypted { identity };
        let written = |matrix, remote| {
            let mut content = Map::new();
            Legs { matrix, remote }.write_into(&mut content, "OMEMO");
            content
        };
        insta::assert_json_snapshot!([
            written(encrypted(IdentityTrust::Verified), encrypted(IdentityTrust::Pinned)),
            written(encrypted(IdentityTrust::Unknown), LegSecurity::Plaintext),
            written(LegSecurity::Plaintext, encrypted(IdentityTrust::Changed)),
        ]);
    }
}
