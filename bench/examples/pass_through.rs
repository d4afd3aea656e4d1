//! The smallest proxy that Pingora makes, against which herd is measured: it takes turns between the nodes and knows
//! nothing of what passes.
//!
//! `pass_through LISTEN NODE...`

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use async_trait::async_trait;
use pingora::Result;
use pingora::server::Server;
use pingora::server::configuration::ServerConf;
use pingora::upstreams::peer::HttpPeer;
use pingora_proxy::{ProxyHttp, Session, http_proxy_service};

struct PassThrough {
    nodes: Vec<String>,
    turn: AtomicUsize,
}

#[async_trait]
impl ProxyHttp for PassThrough {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _: &mut Session, (): &mut ()) -> Result<Box<HttpPeer>> {
        let turn = self.turn.fetch_add(1, Relaxed) % self.nodes.len();
        Ok(Box::new(HttpPeer::new(self.nodes[turn].as_str(), false, String::new())))
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let listen = arguments.next().expect("pass_through LISTEN NODE...");
    let nodes: Vec<String> = arguments.collect();
    assert!(!nodes.is_empty(), "pass_through LISTEN NODE...");
    // As herd has them: a thread for each core, and as many connections kept.
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let conf = ServerConf { threads, upstream_keepalive_pool_size: 1_024, ..ServerConf::default() };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let proxy = PassThrough { nodes, turn: AtomicUsize::new(0) };
    let mut service = http_proxy_service(&server.configuration, proxy);
    service.add_tcp(&listen);
    server.add_service(service);
    server.run_forever();
}
