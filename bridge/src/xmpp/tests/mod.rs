//! The component against a contact with an engine of their own, over a virtual stream.

mod commands;
mod contact;
mod conversation;
mod decisions;
mod hostility;
mod known_devices;
mod pep;
mod policy;
mod server;
mod trust;
mod world;

use jid::BareJid;

use super::Xmpp;
use crate::network::Network as _;

fn parse(text: &str) -> Result<String, &'static str> {
    let network = Xmpp::new(BareJid::new("bridge.example.net").unwrap());
    network.parse_contact(text).map(|id| id.as_str().to_owned()).map_err(|e| e.reason)
}

#[test]
fn contacts_are_canonical_bare_jids() {
    assert_eq!(parse("Bob@Example.ORG").unwrap(), "bob@example.org");
    assert_eq!(parse(" xmpp:bob@example.org ").unwrap(), "bob@example.org");
    assert!(parse("bob@example.org/phone").is_err());
    assert!(parse("example.org").is_err());
    assert!(parse("a%b@bridge.example.net").is_err());
    assert!(parse("bob@").is_err());
    assert!(parse("").is_err());
}
