//! What is said about `[[policy]]` and what attaches it.

use super::assert_added;

#[test]
fn policies_of_listeners_and_routes() {
    let policy = |rest: &str| format!("[[policy]]\nname = 'p'\ndefault = true\n{rest}");
    let route = |keys: &str| {
        format!(
            "[[policy]]\nname = 'p'\ncors = {{ origins = ['*'] }}\n\
             [[route]]\nname = 's'\nmatch.path = '/s'\ncluster = 'c'\n{keys}"
        )
    };
    let hash = "sha256:2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";
    let keyed = |keys: &str| {
        format!(
            "{}\n[[consumer]]\nname = 'one'\nkeys = ['{hash}']\n[[consumer]]\nname = 'two'\ntags = ['t']\n\n",
            policy(keys)
        )
    };
    let cors = |keys: &str| policy(&format!("cors = {{ {keys} }}"));
    for (added, expected) in [
        (cors("origins = ['https://a.test', 'null', { regex = 'https://.+' }]"), &[][..]),
        (cors("origins = ['*'], methods = ['*'], headers = ['*', 'authorization'], expose = ['*']"), &[]),
        (policy(""), &["1:1 error: this policy does not say what it does"]),
        (cors("origins = []"), &["4:20 error: no page has an origin out of an empty list"]),
        (
            cors("origins = ['*', 'null']"),
            &["4:21 error: `*` takes every origin; the others say nothing beside it"],
        ),
        (
            cors("origins = ['*'], credentials = true"),
            &["4:20 error: with `credentials`, `*` is not allowed in `origins`"],
        ),
        (
            cors("origins = ['null'], headers = ['*', 'a b'], credentials = true"),
            &[
                "4:40 error: with `credentials`, `*` is not allowed in `headers`",
                "4:46 error: `a b` is not a field name",
            ],
        ),
        (cors("origins = ['null'], methods = ['']"), &["4:41 error: `` is not a method"]),
        (policy("ip = { allow = ['10.0.0.0/8', '::/0'], deny = ['10.0.0.1/32'] }"), &[]),
        (policy("authorize = { cluster = 'c', headers = ['cookie'], copy = ['X-User'] }"), &[]),
        (
            policy("authorize = { cluster = 'c', copy = ['host', 'a b', 'content-length'], timeout = '0s' }"),
            &[
                "4:38 error: `host` cannot be taken over",
                "4:46 error: `a b` is not a field name",
                "4:53 error: `content-length` cannot be taken over",
                "4:82 error: there is no answer in no time",
            ],
        ),
        (
            policy(
                "introspect = { cluster = 'c', path = '/i', client_id = 'g', client_secret = 's', scopes = ['a b'], \
                 query = 'q', cookie = 'k' }",
            ),
            &[
                "4:92 error: `a b` is not a scope",
                "4:122 error: it comes in `query` or in `cookie`, not in both",
            ],
        ),
        (policy("ip = { allow = [] }"), &["4:16 error: `allow` names no network"]),
        (policy("ip = {}"), &["4:6 error: this policy lets everyone pass"]),
        (policy("basic = { users = [{ name = 'ada', password = 'x' }], realm = 'a \"b\"' }"), &[]),
        (policy("basic = { file = '/etc/users' }"), &[]),
        (policy("basic = {}"), &["4:9 error: this policy lets no one pass: there are no users"]),
        (
            policy("basic = { file = 'users', realm = 'ä' }"),
            &["4:18 error: `users` is not the absolute path of a file", "4:35 error: `ä` is no realm"],
        ),
        (
            [&keyed("key = {}")[..], "limit = { limit = 5 }\n"].concat(),
            &["12:9 warning: no policy counts by consumers, so this limits no one"],
        ),
        (
            [&keyed("key = {}")[..], "limit = { limit = 5, per = '0s' }\n"].concat(),
            &["12:9 error: there is no rate in no time"],
        ),
        (
            [&keyed("key = {}")[..], "limit = { limit = 2000001, per = '2s' }\n"].concat(),
            &[
                "12:9 error: this is more than 1,000,000 requests a second, or takes more than a hundred years to fill",
            ],
        ),
        (policy("allow = \"request.client.ip != '' && 'a' in claims.roles\""), &[]),
        (
            policy("ip = { deny = ['10.0.0.0/8', '10.0.0.1', '10.0.0.1/8'] }"),
            &["4:30 error: `10.0.0.1` is not a network", "4:42 warning: `10.0.0.1/8` has host bits set"],
        ),
        (
            policy("ip = { deny = ['::ffff:203.0.113.0/120'] }"),
            &["4:16 error: `::ffff:203.0.113.0/120` is a network of IPv4 written as one of IPv6"],
        ),
        (
            policy("ip = { deny = ['::/0'] }\ncors = { origins = ['*'] }"),
            &["1:1 error: this policy is cors and ip"],
        ),
        (
            policy(
                "client_cert = { names = ['a.test', '*.b', 'a..b', '*', ''], fingerprints = ['ab', 'a:b'] }",
            ),
            &[
                "4:15 error: this policy lets no one pass: no listener asks for certificates",
                "4:43 error: `a..b` is no DNS name",
                "4:51 error: `*` is no DNS name",
                "4:56 error: `` is no DNS name",
                "4:77 error: `ab` is no fingerprint",
                "4:83 error: `a:b` is no fingerprint",
            ],
        ),
        (keyed("key = {}"), &[]),
        (keyed("key = { header = 'x-key', consumers = ['one', 'two'], tags = ['t'], forward = true }"), &[]),
        (keyed("key = { query = 'api key' }"), &[]),
        (keyed("key = { cookie = 'k' }"), &[]),
        (
            keyed("key = { header = 'k', query = '', cookie = 'a b' }"),
            &[
                "4:31 error: `` is not a parameter's name",
                "4:31 error: it comes in `header` or in `query`, not in both",
                "4:44 error: `a b` is not a cookie's name",
                "4:44 error: it comes in `query` or in `cookie`, not in both",
            ],
        ),
        (
            policy(
                "jwt = { algorithms = ['HS256'], keys = [{ secret = 'a secret of thirty-two bytes, ok' }] }",
            ),
            &[],
        ),
        (
            policy("jwt = { algorithms = [], keys = [], query = 'a', cookie = 'b', scopes = ['c', 'd e'] }"),
            &[
                "4:22 error: no algorithm is named, so no token is believed",
                "4:33 error: there is no key, so no token is believed",
                "4:59 error: it comes in `query` or in `cookie`, not in both",
                "4:79 error: `d e` is not a scope",
            ],
        ),
        (policy("rate_limit = { limit = 5 }"), &[]),
        (
            policy(
                "rate_limit = { limit = 5, per = '1h', cost = 5, by = [{ header = 'x' }, 'route', { claim = 'c' }] }",
            ),
            &[],
        ),
        (
            policy(
                "rate_limit = { limit = 5, per = '0s', cost = 6, by = [{ header = 'a b' }, { claim = '' }] }",
            ),
            &[
                "4:33 error: there is no rate in no time",
                "4:46 error: a request costs more than there ever is",
                "4:66 error: `a b` is not a field name",
                "4:85 error: `` is no claim",
            ],
        ),
        (
            policy("rate_limit = { limit = 1000001 }").replace("'p'", "'p\"'"),
            &["2:8 error: clients are told this name, which may have ASCII letters, digits and signs"],
        ),
        (policy("key = {}"), &["4:7 error: this policy lets no one pass: there are no keys"]),
        (
            keyed("key = { header = 'a b', consumers = ['on'], tags = ['u'] }"),
            &[
                "4:18 error: `a b` is not a field name",
                "4:38 error: unknown consumer `on`, did you mean `one`?",
                "4:53 error: no consumer has the tag `u`",
            ],
        ),
        (
            keyed("key = { consumers = [], tags = [] }"),
            &["4:21 error: `consumers` lets no one pass", "4:32 error: `tags` lets no one pass"],
        ),
        (
            format!(
                "{}\n[[consumer]]\nname = 'three'\nkeys = ['secret', '{}']",
                keyed("key = {}"),
                hash.to_uppercase().replace("SHA", "sha")
            ),
            &[
                "14:8 error: key 1 of this consumer is no hash of a key",
                "14:8 error: key 2 of this consumer is `one`'s too",
            ],
        ),
        ("[[consumer]]\nname = 'one'".into(), &["2:8 warning: no policy asks for the keys of consumers"]),
        (route("use = ['p']"), &[]),
        (route(""), &["2:8 warning: nothing uses policy `p`"]),
        (route("use = ['q']"), &["8:8 error: unknown policy `q`, did you mean `p`?"]),
        (route("use = ['p']\nskip = ['p']"), &["9:9 error: this route both uses and skips `p`"]),
        (
            route("skip = ['p']"),
            &[
                "2:8 warning: nothing uses policy `p`",
                "8:9 warning: `p` is on no listener, so skipping it does nothing",
            ],
        ),
        (
            route("use = ['p']\nresponse_headers.set = { Access-Control-Allow-Origin = 'x' }"),
            &["9:1 error: this route has a `cors` policy, which alone says who may read its responses"],
        ),
        (
            format!(
                "{}\n[[policy]]\nname = 'q'\ndefault = true\ncors = {{ origins = ['*'] }}",
                cors("origins = ['null']")
            ),
            &["1:1 error: `p` and `q` are both `cors`, and only one is asked"],
        ),
    ] {
        assert_added(&added, expected);
    }
}
