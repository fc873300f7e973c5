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
        (policy("ip = { allow = [] }"), &["4:16 error: `allow` names no network"]),
        (policy("ip = {}"), &["4:6 error: this policy lets everyone pass"]),
        (
            policy("ip = { deny = ['10.0.0.0/8', '10.0.0.1', '10.0.0.1/8'] }"),
            &["4:30 error: `10.0.0.1` is not a network", "4:42 warning: `10.0.0.1/8` has host bits set"],
        ),
        (
            policy("ip = { deny = ['::/0'] }\ncors = { origins = ['*'] }"),
            &["1:1 error: this policy is cors and ip"],
        ),
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
            &["1:1 error: `p` and `q` are both `cors`, and only one can answer"],
        ),
    ] {
        assert_added(&added, expected);
    }
}
