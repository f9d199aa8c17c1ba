//! Where a PostgreSQL database is, as PostgreSQL's own programs are told.
//!
//! The bridge reaches it by a library that knows other parameters, which the programs refuse.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use url::Url;

/// What stays as it is in a parameter. A space does not: the programs take a `+` for itself.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'/').remove(b'_');

/// An address without its password: other users see what a program is called with.
pub(super) struct ProgramAddress {
    /// The address.
    pub url: Url,
    /// The password, if it had one.
    pub password: Option<String>,
}

impl ProgramAddress {
    /// Translates the address that the library takes.
    pub(super) fn parse(url: &str) -> Result<Self, url::ParseError> {
        let mut url = Url::parse(url)?;
        let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let mut password = url.password().map(decoded);
        if password.is_some() {
            // Refused where there is no host, and then there is no password before it.
            url.set_password(None).map_err(|()| url::ParseError::EmptyHost)?;
        }
        let (mut parameters, mut options) = (Vec::new(), Vec::new());
        for (key, value) in url.query_pairs() {
            match &*key {
                "password" => password = Some(value.into_owned()),
                "options" => options.push(value.into_owned()),
                "statement-cache-capacity" => {}
                "sslmode" | "ssl-mode" => {
                    parameters.push(parameter("sslmode", &value.to_ascii_lowercase()));
                }
                "ssl-root-cert" | "ssl-ca" => parameters.push(parameter("sslrootcert", &value)),
                "ssl-cert" => parameters.push(parameter("sslcert", &value)),
                "ssl-key" => parameters.push(parameter("sslkey", &value)),
                other => match setting(other) {
                    Some(name) => options.push(option(name, &value)),
                    None => parameters.push(parameter(other, &value)),
                },
            }
        }
        if !options.is_empty() {
            parameters.push(parameter("options", &options.join(" ")));
        }
        let query = parameters.join("&");
        url.set_query(Some(query.as_str()).filter(|query| !query.is_empty()));
        Ok(Self { url, password })
    }
}

fn parameter(key: &str, value: &str) -> String {
    let encoded = |text| utf8_percent_encode(text, ENCODED);
    format!("{}={}", encoded(key), encoded(value))
}

/// The setting of the server in `options[setting]`.
fn setting(key: &str) -> Option<&str> {
    key.strip_prefix("options[")?.strip_suffix(']')
}

/// A space ends an option unless a backslash stands before it.
fn option(name: &str, value: &str) -> String {
    let text = format!("{name}={value}").replace('\\', r"\\").replace(' ', r"\ ");
    format!("-c {text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(url: &str) -> (String, Option<String>) {
        let ProgramAddress { url, password } = ProgramAddress::parse(url).unwrap();
        (url.into(), password)
    }

    #[test]
    fn an_address_that_both_understand_stays() {
        for url in [
            "postgres://h/g",
            "postgresql://me@db.example.org:5433/g?sslmode=require",
            "postgres://gephyra@%2Frun%2Fpostgresql/gephyra",
            "postgres:///gephyra?host=/run/postgresql&application_name=gephyra",
        ] {
            assert_eq!(parsed(url), (url.to_owned(), None));
        }
    }

    #[test]
    fn a_password_stands_apart_wherever_it_stood() {
        for (url, without, password) in [
            ("postgres://me:p%40ss@h/g", "postgres://me@h/g", "p@ss"),
            ("postgres:///g?host=/run&password=p%26w", "postgres:///g?host=/run", "p&w"),
            ("postgres://me:one@h/g?password=two", "postgres://me@h/g", "two"),
        ] {
            assert_eq!(parsed(url), (without.to_owned(), Some(password.to_owned())));
        }
    }

    #[test]
    fn what_only_the_library_knows_is_translated_or_left_out() {
        for (url, translated) in [
            ("postgres://h/g?statement-cache-capacity=0", "postgres://h/g"),
            (
                "postgres://h/g?ssl-mode=VERIFY-CA&ssl-ca=/etc/ca.pem&ssl-cert=c&ssl-key=k",
                "postgres://h/g?sslmode=verify-ca&sslrootcert=/etc/ca.pem&sslcert=c&sslkey=k",
            ),
            (
                "postgres://h/g?options[search_path]=a+b&options=-c%20geqo%3Doff&user=me",
                "postgres://h/g?user=me&options=-c%20search_path%3Da%5C%20b%20-c%20geqo%3Doff",
            ),
        ] {
            assert_eq!(parsed(url), (translated.to_owned(), None));
        }
    }
}
