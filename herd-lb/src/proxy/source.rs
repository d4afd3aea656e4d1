//! Where a request comes from, and by which name it reached the edge.

use herd_admin::{is_forwarded, is_proxied};
use herd_core::access::{Need, Source, need_of};
use herd_core::request::Surface;
use http::HeaderMap;
use http::header::HOST;
use pingora_proxy::Session;

use super::ctx::RequestCtx;
use super::reply::Reply;
use super::{Edge, client_address, client_ip};
use crate::config::AdminExpose;
use crate::route::Origin;

impl Edge {
    /// Where a request comes from. Models are asked with the same rights from everywhere, so that only other requests
    /// have to be told apart further.
    pub(super) async fn origin(&self, session: &Session, ctx: &RequestCtx) -> Origin {
        let client = client_ip(session);
        let on_lan = client.is_some_and(|ip| self.fleet.networks().contains(ip));
        let request = session.req_header();
        let source = if is_proxied(&request.headers) {
            Source::Proxied
        } else if !client.is_some_and(|ip| ip.is_loopback()) || Surface::at(request.uri.path()).is_some() {
            Source::Network
        } else {
            self.local_source(session, ctx).await
        };
        Origin { client, source, on_lan }
    }

    /// Whether a loopback connection is the operator's. A proxy that does not say that it is one may still pass on the
    /// name by which its own clients call it, and mostly runs as a user of its own.
    async fn local_source(&self, session: &Session, ctx: &RequestCtx) -> Source {
        if host(&session.req_header().headers).is_some_and(|host| !self.hosts.is_here(host)) {
            self.telemetry.unmarked_proxy();
            return Source::Proxied;
        }
        let request = session.req_header();
        let need = need_of(request.method.as_str(), request.uri.path());
        if self.config.now().admin_expose != AdminExpose::Local && !self.keys.posture().favours_local(need) {
            return Source::Local;
        }
        let server = session.server_addr().and_then(|address| address.as_inet());
        let Some((client, server)) = client_address(session).zip(server) else { return Source::Network };
        let own = ctx.connection.peer_user().is_operator(self.config.now().local_users, client, *server).await;
        if own { Source::Local } else { Source::Network }
    }

    /// Refuses a request by a name that is nobody's here, against DNS rebinding: a page of another site can have its own
    /// name resolve to this machine, and its browser then takes this edge for that site.
    ///
    /// Signs of life are for everybody, and whoever shows a key is no such page. What a proxy forwards passes, but for a
    /// browser's: a page can write any header but `Via` itself.
    pub(super) fn admit_host(&self, session: &Session) -> Result<(), Reply> {
        let request = session.req_header();
        let (headers, path) = (&request.headers, request.uri.path());
        let Some(host) = host(headers) else { return Ok(()) };
        if self.hosts.admits(host) || is_forwarded(headers) {
            return Ok(());
        }
        let need = match Surface::at(path) {
            Some(_) => Need::Infer,
            None => need_of(request.method.as_str(), path),
        };
        if matches!(need, Need::Nothing | Need::Node)
            || matches!(self.keys.check(need, Source::Network, headers), Ok(Some(_)))
        {
            return Ok(());
        }
        let host: String = host.chars().filter(|c| !c.is_control()).take(255).collect();
        let message = format!(
            "{host:?} is not a name of this herd: use an IP address, localhost or a local name, add the name to \
             admin.hosts if it is yours, or show an API key"
        );
        Err(Reply::new(403, message).code(path, "foreign_host").closing())
    }
}

/// The name by which the edge is asked; HTTP/1.0 knows none.
fn host(headers: &HeaderMap) -> Option<&str> {
    headers.get(HOST).map(|host| host.to_str().unwrap_or("?"))
}
