//! A reverse proxy on pingora as its documentation has it: one service, one upstream, the same edits of fields as the
//! other proxies of the load tests, no log. `loadtest-pingora LISTEN UPSTREAM [THREADS]`.

use std::process::ExitCode;

use async_trait::async_trait;
use pingora_core::Result;
use pingora_core::server::Server;
use pingora_core::server::configuration::ServerConf;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{ProxyHttp, Session, http_proxy_service};

/// Idle connections to the upstream.
const POOL: usize = 1024;

struct Proxy {
    upstream: String,
}

#[async_trait]
impl ProxyHttp for Proxy {
    type CTX = ();

    fn new_ctx(&self) -> Self::CTX {}

    async fn upstream_peer(&self, _: &mut Session, (): &mut ()) -> Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(self.upstream.as_str(), false, String::new())))
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        (): &mut (),
    ) -> Result<()> {
        if let Some(client) = session.client_addr().and_then(|address| address.as_inet()) {
            request.insert_header("X-Forwarded-For", client.ip().to_string())?;
        }
        if let Some(host) = session.get_header("host").cloned() {
            request.insert_header("X-Forwarded-Host", host)?;
        }
        request.insert_header("X-Forwarded-Proto", "http")?;
        request.insert_header("X-Request-Id", format!("{:032x}", fastrand::u128(..)))?;
        request.insert_header("Via", "1.1 pingora")
    }

    async fn response_filter(
        &self,
        _: &mut Session,
        response: &mut ResponseHeader,
        (): &mut (),
    ) -> Result<()> {
        response.append_header("Via", "1.1 pingora").map(drop)
    }
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let (listen, upstream, threads) = match &words[..] {
        [version] if version == "--version" => {
            println!("pingora {}", env!("CARGO_PKG_VERSION"));
            return ExitCode::SUCCESS;
        }
        [listen, upstream] => (listen, upstream, Ok(1)),
        [listen, upstream, threads] => (listen, upstream, threads.parse()),
        _ => {
            eprintln!("usage: loadtest-pingora LISTEN UPSTREAM [THREADS]");
            return ExitCode::from(2);
        }
    };
    let Ok(threads) = threads else {
        eprintln!("loadtest-pingora: that is no number of threads");
        return ExitCode::from(2);
    };
    serve(listen, upstream.clone(), threads)
}

fn serve(listen: &str, upstream: String, threads: usize) -> ExitCode {
    let configuration = ServerConf {
        threads,
        upstream_keepalive_pool_size: POOL,
        grace_period_seconds: Some(0),
        graceful_shutdown_timeout_seconds: Some(0),
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None, configuration);
    server.bootstrap();
    let mut service = http_proxy_service(&server.configuration, Proxy { upstream });
    service.add_tcp(listen);
    server.add_service(service);
    server.run_forever()
}
