//! How people are called on the other side of the bridge, written down here a second time so that the bridge's own
//! mapping is held to it.

use std::fmt::Write;

/// The escape that both directions share: every byte outside `a-z0-9._-` becomes `=hh`.
pub fn escape(text: &str) -> String {
    text.bytes().fold(String::new(), |mut escaped, byte| {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-' => escaped.push(char::from(byte)),
            // Writing to a string cannot fail.
            _ => drop(write!(escaped, "={byte:02x}")),
        }
        escaped
    })
}

/// The Matrix id of the ghost of an XMPP contact.
pub fn ghost_of(jid: &str, server_name: &str) -> String {
    format!("@xmpp_{}:{server_name}", escape(jid))
}

/// The JID under which a Matrix user appears on XMPP.
pub fn jid_of(user_id: &str, component: &str) -> String {
    let (localpart, server_name) = user_id.split_once(':').unwrap_or((user_id, ""));
    let localpart = localpart.trim_start_matches('@');
    format!("{}%{}@{component}", escape(localpart), escape(server_name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_are_named_as_the_design_says() {
        assert_eq!(ghost_of("bob@example.org", "hs"), "@xmpp_bob=40example.org:hs");
        assert_eq!(jid_of("@alice:hs:8448", "bridge.example"), "alice%hs=3a8448@bridge.example");
    }
}
