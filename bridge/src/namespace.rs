//! Ghost ids: contacts of the other network as users of our homeserver, injective both ways.

use ruma::{OwnedUserId, ServerName, UserId};

use crate::{
    escape::{escape, unescape},
    network::RemoteUserId,
};

/// Who on the homeserver belongs to the bridge.
#[derive(Debug, Clone)]
pub struct Namespace {
    bot: OwnedUserId,
    ghost_prefix: String,
}

/// A contact's id that does not fit into a Matrix user id (255 bytes with the server's name).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this address is too long for a Matrix user id")]
pub struct AddressTooLong;

impl Namespace {
    /// The users `@<network>_…` of the bot's server, and the bot.
    pub fn new(network: &str, bot: OwnedUserId) -> Self {
        Self { bot, ghost_prefix: format!("{network}_") }
    }

    /// The bridge bot.
    pub fn bot(&self) -> &UserId {
        &self.bot
    }

    /// Our homeserver.
    pub fn server_name(&self) -> &ServerName {
        self.bot.server_name()
    }

    /// The ghost of a contact.
    ///
    /// # Errors
    /// [`AddressTooLong`].
    pub fn ghost_of(&self, contact: &RemoteUserId) -> Result<OwnedUserId, AddressTooLong> {
        let id =
            format!("@{}{}:{}", self.ghost_prefix, escape(contact.as_str()), self.server_name());
        if id.len() > 255 {
            return Err(AddressTooLong);
        }
        OwnedUserId::try_from(id).map_err(|_| AddressTooLong)
    }

    /// The contact behind a ghost; `None` for everyone else, and for ids that only look alike.
    pub fn contact_of(&self, user: &UserId) -> Option<RemoteUserId> {
        if user.server_name() != self.server_name() {
            return None;
        }
        let escaped = user.localpart().strip_prefix(&self.ghost_prefix)?;
        unescape(escaped).filter(|contact| !contact.is_empty()).map(RemoteUserId::new)
    }

    /// Whether a user is the bot or lies in the ghosts' part of the namespace, well-formed or not.
    pub fn is_ours(&self, user: &UserId) -> bool {
        user == self.bot
            || (user.server_name() == self.server_name()
                && user.localpart().starts_with(&self.ghost_prefix))
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    /// Plain and escaped characters, the escape's own, and some that take several bytes.
    const ALPHABET: &[char] = &[
        'a', 'f', 'z', '0', '4', '9', '.', '_', '-', '=', '@', 'A', 'Z', '%', '/', ' ', 'ß', '漢',
    ];

    fn namespace() -> Namespace {
        Namespace::new("xmpp", OwnedUserId::try_from("@gephyra:example.org").unwrap())
    }

    #[test]
    fn a_million_addresses_come_back_and_none_is_the_bot() {
        let namespace = namespace();
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for _ in 0..1_000_000 {
            let address: String = (0..rng.gen_range(1..24))
                .map(|_| ALPHABET[rng.gen_range(0..ALPHABET.len())])
                .collect();
            let contact = RemoteUserId::new(address);
            let ghost = namespace.ghost_of(&contact).unwrap();
            assert_eq!(namespace.contact_of(&ghost), Some(contact));
            assert!(namespace.is_ours(&ghost));
            assert_ne!(&*ghost, namespace.bot());
        }
    }

    #[test]
    fn other_users_and_malformed_ghosts_have_no_contact() {
        let namespace = namespace();
        for (user, ours) in [
            ("@gephyra:example.org", true),
            ("@xmpp_=61:example.org", true),
            ("@xmpp_:example.org", true),
            ("@alice:example.org", false),
            ("@xmpp_bob=40x:other.org", false),
        ] {
            let user = OwnedUserId::try_from(user).unwrap();
            assert_eq!(namespace.contact_of(&user), None, "{user}");
            assert_eq!(namespace.is_ours(&user), ours, "{user}");
        }
    }

    #[test]
    fn an_address_that_does_not_fit_is_refused() {
        let contact = RemoteUserId::new(format!("{}@x", "@".repeat(90)));
        assert_eq!(namespace().ghost_of(&contact), Err(AddressTooLong));
    }
}
