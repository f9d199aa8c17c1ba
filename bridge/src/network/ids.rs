//! Opaque ids of the other network.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! opaque_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Wraps an id that the network itself has made canonical.
            pub fn new(id: impl Into<String>) -> Self {
                Self(id.into())
            }

            /// The id as the network writes it.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        /// Shows no id: it would name a person in a log line.
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(…)"))
            }
        }
    };
}

opaque_id! {
    /// A person or account on the other network (on XMPP a bare JID).
    RemoteUserId
}
opaque_id! {
    /// A message as the other network names it. Unique only within a chat and a sender.
    RemoteMessageId
}
