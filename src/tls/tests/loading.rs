//! From a configuration to what is served with: what is reported, and at which key.

use std::{fs, path::PathBuf, time::Duration};

use rcgen::{PKCS_ECDSA_P256_SHA256, date_time_ymd};
use rustls_pki_types::UnixTime;

use super::mint::{Mint, key};
use crate::{
    config::{Diagnostic, Key, Severity, types::Config},
    tls::{ClientTls, Loader, ServerTls},
};

/// Files of one test, which go when it does.
struct Files {
    directory: PathBuf,
}

impl Files {
    fn new(name: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("ringgate-load-{name}-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        Self { directory }
    }

    fn put(&self, name: &str, text: &str) {
        fs::write(self.directory.join(name), text).unwrap();
    }

    /// The text with each `@` replaced by the directory.
    fn config(&self, text: &str) -> Config {
        toml::from_str(&text.replace('@', &format!("{}/", self.directory.display()))).unwrap()
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn loader() -> Loader {
    // In the year 2038.
    Loader::new(UnixTime::since_unix_epoch(Duration::from_secs(1 << 31)))
}

/// `certificates.1.cert error: message`
fn line(path: &[Key<'_>], diagnostic: &Diagnostic) -> String {
    let key = |key: &Key<'_>| match key {
        Key::Name(name) => (*name).to_owned(),
        Key::Index(index) => index.to_string(),
    };
    let severity = if diagnostic.severity == Severity::Error { "error" } else { "warning" };
    format!("{} {severity}: {}", path.iter().map(key).collect::<Vec<_>>().join("."), diagnostic.message)
}

fn server(config: &Config) -> (Option<ServerTls>, Vec<String>) {
    let mut said = Vec::new();
    let tls = config.listener[0].tls.as_ref().unwrap();
    let server = loader().server(tls, &mut |path, diagnostic| said.push(line(path, &diagnostic)));
    (server, said)
}

fn client(config: &Config) -> (Option<ClientTls>, Vec<String>) {
    let mut said = Vec::new();
    let tls = config.cluster[0].tls.as_ref().unwrap();
    let endpoints = ["10.0.0.1:443".parse().unwrap()];
    let client = loader().client(tls, &endpoints, &mut |path, diagnostic| said.push(line(path, &diagnostic)));
    (client, said)
}

const LISTENER: &str = "[[listener]]\nname = 'l'\naddress = '127.0.0.1:0'\n";
const CLUSTER: &str = "[[cluster]]\nname = 'c'\nendpoints = [{ address = '10.0.0.1:443' }]\n";

#[test]
fn good_files_are_taken_without_a_word() {
    let files = Files::new("good");
    let root = Mint::root("root");
    let (one, two) = (root.pair(&["a.test"]), root.rsa(&["a.test"]));
    files.put("1.pem", &one.cert);
    files.put("1.key", &one.key);
    files.put("2.pem", &(two.cert + &two.key));
    files.put("ca.pem", &root.cert);
    let config = files.config(&format!(
        "{LISTENER}[listener.tls]\nmin_version = '1.3'\nclient_auth = {{ ca = '@ca.pem', mode = 'optional' }}\n\
         certificates = [{{ cert = '@1.pem', key = '@1.key' }}, {{ cert = '@2.pem', key = '@2.pem' }}]\n\
         {CLUSTER}tls = {{ ca = '@ca.pem', server_name = 'a.test', client_cert = {{ cert = '@1.pem', key = '@1.key' }} }}"
    ));
    let (server, said) = server(&config);
    assert_eq!(said, [""; 0]);
    assert_eq!(server.unwrap().certificates().len(), 2);
    let (client, said) = client(&config);
    assert_eq!(said, [""; 0]);
    let client = client.unwrap();
    assert_eq!(client.server_name(0).unwrap().to_str(), "a.test");
    assert!(client.certificate().is_some());
}

#[test]
fn every_bad_file_is_reported_at_its_key() {
    let files = Files::new("bad");
    let root = Mint::root("root");
    let (one, two) = (root.pair(&["a.test"]), root.pair(&["b.test"]));
    files.put("1.pem", &one.cert);
    files.put("1.key", &one.key);
    files.put("2.key", &two.key);
    let (listener, said) = server(&files.config(&format!(
        "{LISTENER}[listener.tls]\nclient_auth = {{ ca = '@1.key' }}\ncertificates = [\n\
         {{ cert = '@1.pem', key = '@2.key' }}, {{ cert = '@1.pem', key = '@1.key' }},\n\
         {{ cert = '@none', key = '@1.pem' }}]"
    )));
    assert!(listener.is_none());
    assert_eq!(
        said,
        [
            "certificates.0.key error: the private key does not belong to the certificate",
            "certificates.2.cert error: the file cannot be read: No such file or directory (os error 2)",
            "certificates.2.key error: there is no private key in the file",
            "client_auth.ca error: there is no certificate in the file",
        ]
    );
    let (cluster, said) = client(&files.config(&format!(
        "{CLUSTER}tls = {{ ca = '@none', server_name = 'a b', client_cert = {{ cert = '@1.pem', key = '@2.key' }} }}"
    )));
    assert!(cluster.is_none());
    assert_eq!(
        said,
        [
            "ca error: the file cannot be read: No such file or directory (os error 2)",
            "client_cert.key error: the private key does not belong to the certificate",
            "server_name error: this is not a name of a server",
        ]
    );
}

#[test]
fn what_is_odd_is_a_warning() {
    let files = Files::new("odd");
    let root = Mint::root("root");
    let old = root.pair_of(&["a.test", "b.test", "c.test"], &key(&PKCS_ECDSA_P256_SHA256), |params| {
        params.not_after = date_time_ymd(2030, 1, 1);
    });
    let (new, nameless) = (root.pair(&["b.test", "a.test", "d.test"]), root.pair(&[]));
    for (name, pair) in [("old", old), ("new", new), ("nameless", nameless)] {
        files.put(name, &(pair.cert + &pair.key));
    }
    let (listener, said) = server(&files.config(&format!(
        "{LISTENER}tls.certificates = [{{ cert = '@old', key = '@old' }}, {{ cert = '@new', key = '@new' }},\n\
         {{ cert = '@nameless', key = '@nameless' }}]"
    )));
    assert!(listener.is_some());
    assert_eq!(
        said,
        [
            "certificates.0.cert warning: the certificate expired on Tue, 01 Jan 2030 00:00:00 GMT",
            "certificates.2.cert warning: the certificate is for no name: it has no subject alternative name",
            "certificates.1.cert warning: this certificate is never used for `b.test` and 1 more: certificate 1 of \
             the list is for it too",
        ]
    );
    // A client's certificate needs no name, and an endpoint that need not prove anything no authority.
    let (cluster, said) = client(&files.config(&format!(
        "{CLUSTER}tls = {{ verify = false, ca = '@none', client_cert = {{ cert = '@nameless', key = '@nameless' }} }}"
    )));
    assert!(cluster.is_some());
    assert_eq!(said, [""; 0]);
}
