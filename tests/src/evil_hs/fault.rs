//! What can go wrong between homeserver and bridge, and rules of it in a file.
//!
//! A file of rules is TOML; every `[[rule]]` is one. Each counts the requests that fit it; where it is the turn of more
//! than one, the last decides:
//!
//! ```toml
//! [[rule]]
//! link = "client"      # what the bridge asks of the homeserver; "push" is what is pushed to the bridge
//! method = "PUT"       # any, when it is left out
//! path = "/send/"      # fits when it stands anywhere in the path; any, when it is left out
//! every = 10           # every tenth request that fits; each of them, when it is left out
//! times = 3            # ends after so many; never, when it is left out
//! fault = "limit"      # see `Fault` for the others and their fields
//! retry_after_ms = 500
//! ```

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use axum::http::{Method, StatusCode};
use serde::Deserialize;

use super::rule::{Action, Link, Rule};

/// How long a request waits at most to be overtaken.
pub(super) const OVERTAKEN_WITHIN: Duration = Duration::from_secs(1);

/// What goes wrong with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(tag = "fault", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Fault {
    /// It never arrives, and its connection breaks.
    Block,
    /// It arrives, and its connection breaks before the answer.
    LoseAnswer,
    /// It arrives, and its connection breaks in the middle of the answer.
    HalveAnswer,
    /// It never arrives: a server's error is the answer.
    Fail {
        /// The HTTP status.
        status: u16,
    },
    /// It never arrives: the answer asks to slow down (429).
    Limit {
        /// For how long.
        retry_after_ms: u64,
    },
    /// It arrives twice, and the second answer is given.
    Duplicate,
    /// It arrives when a later one on its link has been answered, if one is within a second.
    Overtaken,
}

impl Fault {
    /// The answer in the place of the server's, for a request that never arrives.
    pub(super) fn status(self) -> Option<StatusCode> {
        match self {
            Self::Fail { status } => StatusCode::from_u16(status).ok(),
            Self::Limit { .. } => Some(StatusCode::TOO_MANY_REQUESTS),
            _ => None,
        }
    }
}

/// A rule as it stands in a file.
#[derive(Debug, Deserialize)]
struct Written {
    link: Link,
    method: Option<String>,
    #[serde(default)]
    path: String,
    every: Option<usize>,
    times: Option<usize>,
    #[serde(flatten)]
    fault: Fault,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Book {
    rule: Vec<Written>,
}

impl Rule {
    /// Requests of a kind, with which something goes wrong. `path` fits when it stands anywhere in theirs.
    pub fn fault(link: Link, method: Option<Method>, path: &str, fault: Fault) -> Self {
        Self::for_all(link, method, path, Action::Suffer(fault))
    }

    /// Reads the rules of a file, in its order.
    ///
    /// # Errors
    /// When it cannot be read, with what is wrong.
    pub fn read_all(file: &Path) -> Result<Vec<Self>> {
        let text = std::fs::read_to_string(file).context("reading a file of rules")?;
        Self::parse_all(&text).with_context(|| format!("in {}", file.display()))
    }

    /// The rules of a file's text.
    ///
    /// # Errors
    /// With what is wrong.
    pub fn parse_all(text: &str) -> Result<Vec<Self>> {
        let book: Book = toml::from_str(text)?;
        book.rule.into_iter().map(Self::try_from).collect()
    }
}

impl TryFrom<Written> for Rule {
    type Error = anyhow::Error;

    fn try_from(written: Written) -> Result<Self> {
        let Written { link, method, path, every, times, fault } = written;
        let method = method.map(|name| name.parse()).transpose().context("a method")?;
        if let Fault::Fail { status } = fault {
            StatusCode::from_u16(status).context("a status")?;
        }
        let rule = Self::fault(link, method, &path, fault);
        Ok(Self { every: every.unwrap_or(1).max(1), times: times.unwrap_or(usize::MAX), ..rule })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_from_a_file() {
        let text = r#"
            [[rule]]
            link = "client"
            method = "PUT"
            path = "/send/"
            every = 10
            fault = "limit"
            retry_after_ms = 500

            [[rule]]
            link = "push"
            fault = "halve-answer"
            times = 1
        "#;
        let rules = Rule::parse_all(text).unwrap();
        assert_eq!((rules[0].every, rules[0].times), (10, usize::MAX));
        assert_eq!((rules[1].link, rules[1].times), (Link::Push, 1));
        for wrong in [
            "[[rule]]\nlink = 'client'\nfault = 'limit'",
            "[[rule]]\nlink = 'client'\nfault = 'explode'",
            "[[rule]]\nlink = 'client'\nfault = 'fail'\nstatus = 7",
            "[[rules]]",
        ] {
            assert!(Rule::parse_all(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_rules_that_come_along_can_be_read() {
        let folder = crate::paths::peers().join("../rules");
        for entry in std::fs::read_dir(folder).unwrap() {
            assert!(!Rule::read_all(&entry.unwrap().path()).unwrap().is_empty());
        }
    }
}
