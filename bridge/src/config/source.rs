//! Where configuration values come from: one file, and the environment above it.

use std::path::Path;

use figment::{
    Figment, Metadata, Profile, Provider,
    error::Kind,
    providers::{Format as _, Toml},
    value::{Dict, Map, Value},
};
use serde::de::DeserializeOwned;

use super::ConfigError;

/// Variables `GEPHYRA_SECTION__KEY` stand above the file's `[section] key`.
const PREFIX: &str = "GEPHYRA_";

/// Merges the file's text with the environment and reads the result as `T`.
pub(super) fn extract<T: DeserializeOwned>(
    path: &Path,
    text: &str,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<T, ConfigError> {
    check_syntax(path, text)?;
    environment
        .into_iter()
        .filter_map(|(name, value)| Override::parse(name, value))
        .fold(Figment::from(Toml::string(text)), Figment::merge)
        .extract()
        .map_err(|error| invalid(path, error))
}

/// Finds syntax errors with their place; the parser's own message would repeat the line, secrets
/// included.
fn check_syntax(path: &Path, text: &str) -> Result<(), ConfigError> {
    let Err(error) = toml::from_str::<toml::Table>(text) else {
        return Ok(());
    };
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    Err(ConfigError::Syntax {
        path: path.display().to_string(),
        line: before.matches('\n').count() + 1,
    })
}

/// One environment variable. Its value is always a text, so that a secret of digits stays one.
struct Override {
    variable: String,
    section: String,
    key: String,
    value: String,
}

impl Override {
    fn parse(variable: String, value: String) -> Option<Self> {
        let (section, key) = variable.strip_prefix(PREFIX)?.split_once("__")?;
        let (section, key) = (section.to_ascii_lowercase(), key.to_ascii_lowercase());
        Some(Self { variable, section, key, value })
    }
}

impl Provider for Override {
    fn metadata(&self) -> Metadata {
        Metadata::named(format!("environment variable {}", self.variable))
    }

    fn data(&self) -> figment::Result<Map<Profile, Dict>> {
        let key = Dict::from([(self.key.clone(), Value::from(self.value.clone()))]);
        Ok(Profile::Default.collect(Dict::from([(self.section.clone(), Value::from(key))])))
    }
}

/// Words the first error without repeating any value: it may be a secret.
fn invalid(path: &Path, error: figment::Error) -> ConfigError {
    let place = match &error.metadata {
        Some(metadata) if metadata.name.starts_with("environment") => metadata.name.to_string(),
        _ => path.display().to_string(),
    };
    let mut key = error.path;
    let problem = match error.kind {
        Kind::UnknownField(field, known) => {
            complete(&mut key, &field);
            format!("unknown key; known here: {}", known.join(", "))
        }
        Kind::MissingField(field) => {
            complete(&mut key, &field);
            "is missing".to_owned()
        }
        Kind::UnknownVariant(_, known) => format!("must be one of {}", known.join(", ")),
        Kind::Message(message) => message,
        Kind::InvalidType(_, expected) | Kind::InvalidValue(_, expected) => {
            format!("must be {expected}")
        }
        _ => "has the wrong type or size".to_owned(),
    };
    ConfigError::Invalid { place, key: key.join("."), problem }
}

/// Ends the path with the key, which is there already in some cases.
fn complete(path: &mut Vec<String>, key: &str) {
    if path.last().is_none_or(|last| last != key) {
        path.push(key.to_owned());
    }
}
