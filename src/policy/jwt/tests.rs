//! Tokens: the vectors of RFC 7515, what is forged, and what is for another place or time.

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use proptest::prelude::*;

use super::*;
use crate::policy::{
    jose::Material,
    token::{self, TOKEN_BYTES_MAX},
};

const SECRET: &[u8] = b"a secret of thirty-two bytes, ok";

fn access(algorithms: &[Algorithm], keys: Vec<Key>) -> TokenAccess {
    TokenAccess {
        place: Place::Header("authorization".into()),
        forward: true,
        algorithms: algorithms.into(),
        published: None,
        keys: keys.into(),
        demands: Demands {
            issuer: None,
            audience: Box::default(),
            require: Box::default(),
            scopes: Box::default(),
            leeway_s: 0,
            needs_end: true,
        },
    }
}

fn key(material: Material) -> Key {
    Key { algorithm: None, id: None, material }
}

fn secret() -> Key {
    key(Material::secret(SECRET).unwrap())
}

fn part(json: &str) -> String {
    URL_SAFE_NO_PAD.encode(json)
}

/// A token signed by the secret, whatever its header says.
fn signed(header: &str, payload: &str) -> String {
    let message = format!("{}.{}", part(header), part(payload));
    let mark = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET), message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(mark))
}

const HS256: &str = r#"{"alg":"HS256"}"#;

#[test]
fn the_vectors_of_rfc_7515() {
    // §A.1, with HMAC.
    let token = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    let shared = "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";
    let shared = Material::secret(&URL_SAFE_NO_PAD.decode(shared).unwrap()).unwrap();
    let hs = access(&[Algorithm::Hs256], vec![key(shared)]);
    let claims = hs.verify(token.as_bytes(), None, 1_300_819_379).unwrap();
    assert_eq!((claims.text("iss").as_deref(), claims.subject()), (Some("joe"), None));
    assert_eq!(claims.text("http://example.com/is_root").as_deref(), Some("true"));
    assert_eq!(hs.verify(token.as_bytes(), None, 1_300_819_380), Err(TokenFault::Expired));
    // §A.3, with ECDSA.
    let token = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
    let (x, y) =
        ("f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0");
    let point = [vec![4], URL_SAFE_NO_PAD.decode(x).unwrap(), URL_SAFE_NO_PAD.decode(y).unwrap()].concat();
    let es = access(&[Algorithm::Es256], vec![key(Material::P256(point.into()))]);
    assert!(es.verify(token.as_bytes(), None, 1).is_ok());
    // Another's signature, or another's message.
    assert_eq!(es.verify(token.replace("DtEh", "DtEi").as_bytes(), None, 1), Err(TokenFault::Invalid));
    assert_eq!(
        es.verify(token.replace("eyJpc3Mi", "eyJpc3Nj").as_bytes(), None, 1),
        Err(TokenFault::Invalid)
    );
    // RFC 8037 §A.4, with Ed25519; what it signs are no claims.
    let ed = key(Material::Ed25519(
        URL_SAFE_NO_PAD.decode("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo").unwrap().into(),
    ));
    let message = b"eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc";
    let mark = "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
    let mark = URL_SAFE_NO_PAD.decode(mark).unwrap();
    assert!(is_signed(Algorithm::EdDsa, &ed.material, message, &mark));
    assert!(!is_signed(Algorithm::EdDsa, &ed.material, &message[1..], &mark));
}

#[test]
fn what_is_forged_is_not_believed() {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let point = pair.public_key().as_ref();
    let both =
        access(&[Algorithm::Hs256, Algorithm::Es256], vec![secret(), key(Material::P256(point.into()))]);
    let payload = r#"{"exp":100}"#;
    let good = signed(HS256, payload);
    assert!(both.verify(good.as_bytes(), None, 1).is_ok());
    let message = format!("{}.{}", part(r#"{"alg":"ES256"}"#), part(payload));
    let mark = pair.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
    let by_pair = format!("{message}.{}", URL_SAFE_NO_PAD.encode(mark));
    assert!(both.verify(by_pair.as_bytes(), None, 1).is_ok());
    assert_eq!(
        access(&[Algorithm::Hs256], vec![secret()]).verify(by_pair.as_bytes(), None, 1),
        Err(TokenFault::Invalid)
    );

    // The public key taken for a secret, which everyone knows.
    let message = format!("{}.{}", part(HS256), part(payload));
    let mark = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, point), message.as_bytes());
    let confused = format!("{message}.{}", URL_SAFE_NO_PAD.encode(mark));
    let unsigned = format!("{}.{}.", part(r#"{"alg":"none"}"#), part(payload));
    let (body, mark) = good.rsplit_once('.').unwrap();
    for wrong in [
        confused,
        unsigned,
        format!("{body}."),
        body.to_owned(),
        format!("{body}.{mark}="),
        format!("{good}.x"),
        format!("{body}.{}", &mark[1..]),
        signed(r#"{"alg":"hs256"}"#, payload),
        signed(r#"{"alg":"HS384"}"#, payload),
        signed(r#"{"alg":["HS256"]}"#, payload),
        signed("{}", payload),
        signed(r#"{"alg":"HS256","crit":["exp"]}"#, payload),
        signed(r#"{"alg":"HS256","b64":false}"#, payload),
        signed(r#"{"alg":"HS256","kid":7}"#, payload),
        signed(HS256, "[]"),
        signed(HS256, "{}"),
        signed(HS256, r#"{"exp":"100"}"#),
        signed(HS256, r#"{"exp":-1}"#),
        signed(HS256, r#"{"exp":100,"nbf":"1"}"#),
        String::new(),
        "..".into(),
        "\u{e9}.\u{e9}.\u{e9}".into(),
    ] {
        assert_eq!(both.verify(wrong.as_bytes(), None, 1), Err(TokenFault::Invalid), "{wrong}");
    }
}

#[test]
fn claims_say_for_whom_and_when() {
    let mut access = access(&[Algorithm::Hs256], vec![secret()]);
    access.demands.issuer = Some("https://a".into());
    access.demands.audience = ["api".into(), "web".into()].into();
    access.demands.require = ["sub".into()].into();
    access.demands.leeway_s = 5;
    for (payload, expected) in [
        (r#"{"iss":"https://a","aud":"api","sub":"x","exp":100}"#, Ok(())),
        (r#"{"iss":"https://a","aud":["z","web"],"sub":"x","exp":100.7,"nbf":10.2}"#, Ok(())),
        (r#"{"iss":"https://a/","aud":"api","sub":"x","exp":100}"#, Err(TokenFault::Invalid)),
        (r#"{"aud":"api","sub":"x","exp":100}"#, Err(TokenFault::Invalid)),
        (r#"{"iss":"https://a","aud":["z"],"sub":"x","exp":100}"#, Err(TokenFault::Invalid)),
        (r#"{"iss":"https://a","sub":"x","exp":100}"#, Err(TokenFault::Invalid)),
        (r#"{"iss":"https://a","aud":{"api":1},"sub":"x","exp":100}"#, Err(TokenFault::Invalid)),
        (r#"{"iss":"https://a","aud":"api","sub":null,"exp":100}"#, Err(TokenFault::Invalid)),
        (r#"{"iss":"https://a","aud":"api","sub":"x","exp":45}"#, Err(TokenFault::Expired)),
        (r#"{"iss":"https://a","aud":"api","sub":"x","exp":46}"#, Ok(())),
        (r#"{"iss":"https://a","aud":"api","sub":"x","exp":100,"nbf":55}"#, Ok(())),
        (r#"{"iss":"https://a","aud":"api","sub":"x","exp":100,"nbf":56}"#, Err(TokenFault::Expired)),
    ] {
        let said = access.verify(signed(HS256, payload).as_bytes(), None, 50).map(|_| ());
        assert_eq!(said, expected, "{payload}");
    }
}

#[test]
fn claims_as_texts() {
    let payload = r#"{"exp":100,"s":"a b","n":7,"t":true,"l":["a","b",3,{}],"o":{},"z":null}"#;
    let access = access(&[Algorithm::Hs256], vec![secret()]);
    let claims = access.verify(signed(HS256, payload).as_bytes(), None, 1).unwrap();
    let expected = [
        ("s", Some("a b")),
        ("n", Some("7")),
        ("t", Some("true")),
        ("l", Some("a b 3")),
        ("o", None),
        ("z", None),
        ("-", None),
    ];
    for (name, text) in expected {
        assert_eq!(claims.text(name).as_deref(), text, "{name}");
    }
}

#[test]
fn scopes_are_all_there_or_not() {
    let mut access = access(&[Algorithm::Hs256], vec![secret()]);
    access.demands.scopes = ["read".into(), "write".into()].into();
    for (claim, expected) in [
        (r#""scope":"write other read""#, Ok(())),
        (r#""scp":["read","write"]"#, Ok(())),
        (r#""scope":"read","scp":"write""#, Ok(())),
        (r#""scope":"read""#, Err(TokenFault::NotAllowed)),
        (r#""scope":"read writes""#, Err(TokenFault::NotAllowed)),
        (r#""scope":["read write"]"#, Err(TokenFault::NotAllowed)),
        (r#""scope":{"read":1,"write":1}"#, Err(TokenFault::NotAllowed)),
        (r#""sub":"read write""#, Err(TokenFault::NotAllowed)),
    ] {
        let claims =
            access.verify(signed(HS256, &format!(r#"{{"exp":100,{claim}}}"#)).as_bytes(), None, 1).unwrap();
        assert_eq!(access.demands.allows(&claims), expected, "{claim}");
    }
}

#[test]
fn a_key_with_an_id_is_for_tokens_of_that_id() {
    let other = Material::secret(b"another secret of thirty-two byt").unwrap();
    let keys = vec![
        Key { algorithm: None, id: Some("one".into()), ..secret() },
        Key { algorithm: None, id: Some("two".into()), material: other },
    ];
    let access = access(&[Algorithm::Hs256], keys);
    for (header, is_believed) in [
        (HS256, true),
        (r#"{"alg":"HS256","kid":"one"}"#, true),
        (r#"{"alg":"HS256","kid":"two"}"#, false),
        (r#"{"alg":"HS256","kid":"three"}"#, false),
    ] {
        let token = signed(header, r#"{"exp":100}"#);
        assert_eq!(access.verify(token.as_bytes(), None, 1).is_ok(), is_believed, "{header}");
    }
}

#[test]
fn where_a_token_comes() {
    let bearer = access(&[], Vec::new());
    let field = TokenAccess { place: Place::Header("x-token".into()), ..bearer.clone() };
    let long = [b"Bearer ".to_vec(), vec![b'a'; TOKEN_BYTES_MAX + 1]].concat();
    for (values, expected) in [
        (&[&b"Bearer a.b.c"[..]][..], Ok(b"a.b.c".to_vec())),
        (&[b"bEARER  a"], Ok(b"a".to_vec())),
        (&[], Err(TokenFault::Missing)),
        (&[b"Basic a"], Err(TokenFault::Missing)),
        (&[b"Bearer"], Err(TokenFault::Missing)),
        (&[b"Bearer "], Err(TokenFault::Missing)),
        (&[b"a.b.c"], Err(TokenFault::Missing)),
        (&[b"Bearer a", b"Bearer a"], Err(TokenFault::Invalid)),
        (&[&long], Err(TokenFault::Invalid)),
    ] {
        assert_eq!(token::shown(&bearer.place, values.iter()), expected);
    }
    assert_eq!(token::shown(&field.place, [b"a.b.c"].iter()), Ok(b"a.b.c".to_vec()));
    assert_eq!(token::shown(&field.place, [b""].iter()), Err(TokenFault::Missing));
}

#[test]
fn what_was_verified_is_remembered_for_its_time_and_policy() {
    let ours = access(&[Algorithm::Hs256], vec![secret()]);
    let others = access(&[Algorithm::Hs256], vec![key(Material::secret(&[7; 32]).unwrap())]);
    let mut verified = Verified::default();
    let token = signed(HS256, r#"{"exp":100,"nbf":10}"#);
    let first = verified.claims((0, &ours), token.as_bytes(), None, 50).unwrap();
    assert!(Rc::ptr_eq(&first, &verified.claims((0, &ours), token.as_bytes(), None, 99).unwrap()));
    assert_eq!(verified.claims((0, &ours), token.as_bytes(), None, 100), Err(TokenFault::Expired));
    assert_eq!(verified.claims((0, &ours), token.as_bytes(), None, 9), Err(TokenFault::Expired));
    assert_eq!(verified.claims((1, &others), token.as_bytes(), None, 50), Err(TokenFault::Invalid));
    // However many there are, so many are kept, and those in use are.
    for n in 0..3 * VERIFIED_MAX {
        let other = signed(HS256, &format!(r#"{{"exp":100,"n":{n}}}"#));
        verified.claims((0, &ours), other.as_bytes(), None, 50).unwrap();
        assert!(Rc::ptr_eq(&first, &verified.claims((0, &ours), token.as_bytes(), None, 50).unwrap()));
    }
    assert!(verified.young.len() <= VERIFIED_MAX && verified.old.len() <= VERIFIED_MAX);
}

proptest! {
    #[test]
    fn no_bytes_are_believed_by_chance(token in ".{0,200}", parts in proptest::collection::vec("[A-Za-z0-9_-]{0,40}", 3)) {
        let access = access(&[Algorithm::Hs256, Algorithm::Es256], vec![secret()]);
        prop_assert!(access.verify(token.as_bytes(), None, 1).is_err());
        prop_assert!(access.verify(parts.join(".").as_bytes(), None, 1).is_err());
    }

    #[test]
    fn no_changed_byte_is_believed(at in 0..80_usize, to in any::<u8>()) {
        let access = access(&[Algorithm::Hs256], vec![secret()]);
        let mut token = signed(HS256, r#"{"exp":100,"sub":"x"}"#).into_bytes();
        let at = at % token.len();
        prop_assume!(token[at] != to);
        token[at] = to;
        prop_assert!(access.verify(&token, None, 1).is_err());
    }
}

/// Every algorithm with a key from elsewhere, and none with another's.
#[test]
fn each_algorithm_with_its_own_keys() {
    use aws_lc_rs::signature::{
        ECDSA_P384_SHA384_FIXED_SIGNING, Ed25519KeyPair, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384,
        RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512, RsaKeyPair,
    };
    use rcgen::{PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256};

    let rng = SystemRandom::new();
    let pair = |algorithm| {
        let pair = rcgen::KeyPair::generate_for(algorithm).unwrap();
        (Material::public(&pair.public_key_pem()).unwrap(), pair.serialize_der())
    };
    let (p256, p256_pair) = pair(&PKCS_ECDSA_P256_SHA256);
    let (p384, p384_pair) = pair(&PKCS_ECDSA_P384_SHA384);
    let (ed, ed_pair) = pair(&PKCS_ED25519);
    let (rsa, rsa_pair) = pair(&PKCS_RSA_SHA256);
    let p256_pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &p256_pair).unwrap();
    let p384_pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &p384_pair).unwrap();
    let ed_pair = Ed25519KeyPair::from_pkcs8(&ed_pair).unwrap();
    let rsa_pair = RsaKeyPair::from_pkcs8(&rsa_pair).unwrap();
    let by_secret =
        |algorithm, message: &[u8]| hmac::sign(&hmac::Key::new(algorithm, SECRET), message).as_ref().to_vec();
    let by_rsa = |padding: &'static dyn signature::RsaEncoding, message: &[u8]| {
        let mut mark = vec![0; rsa_pair.public_modulus_len()];
        rsa_pair.sign(padding, &rng, message, &mut mark).unwrap();
        mark
    };
    let sign = |algorithm, message: &[u8]| match algorithm {
        Algorithm::Hs256 => by_secret(hmac::HMAC_SHA256, message),
        Algorithm::Hs384 => by_secret(hmac::HMAC_SHA384, message),
        Algorithm::Hs512 => by_secret(hmac::HMAC_SHA512, message),
        Algorithm::Rs256 => by_rsa(&RSA_PKCS1_SHA256, message),
        Algorithm::Rs384 => by_rsa(&RSA_PKCS1_SHA384, message),
        Algorithm::Rs512 => by_rsa(&RSA_PKCS1_SHA512, message),
        Algorithm::Ps256 => by_rsa(&RSA_PSS_SHA256, message),
        Algorithm::Ps384 => by_rsa(&RSA_PSS_SHA384, message),
        Algorithm::Ps512 => by_rsa(&RSA_PSS_SHA512, message),
        Algorithm::Es256 => p256_pair.sign(&rng, message).unwrap().as_ref().to_vec(),
        Algorithm::Es384 => p384_pair.sign(&rng, message).unwrap().as_ref().to_vec(),
        Algorithm::EdDsa => ed_pair.sign(message).as_ref().to_vec(),
    };
    let all = Algorithm::ALL.map(|(_, algorithm)| algorithm);
    let keys = [secret(), key(p256), key(p384), key(ed), key(rsa)];
    for (name, algorithm) in Algorithm::ALL {
        let message = format!("{}.{}", part(&format!(r#"{{"alg":"{name}"}}"#)), part(r#"{"exp":100}"#));
        let token = format!("{message}.{}", URL_SAFE_NO_PAD.encode(sign(algorithm, message.as_bytes())));
        let is_believed = |algorithms: &[Algorithm], keys: &[Key]| {
            access(algorithms, keys.to_vec()).verify(token.as_bytes(), None, 1).is_ok()
        };
        assert!(is_believed(&[algorithm], &keys), "{name}");
        let (own, others): (Vec<_>, Vec<_>) =
            keys.iter().cloned().partition(|key| algorithm.is_of(&key.material));
        assert!(is_believed(&all, &own) && !is_believed(&all, &others), "{name}");
        let not_this: Vec<_> = all.into_iter().filter(|other| *other != algorithm).collect();
        assert!(!is_believed(&not_this, &keys), "{name}");
        // The same signature under the name of another algorithm.
        for (other, _) in Algorithm::ALL.iter().filter(|(_, other)| *other != algorithm) {
            let renamed = format!("{}.{}", part(&format!(r#"{{"alg":"{other}"}}"#)), part(r#"{"exp":100}"#));
            let forged = token.replace(&message, &renamed);
            assert!(
                access(&all, keys.to_vec()).verify(forged.as_bytes(), None, 1).is_err(),
                "{name} as {other}"
            );
        }
    }
}
