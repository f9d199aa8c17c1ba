//! `[policy]`: what becomes of unencrypted messages, and of messages that wait.

use std::{fmt, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, de};

/// What the operator has decided for everybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PolicyConfig {
    /// Plaintext from a contact in a conversation that was encrypted before.
    pub plaintext_from_contacts: PlaintextFromContacts,
    /// How long a message waits before it is given up.
    pub hold_hours: HoldHours,
}

pub(super) const COMMENTS: super::Comments = &[
    ("", "What becomes of unencrypted messages, and of messages that wait."),
    (
        "hold_hours",
        "How many hours a message waits for a person's decision or for a server that does not answer,\n\
         before it is given up with a notice: from 1 to 8760.",
    ),
    (
        "plaintext_from_contacts",
        "What a contact sends unencrypted in a conversation that was encrypted before: `mark` delivers\n\
         it with a mark, `refuse` does not deliver it and tells both sides.",
    ),
];

/// What becomes of plaintext in a conversation that was encrypted before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PlaintextFromContacts {
    /// It is delivered with a mark.
    #[default]
    Mark,
    /// It is not delivered, and both sides are told.
    Refuse,
}

/// Hours that a message may wait: 1 to [`HoldHours::MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct HoldHours(u16);

impl HoldHours {
    /// A year.
    pub const MAX: u16 = 8760;

    /// As a time.
    pub fn as_duration(self) -> Duration {
        Duration::from_secs(u64::from(self.0) * 60 * 60)
    }

    fn new(hours: u64) -> Option<Self> {
        let hours = u16::try_from(hours).ok()?;
        (1..=Self::MAX).contains(&hours).then_some(Self(hours))
    }
}

/// A week.
impl Default for HoldHours {
    fn default() -> Self {
        Self(7 * 24)
    }
}

/// `7 days`, or `36 hours` where no whole days fit.
impl fmt::Display for HoldHours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            1 => f.write_str("1 hour"),
            24 => f.write_str("1 day"),
            hours if hours.is_multiple_of(24) => write!(f, "{} days", hours / 24),
            hours => write!(f, "{hours} hours"),
        }
    }
}

impl<'de> Deserialize<'de> for HoldHours {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(HoursVisitor)
    }
}

/// Takes a number, and a text with one: the environment has only texts.
struct HoursVisitor;

impl de::Visitor<'_> for HoursVisitor {
    type Value = HoldHours;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a whole number of hours from 1 to {}", HoldHours::MAX)
    }

    fn visit_u64<E: de::Error>(self, hours: u64) -> Result<HoldHours, E> {
        HoldHours::new(hours)
            .ok_or_else(|| E::invalid_value(de::Unexpected::Other("a number"), &self))
    }

    fn visit_i64<E: de::Error>(self, hours: i64) -> Result<HoldHours, E> {
        self.visit_u64(u64::try_from(hours).unwrap_or_default())
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<HoldHours, E> {
        self.visit_u64(text.parse().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(toml: &str) -> Result<PolicyConfig, toml::de::Error> {
        toml::from_str(toml)
    }

    #[test]
    fn without_a_word_plaintext_is_marked_and_a_message_waits_a_week() {
        let policy = policy("").unwrap();
        assert_eq!(policy.plaintext_from_contacts, PlaintextFromContacts::Mark);
        assert_eq!(policy.hold_hours.as_duration(), Duration::from_secs(7 * 24 * 60 * 60));
    }

    #[test]
    fn hours_are_taken_as_number_and_as_text_within_a_year() {
        for good in ["1", "36", "8760", "\"36\""] {
            policy(&format!("hold_hours = {good}")).unwrap();
        }
        for bad in ["0", "-1", "8761", "99999999999", "1.5", "\"a week\"", "\"\"", "true"] {
            let error = policy(&format!("hold_hours = {bad}")).unwrap_err().to_string();
            assert!(error.contains("a whole number of hours from 1 to 8760"), "{bad}: {error}");
        }
    }

    #[test]
    fn hours_are_said_in_days_where_they_are_days() {
        let said = [1, 24, 36, 168].map(|hours| HoldHours(hours).to_string());
        assert_eq!(said, ["1 hour", "1 day", "36 hours", "7 days"]);
    }
}
