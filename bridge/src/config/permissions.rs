//! `[permissions]`: who may use the bridge.

use std::{collections::BTreeMap, fmt, str::FromStr};

use ruma::{OwnedServerName, OwnedUserId, UserId};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// What each Matrix user may do. Whoever is not named is blocked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Permissions(BTreeMap<Subject, Permission>);

pub(super) const COMMENTS: super::Comments = &[(
    "",
    "Who may use the bridge: `block`, `user` or `admin` (so far the same as `user`), for `*` (everyone),\n\
     a server name or a user id in quotes. The most exact entry counts; whoever is not named is blocked.",
)];

impl Permissions {
    /// What `user` may do: their own entry, else their server's, else everyone's, else nothing.
    pub fn of(&self, user: &UserId) -> Permission {
        [
            Subject::User(user.to_owned()),
            Subject::Server(user.server_name().to_owned()),
            Subject::Everyone,
        ]
        .iter()
        .find_map(|subject| self.0.get(subject))
        .copied()
        .unwrap_or(Permission::Block)
    }
}

impl FromIterator<(Subject, Permission)> for Permissions {
    fn from_iter<I: IntoIterator<Item = (Subject, Permission)>>(entries: I) -> Self {
        Self(entries.into_iter().collect())
    }
}

/// What a Matrix user may do, each level including those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Permission {
    /// Nothing: neither their messages nor messages to them are carried.
    Block,
    /// Chat with contacts and use the bot.
    User,
    /// Look after the bridge.
    Admin,
}

/// Whom an entry of the permissions is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// Everyone without a more exact entry: `*`.
    Everyone,
    /// The users of a homeserver.
    Server(OwnedServerName),
    /// One user.
    User(OwnedUserId),
}

impl FromStr for Subject {
    type Err = SubjectError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "*" {
            Ok(Self::Everyone)
        } else if text.starts_with('@') {
            text.try_into().map(Self::User).map_err(|_| SubjectError)
        } else {
            text.try_into().map(Self::Server).map_err(|_| SubjectError)
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everyone => f.write_str("*"),
            Self::Server(name) => name.fmt(f),
            Self::User(user) => user.fmt(f),
        }
    }
}

impl Serialize for Subject {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Subject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// A key that is none of the three kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not \"*\", a server name or a user id like \"@alice:example.org\"")]
pub struct SubjectError;

#[cfg(test)]
mod tests {
    use ruma::user_id;

    use super::*;

    fn permissions(toml: &str) -> Permissions {
        toml::from_str(toml).unwrap()
    }

    #[test]
    fn the_most_exact_entry_counts() {
        let permissions = permissions(
            r#"
            "*" = "block"
            "example.org" = "user"
            "@root:example.org" = "admin"
            "@spam:example.org" = "block"
            "#,
        );
        assert_eq!(permissions.of(user_id!("@alice:example.org")), Permission::User);
        assert_eq!(permissions.of(user_id!("@root:example.org")), Permission::Admin);
        assert_eq!(permissions.of(user_id!("@spam:example.org")), Permission::Block);
        assert_eq!(permissions.of(user_id!("@alice:example.net")), Permission::Block);
        assert_eq!(permissions.of(user_id!("@root:sub.example.org")), Permission::Block);
    }

    #[test]
    fn whoever_is_not_named_is_blocked() {
        assert_eq!(permissions("").of(user_id!("@alice:example.org")), Permission::Block);
    }

    #[test]
    fn a_key_that_is_no_subject_is_refused() {
        for key in ["@alice", "not a server", ""] {
            assert_eq!(key.parse::<Subject>(), Err(SubjectError), "{key}");
        }
    }
}
