//! The one escape that maps ids between the networks, injective both ways.
//!
//! Every byte outside `a-z0-9._-` is written `=hh`, two lower-case hexadecimal digits.

use std::fmt::Write;

/// Escapes every byte outside `a-z0-9._-`.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if is_plain(byte) {
            escaped.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(escaped, "={byte:02x}");
        }
    }
    escaped
}

/// Undoes [`escape`]. `None` for every text that [`escape`] does not produce, so that no two
/// texts mean the same id.
pub fn unescape(escaped: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(escaped.len());
    let mut rest = escaped.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'=' {
            let decoded = hex_digit(rest.next()?)? * 16 + hex_digit(rest.next()?)?;
            if is_plain(decoded) {
                return None;
            }
            bytes.push(decoded);
        } else if is_plain(byte) {
            bytes.push(byte);
        } else {
            return None;
        }
    }
    String::from_utf8(bytes).ok()
}

fn is_plain(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-')
}

fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_the_canonical_form_is_read() {
        assert_eq!(escape("Bob@example.org"), "=42ob=40example.org");
        assert_eq!(unescape("=42ob=40example.org").as_deref(), Some("Bob@example.org"));
        for other in ["=61", "=4", "=", "=4G", "=2F", "A", "a b", "=ff", "ä"] {
            assert_eq!(unescape(other), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_read_is_written_the_same(text in "[a-z=0-9A-F._%-]{0,24}") {
            if let Some(read) = unescape(&text) {
                prop_assert_eq!(escape(&read), text);
            }
        }
    }
}
