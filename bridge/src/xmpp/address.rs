//! The JIDs that Matrix users have on the component's domain.
//!
//! `@alice:example.org` is `alice%example.org@component`: both parts escaped, one bare `%`
//! between them. The bridge itself speaks from the component's own domain JID. Injective both
//! ways: a JID that this module would not have written names nobody.

use jid::BareJid;
use ruma::{OwnedUserId, UserId};

use crate::{
    escape::{escape, unescape},
    network::Author,
};

/// Maps Matrix users to JIDs and back.
#[derive(Debug, Clone)]
pub(super) struct Addresses {
    component: BareJid,
}

/// A Matrix user whose id does not fit into a JID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the Matrix user id does not fit into an XMPP address")]
pub(super) struct NoAddress;

impl Addresses {
    pub(super) fn new(component: BareJid) -> Self {
        Self { component }
    }

    /// The component's own JID.
    pub(super) fn component(&self) -> &BareJid {
        &self.component
    }

    /// The JID of an author.
    pub(super) fn jid(&self, author: &Author) -> Result<BareJid, NoAddress> {
        match author {
            Author::Bridge => Ok(self.component.clone()),
            Author::Person(user) => self.user_jid(user),
        }
    }

    fn user_jid(&self, user: &UserId) -> Result<BareJid, NoAddress> {
        let node = format!("{}%{}", escape(user.localpart()), escape(user.server_name().as_str()));
        BareJid::new(&format!("{node}@{}", self.component)).map_err(|_| NoAddress)
    }

    /// Whose JID this is; `None` when it is nobody's.
    pub(super) fn find_author(&self, jid: &BareJid) -> Option<Author> {
        if !self.is_ours(jid) {
            return None;
        }
        let Some(node) = jid.node() else { return Some(Author::Bridge) };
        let (localpart, server) = node.as_str().split_once('%')?;
        let id = format!("@{}:{}", unescape(localpart)?, unescape(server)?);
        let user = OwnedUserId::try_from(id).ok()?;
        // Only the one spelling that `user_jid` writes counts.
        (self.user_jid(&user).as_ref() == Ok(jid)).then_some(Author::Person(user))
    }

    /// Whether a JID is on the component's domain.
    pub(super) fn is_ours(&self, jid: &BareJid) -> bool {
        jid.domain() == self.component.domain()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::{Rng as _, SeedableRng as _};
    use rand_chacha::ChaCha8Rng;
    use ruma::{owned_user_id, user_id};

    use super::*;

    fn addresses() -> Addresses {
        Addresses::new(BareJid::new("bridge.example.net").unwrap())
    }

    #[test]
    fn a_user_id_becomes_a_jid() {
        let cases = [
            (user_id!("@alice:example.org"), "alice%example.org@bridge.example.net"),
            (user_id!("@alice:localhost:8448"), "alice%localhost=3a8448@bridge.example.net"),
            (user_id!("@Al=ice/x:[::1]"), "=41l=3dice=2fx%=5b=3a=3a1=5d@bridge.example.net"),
        ];
        for (user, jid) in cases {
            let made = addresses().jid(&Author::Person(user.to_owned())).unwrap();
            assert_eq!(made.as_str(), jid);
            assert!(addresses().find_author(&made) == Some(Author::Person(user.to_owned())));
        }
    }

    #[test]
    fn the_bridge_speaks_from_the_bare_domain() {
        let made = addresses().jid(&Author::Bridge).unwrap();
        assert_eq!(made.as_str(), "bridge.example.net");
        assert!(addresses().find_author(&made) == Some(Author::Bridge));
    }

    #[test]
    fn other_spellings_name_nobody() {
        for jid in [
            "alice@bridge.example.net",
            "alice%@bridge.example.net",
            "=61lice%example.org@bridge.example.net",
            "al=3Dice%example.org=2@bridge.example.net",
            "al=ice%example.org@bridge.example.net",
            "=ff%example.org@bridge.example.net",
            "alice%example.org%x@bridge.example.net",
            "alice%example.org@example.net",
        ] {
            assert!(addresses().find_author(&BareJid::new(jid).unwrap()).is_none(), "{jid}");
        }
    }

    #[test]
    fn a_million_users_come_back() {
        const LOCAL: &[u8] = b"abcxyzABCXYZ019._=/-+%@&'<>\"";
        const SERVERS: [&str; 4] = ["example.org", "localhost:8448", "[::1]", "a-b.example"];
        let addresses = addresses();
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for _ in 0..1_000_000 {
            let localpart: String = (0..rng.gen_range(1..20))
                .map(|_| char::from(LOCAL[rng.gen_range(0..LOCAL.len())]))
                .collect();
            let server = SERVERS[rng.gen_range(0..SERVERS.len())];
            let user = OwnedUserId::try_from(format!("@{localpart}:{server}")).unwrap();
            let author = Author::Person(user);
            let jid = addresses.jid(&author).unwrap();
            assert!(addresses.find_author(&jid) == Some(author));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

        #[test]
        fn every_user_comes_back(
            localpart in "[!-9;-~]{1,40}|[a-zäöü=%@/ ]{1,20}",
            server in "[a-z0-9-]{1,20}(\\.[a-z]{2,5})?(:[1-9][0-9]{0,3})?",
        ) {
            if let Ok(user) = OwnedUserId::try_from(format!("@{localpart}:{server}")) {
                let jid = addresses().jid(&Author::Person(user.clone())).unwrap();
                prop_assert!(addresses().find_author(&jid) == Some(Author::Person(user)));
            }
        }

        #[test]
        fn no_two_jids_are_one_user(node in "[a-z=%0-9.]{1,24}") {
            let jid = BareJid::new(&format!("{node}@bridge.example.net")).unwrap();
            if let Some(author) = addresses().find_author(&jid) {
                prop_assert_eq!(addresses().jid(&author), Ok(jid));
            }
        }
    }

    #[test]
    fn the_longest_user_id_fits() {
        let user = OwnedUserId::try_from(format!("@{}:example.org", "=".repeat(240))).unwrap();
        assert!(addresses().jid(&Author::Person(user)).is_ok());
        assert!(addresses().jid(&Author::Person(owned_user_id!("@a:b"))).is_ok());
    }
}
