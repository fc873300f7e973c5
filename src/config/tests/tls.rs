//! What is said about `tls`, of which only files are named here.

use super::assert_added;

#[test]
fn tls_of_listeners_and_clusters() {
    let listener = |tls: &str| format!("[[listener]]\nname = 's'\naddress = '127.0.0.1:8443'\ntls = {tls}");
    let cluster = |tls: &str| {
        format!(
            "[[cluster]]\nname = 's'\nendpoints = [{{ address = '10.0.0.1:443' }}]\ntls = {tls}\n\
             [[route]]\nname = 's'\nmatch.path = '/s'\ncluster = 's'"
        )
    };
    for (added, expected) in [
        (listener("{ certificates = [{ cert = 'a', key = 'b' }] }"), &[][..]),
        (cluster("{}"), &[]),
        (cluster("{ server_name = 'a.test' }"), &[]),
        (cluster("{ server_name = '::1' }"), &[]),
        (listener("{}"), &["4:7 error: missing key `certificates` in `listener.tls`"]),
        (
            listener("{ certificates = [] }"),
            &["4:24 error: a listener with `tls` needs at least one certificate"],
        ),
        (
            listener("{ certificates = [{ cert = 'a' }] }"),
            &["4:25 error: missing key `key` in `listener.tls.certificates`"],
        ),
        (
            listener("{ certificates = [{ cert = '', key = '-----BEGIN PRIVATE KEY-----' }] }"),
            &[
                "4:34 error: this needs the name of a file",
                "4:44 error: this takes the name of a file, not what is in it",
            ],
        ),
        (
            listener("{ certificates = [{ cert = 'a', key = 'b' }], min_version = '1.1' }"),
            &["4:67 error: unknown value \"1.1\", did you mean \"1.2\"?"],
        ),
        (
            listener(
                "{ certificates = [{ cert = 'a', key = 'b' }], client_auth = { ca = '', mode = 'require' } }",
            ),
            &["4:74 error: this needs the name of a file"],
        ),
        (cluster("{ server_name = 'a.test:443' }"), &["4:23 error: `a.test:443` is not a name of a server"]),
        (
            cluster("{ verify = false }"),
            &["4:18 warning: whoever answers at an endpoint's address is believed"],
        ),
        ("[timeouts]\nhandshake = '0s'".into(), &["2:13 error: `handshake` must not be zero"]),
    ] {
        assert_added(&added, expected);
    }
}
