//! From what is configured of tokens to what verifies them. No message has a key in it.

use crate::{
    config::{
        types::{self, JwtKey},
        values::Span,
    },
    policy::{
        credential::Place,
        jose::{Algorithm, Key, Material, SECRET_BYTES_MIN},
        jwt::{Published, TokenAccess},
        token::Demands,
    },
};

/// Keys of one policy, at most: each may be tried for a token.
const KEYS_MAX: usize = 16;

/// Compiles what a policy says of tokens. Every fault is told.
pub(super) fn compile(jwt: &types::Jwt) -> Result<TokenAccess, Vec<String>> {
    let mut faults = Vec::new();
    let mut algorithms = Vec::new();
    for name in &jwt.algorithms {
        match Algorithm::parse(name) {
            Some(algorithm) => algorithms.push(algorithm),
            None => {
                let all: Vec<_> = Algorithm::ALL.iter().map(|(name, _)| *name).collect();
                faults.push(format!("`{name}` is no algorithm for tokens: there are {}", all.join(", ")));
            }
        }
    }
    if jwt.keys.len() > KEYS_MAX {
        faults.push(format!("there are more than {KEYS_MAX} keys"));
    }
    let mut keys = Vec::new();
    for (at, key) in jwt.keys.iter().enumerate() {
        let number = at + 1;
        match material(key) {
            Ok(material) if algorithms.iter().any(|algorithm| algorithm.is_of(&material)) => {
                keys.push(Key { id: key.id.as_deref().map(Into::into), algorithm: None, material });
            }
            Ok(_) if faults.is_empty() => {
                faults.push(format!("key {number} of this policy is for none of its `algorithms`"));
            }
            Ok(_) => {}
            Err(why) => faults.push(format!("key {number} of this policy {why}")),
        }
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    Ok(TokenAccess {
        place: place((&jwt.header, "authorization"), &jwt.query, &jwt.cookie),
        forward: jwt.forward,
        algorithms: algorithms.into(),
        keys: keys.into(),
        published: (jwt.jwks.is_some() || jwt.discovery).then(Published::default),
        demands: demands(&jwt.issuer, [&jwt.audience, &jwt.require, &jwt.scopes], jwt.leeway, true),
    })
}

/// What claims must be.
pub(super) fn demands(
    issuer: &Option<String>,
    [audience, require, scopes]: [&[String]; 3],
    leeway: Span,
    needs_end: bool,
) -> Demands {
    let boxed = |list: &[String]| list.iter().map(|one| one.as_str().into()).collect();
    Demands {
        issuer: issuer.as_deref().map(Into::into),
        audience: boxed(audience),
        require: boxed(require),
        scopes: boxed(scopes),
        leeway_s: leeway.as_millis() / 1000,
        needs_end,
    }
}

fn material(key: &JwtKey) -> Result<Material, String> {
    match (&key.public_key, &key.secret) {
        (Some(pem), None) => Material::public(pem).map_err(Into::into),
        (None, Some(secret)) => Material::secret(secret.0.as_bytes())
            .ok_or_else(|| format!("is a secret of fewer than {SECRET_BYTES_MIN} bytes")),
        _ => Err("needs either a `public_key` or a `secret`".into()),
    }
}

/// What a credential comes in. Validation has refused two places.
pub(super) fn place(
    (header, otherwise): (&Option<String>, &str),
    query: &Option<String>,
    cookie: &Option<String>,
) -> Place {
    match (query, cookie) {
        (Some(name), _) => Place::Query(name.as_str().into()),
        (None, Some(name)) => Place::Cookie(name.as_str().into()),
        (None, None) => Place::Header(header.as_deref().unwrap_or(otherwise).to_ascii_lowercase().into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(text: &str) -> Vec<String> {
        compile(&toml::from_str(text).unwrap()).map_or_else(|faults| faults, |_| Vec::new())
    }

    #[test]
    fn every_fault_of_keys_is_told_and_no_key() {
        let secret = "secret = 'a secret of thirty-two bytes, ok'";
        assert!(faults(&format!("algorithms = ['HS256', 'ES256']\nkeys = [{{ {secret} }}]")).is_empty());
        let told = faults(
            "algorithms = ['none']\nkeys = [{ secret = 'short' }, { public_key = 'x' }, { id = 'a' }]",
        );
        assert_eq!(
            told,
            [
                "`none` is no algorithm for tokens: there are HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384, \
                 PS512, ES256, ES384, EdDSA",
                "key 1 of this policy is a secret of fewer than 32 bytes",
                "key 2 of this policy is no public key in PEM (`-----BEGIN PUBLIC KEY-----`)",
                "key 3 of this policy needs either a `public_key` or a `secret`",
            ]
        );
        let told = faults(&format!("algorithms = ['ES256']\nkeys = [{{ {secret} }}]"));
        assert_eq!(told, ["key 1 of this policy is for none of its `algorithms`"]);
        let many = vec![format!("{{ {secret} }}"); KEYS_MAX + 1].join(",");
        assert_eq!(
            faults(&format!("algorithms = ['HS256']\nkeys = [{many}]")),
            ["there are more than 16 keys"]
        );
    }

    #[test]
    fn a_credential_comes_in_one_place() {
        let name = |name: &str| Some(name.to_owned());
        assert_eq!(place((&None, "x-key"), &None, &None), Place::Header("x-key".into()));
        assert_eq!(place((&name("X-Own"), "x-key"), &None, &None), Place::Header("x-own".into()));
        assert_eq!(place((&None, "x-key"), &name("Q"), &None), Place::Query("Q".into()));
        assert_eq!(place((&None, "x-key"), &None, &name("C")), Place::Cookie("C".into()));
    }
}
