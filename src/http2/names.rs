//! Names of fields as the `http` crate has them. Those that were recognised when their head was parsed are looked up by their
//! number, which spares hashing and checking their text once more.

use http::HeaderName;

use crate::http::field::FieldName;

thread_local! {
    /// In the order of [`FieldName::KNOWN`].
    static KNOWN: Vec<HeaderName> =
        FieldName::KNOWN.iter().map(|name| HeaderName::from_static(name.as_str())).collect();
}

/// A field's name; `text` is what it was recognised by. `None`: HTTP/2 cannot say it.
#[inline]
pub(super) fn name_of(name: FieldName, text: &[u8]) -> Option<HeaderName> {
    match name {
        FieldName::Other => HeaderName::from_bytes(text).ok(),
        known => KNOWN.with(|names| names.get(known as usize).cloned()),
    }
}

/// Whether a field's value is mostly another one with each request. Such values go without a place in the table of HPACK: they
/// would drive out those that are useful, and a new one is compared with each that is there.
#[inline]
pub(super) const fn is_passing(name: FieldName) -> bool {
    matches!(name, FieldName::Forwarded | FieldName::XForwardedFor | FieldName::XRequestId)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_names_are_what_their_text_says() {
        for &name in FieldName::KNOWN {
            let text = name.as_str().as_bytes();
            assert_eq!(name_of(name, text), HeaderName::from_bytes(text).ok());
        }
        assert_eq!(name_of(FieldName::Other, b"X-Mine").unwrap(), "x-mine");
        assert_eq!(name_of(FieldName::Other, b"x mine"), None);
    }
}
