//! A set of keys as issuers publish it (JSON Web Key Set, RFC 7517 §5). Keys that are of no use here are passed over, as that section
//! wants it; a set that is none is an error.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value};

use super::jose::{Algorithm, Key, Material};

/// Keys of one set that are taken.
pub const PUBLISHED_KEYS_MAX: usize = 64;

/// Bytes of a set.
pub const SET_BYTES_MAX: usize = 256 * 1024;

/// The keys of a set that signatures can be verified with.
///
/// # Errors
/// What is wrong with it.
pub fn parse(text: &[u8]) -> Result<Vec<Key>, &'static str> {
    if text.len() > SET_BYTES_MAX {
        return Err("is larger than a set of keys may be");
    }
    let set: Map<String, Value> = serde_json::from_slice(text).map_err(|_| "is no object in JSON")?;
    let Some(Value::Array(keys)) = set.get("keys") else { return Err("has no list `keys`") };
    let keys: Vec<Key> = keys.iter().filter_map(key).take(PUBLISHED_KEYS_MAX).collect();
    if keys.is_empty() { Err("has no key that can be used") } else { Ok(keys) }
}

fn key(value: &Value) -> Option<Key> {
    let text = |name: &str| value.get(name).and_then(Value::as_str);
    let bytes = |name: &str| URL_SAFE_NO_PAD.decode(text(name)?).ok();
    // RFC 7517 §4.2, §4.3: keys for something else.
    if text("use").is_some_and(|purpose| purpose != "sig") {
        return None;
    }
    if let Some(Value::Array(operations)) = value.get("key_ops")
        && !operations.iter().any(|operation| operation == "verify")
    {
        return None;
    }
    let material = match (text("kty")?, text("crv")) {
        ("RSA", _) => Material::rsa(&bytes("n")?, &bytes("e")?)?,
        ("EC", Some("P-256")) => Material::P256(point(&bytes("x")?, &bytes("y")?, 32)?),
        ("EC", Some("P-384")) => Material::P384(point(&bytes("x")?, &bytes("y")?, 48)?),
        ("OKP", Some("Ed25519")) => Material::Ed25519(bytes("x").filter(|x| x.len() == 32)?.into()),
        // A secret is not published.
        _ => return None,
    };
    let algorithm = match text("alg") {
        None => None,
        Some(name) => Some(Algorithm::parse(name).filter(|algorithm| algorithm.is_of(&material))?),
    };
    Some(Key { id: text("kid").map(Into::into), algorithm, material })
}

/// An uncompressed point (SEC 1 §2.3.3).
fn point(x: &[u8], y: &[u8], len: usize) -> Option<Box<[u8]>> {
    (x.len() == len && y.len() == len).then(|| [&[4], x, y].concat().into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// RFC 7517 §A.1.
    fn published() -> Value {
        json!({"keys": [
            {"kty": "EC", "crv": "P-256", "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
             "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM", "use": "enc", "kid": "1"},
            {"kty": "RSA", "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw",
             "e": "AQAB", "alg": "RS256", "kid": "2011-04-29"}
        ]})
    }

    #[test]
    fn keys_that_are_of_use_are_taken() {
        let mut set = published();
        let keys = parse(set.to_string().as_bytes()).unwrap();
        assert_eq!(keys.len(), 1);
        assert_eq!((keys[0].id.as_deref(), keys[0].algorithm), (Some("2011-04-29"), Some(Algorithm::Rs256)));
        // The one for encryption would verify, were it for that.
        set["keys"][0]["use"] = json!("sig");
        let keys = parse(set.to_string().as_bytes()).unwrap();
        assert!(keys.len() == 2 && Algorithm::Es256.is_of(&keys[0].material));
        for (name, value) in [
            ("kty", json!("oct")),
            ("kty", json!(7)),
            ("crv", json!("P-521")),
            ("x", json!("MKBC")),
            ("x", json!("not base64!")),
            ("alg", json!("RS256")),
            ("alg", json!("none")),
            ("key_ops", json!(["sign"])),
        ] {
            let mut set = set.clone();
            set["keys"][0][name] = value;
            assert_eq!(parse(set.to_string().as_bytes()).unwrap().len(), 1, "{name}");
        }
    }

    #[test]
    fn sets_that_are_none() {
        for (text, expected) in [
            ("", "is no object in JSON"),
            ("[]", "is no object in JSON"),
            ("{}", "has no list `keys`"),
            (r#"{"keys": {}}"#, "has no list `keys`"),
            (r#"{"keys": []}"#, "has no key that can be used"),
            (r#"{"keys": [{"kty": "oct", "k": "AAAA"}, 1, null]}"#, "has no key that can be used"),
        ] {
            assert_eq!(parse(text.as_bytes()).unwrap_err(), expected, "{text}");
        }
        let many = json!({"keys": vec![published()["keys"][1].clone(); PUBLISHED_KEYS_MAX + 9]});
        assert_eq!(parse(many.to_string().as_bytes()).unwrap().len(), PUBLISHED_KEYS_MAX);
        assert_eq!(parse(&vec![b' '; SET_BYTES_MAX + 1]).unwrap_err(), "is larger than a set of keys may be");
    }

    proptest! {
        #[test]
        fn any_text_is_a_set_or_none(text in "\\PC{0,200}", at in 0_usize..400, byte in any::<u8>()) {
            let _ = parse(text.as_bytes());
            let mut bytes = published().to_string().into_bytes();
            let at = at % bytes.len();
            bytes[at] = byte;
            let _ = parse(&bytes);
        }
    }
}
