//! Entity capabilities (XEP-0115): what our presence says we can do. A contact's server pushes the nodes for which
//! they say `+notify` (XEP-0163 section 4.3.2); ejabberd pushes nothing to a component otherwise.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use minidom::Element;
use xmpp_parsers::{caps::hash_caps, hashes::Algo};

use super::disco;
use crate::{network::Author, xmpp::xml::El};

const CAPS: &str = "http://jabber.org/protocol/caps";
/// Names the software, not an address to open.
const NODE: &str = "urn:gephyra";

/// `None` only if the hash cannot be made.
pub(in crate::xmpp) fn caps(author: &Author) -> Option<Element> {
    let input = verification_input(&disco::info(author, None));
    let hash = hash_caps(input.as_bytes(), Algo::Sha_1).ok()?;
    let caps = El::new("c", CAPS).attr("hash", "sha-1").attr("node", NODE);
    Some(caps.attr("ver", STANDARD.encode(hash.hash)).build())
}

/// Section 5.1. `xmpp_parsers::caps::compute_disco` sorts the features with their `<`, which puts `pubsub#…` before
/// `pubsub`: servers and clients reject that hash.
fn verification_input(info: &Element) -> String {
    let attribute = |element: &Element, name| element.attr(name).unwrap_or_default().to_owned();
    let named = |name| info.children().filter(move |child| child.name() == name);
    let mut identities: Vec<_> = named("identity")
        .map(|identity| {
            let [category, kind, name] =
                ["category", "type", "name"].map(|name| attribute(identity, name));
            format!("{category}/{kind}//{name}")
        })
        .collect();
    let mut features: Vec<_> = named("feature").map(|feature| attribute(feature, "var")).collect();
    identities.sort();
    features.sort();
    identities.into_iter().chain(features).map(|line| line + "<").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Calculated outside of this program.
    #[test]
    fn the_hash_is_that_of_the_answer_to_disco() {
        let alice = Author::Person(ruma::user_id!("@alice:example.org").to_owned());
        let ver = |author| caps(author).and_then(|caps| caps.attr("ver").map(str::to_owned));
        assert_eq!(ver(&alice).as_deref(), Some("n90cK+wJ6VmJgBh4w/Qoed1ywjA="));
        assert_eq!(ver(&Author::Bridge).as_deref(), Some("GdXkCbJzyrlEcbfy0l6TaOG4rJM="));
    }
}
