//! Requests that go to the admin service: their bodies are read here first, and only so many are there at a time.
//!
//! Whoever sends a header and nothing more, or reads an answer slowly, holds a connection of the edge's, of which there
//! are many, and a place in its own share of those at the admin service.

use std::net::{IpAddr, Ipv4Addr};

use bytes::Bytes;
use herd_core::access::{Need, Source, need_of};
use herd_core::places::{Full, Place, Places};
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, EXPECT, TRANSFER_ENCODING};
use pingora::http::RequestHeader;
use pingora_proxy::Session;

use super::Edge;
use super::body::{Held, content_length};
use super::ctx::RequestCtx;
use super::reply::Reply;
use crate::budget::Budget;
use crate::config::Limits;
use crate::route::Origin;

/// Largest body but for heartbeats and explanations, which have limits of their own. The admin service takes less.
const BODY_BYTES: usize = 1 << 20;
/// All of them held at a time. Heartbeats come in whatever inference holds.
const BUFFERED_BYTES: usize = 128 << 20;
/// A body of more than this is large. Those that are not need no place while they come: they cost less than waiting.
const SMALL_BYTES: usize = 64 << 10;
/// Large bodies, or of unknown length, that one client may have under way at a time.
const LARGE_BODIES_OF_ONE: usize = 16;
/// The share of this machine of all places, and that of any other client.
const SHARE_OF_LOCAL: usize = 2;
const SHARE_OF_ONE: usize = 8;

/// Places at the admin service. Cloning it shares them.
#[derive(Debug, Clone)]
pub struct AdminPlaces {
    /// For heartbeats and signs of life.
    vital: Places,
    /// For everything else.
    rest: Places,
    /// Of those whose large bodies are being read.
    reading: Places,
    budget: Budget,
}

impl AdminPlaces {
    /// Places for `requests_max` requests, and a quarter as many for heartbeats and signs of life.
    #[must_use]
    pub fn new(requests_max: usize) -> Self {
        Self {
            vital: Places::new(requests_max.div_ceil(4)),
            rest: Places::new(requests_max),
            // The budget bounds them all.
            reading: Places::new(usize::MAX),
            budget: Budget::new(BUFFERED_BYTES),
        }
    }

    /// Requests that are there now, signs of life and heartbeats aside.
    #[must_use]
    pub fn taken_count(&self) -> usize {
        self.rest.taken_count()
    }

    fn take(&self, path: &str, origin: Origin) -> Result<Place, Full> {
        let places = if is_vital(path) { &self.vital } else { &self.rest };
        let ip = ip_of(origin);
        let parts = if ip.to_canonical().is_loopback() { SHARE_OF_LOCAL } else { SHARE_OF_ONE };
        places.take(ip, places.count().div_ceil(parts))
    }
}

fn ip_of(origin: Origin) -> IpAddr {
    origin.client.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
}

/// What the fleet and those who watch over it cannot do without.
fn is_vital(path: &str) -> bool {
    matches!(path, "/heartbeat" | "/heartbeat/challenge" | "/healthz" | "/readyz" | "/api/version" | "/")
}

/// What a request to the admin service holds until it is over.
pub struct ForAdmin {
    /// Where it comes from.
    source: Source,
    held: Option<Held>,
    /// The body, until it is sent.
    unsent: Option<Bytes>,
    /// The body is passed on as it comes.
    streams: bool,
    _place: Place,
}

impl ForAdmin {
    /// Whether the body is passed on as it comes.
    pub(super) fn streams(&self) -> bool {
        self.streams
    }

    /// Where it comes from.
    pub(super) fn source(&self) -> Source {
        self.source
    }

    /// Puts the body that is held in the place of `body`, once for each time that the request is sent.
    pub(super) fn send_body(&mut self, body: &mut Option<Bytes>) {
        if self.held.is_some() {
            *body = self.unsent.take();
        }
    }

    /// Makes `request` that of the body that is held.
    ///
    /// # Errors
    /// Never, but that Pingora's headers say they may.
    pub(super) fn prepare(&mut self, request: &mut RequestHeader) -> pingora::Result<()> {
        if self.streams {
            // It has been answered here.
            request.remove_header(&EXPECT);
        }
        let Some(held) = &self.held else { return Ok(()) };
        for name in [TRANSFER_ENCODING, EXPECT, CONTENT_ENCODING] {
            request.remove_header(&name);
        }
        request.insert_header(CONTENT_LENGTH, held.bytes.len())?;
        self.unsent = Some(held.bytes.clone());
        Ok(())
    }
}

impl Edge {
    /// Reads the body of a request to the admin service, and then takes its place there.
    pub(super) async fn admit_admin(
        &self,
        session: &mut Session,
        ctx: &mut RequestCtx,
        origin: Origin,
    ) -> Result<(), Reply> {
        let path = session.req_header().uri.path().to_owned();
        let (mut held, mut streams) = (None, false);
        if has_body(session) {
            self.refuse_before_reading(session, &path, origin)?;
            streams = is_file(&path);
            if !streams {
                held = Some(self.hold_for_admin(session, &path, origin).await?);
            }
        }
        let place = self.admin_places.take(&path, origin);
        let place = place.map_err(|full| busy(full, held.is_none() && !streams))?;
        if streams && session.req_header().headers.contains_key(EXPECT) {
            let begun = session.downstream_session.write_continue_response().await;
            begun.map_err(|_| Reply::new(400, "the client has left").closing())?;
        }
        ctx.for_admin = Some(ForAdmin { source: origin.source, held, unsent: None, streams, _place: place });
        Ok(())
    }

    async fn hold_for_admin(&self, session: &mut Session, path: &str, origin: Origin) -> Result<Held, Reply> {
        let large = content_length(session).is_none_or(|bytes| bytes > SMALL_BYTES);
        let reading = &self.admin_places.reading;
        let place = large.then(|| reading.take(ip_of(origin), LARGE_BODIES_OF_ONE));
        let _place = place.transpose().map_err(|full| busy(full, false))?;
        let config = self.config.now();
        let (most, budget) = match path {
            // As large as inference bodies, and beside them.
            "/fleet/explain" => (config.limits.request_body_bytes, &self.budget),
            "/heartbeat" => (config.heartbeat_body_bytes, &self.admin_places.budget),
            _ => (BODY_BYTES.min(config.limits.request_body_bytes), &self.admin_places.budget),
        };
        let limits = Limits { request_body_bytes: most, ..config.limits };
        self.hold_body(session, &limits, budget).await.map_err(|(_, reply)| reply)
    }

    /// Whoever the admin service would not let in need not send a body. It looks again, at this and more.
    fn refuse_before_reading(&self, session: &Session, path: &str, origin: Origin) -> Result<(), Reply> {
        let request = session.req_header();
        let need = need_of(request.method.as_str(), path);
        if need == Need::Node {
            // A token may stand in for a key.
            return Ok(());
        }
        let denied = self.keys.check(need, origin.source, &request.headers).err();
        denied.map_or(Ok(()), |why| Err(Reply::new(why.status(), why.to_string()).code(path, why.code()).closing()))
    }
}

/// Whether a body on `path` is a file of a model, tens of gigabytes perhaps, that is never held.
fn is_file(path: &str) -> bool {
    path.starts_with("/api/blobs/")
}

fn has_body(session: &Session) -> bool {
    let headers = &session.req_header().headers;
    headers.contains_key(TRANSFER_ENCODING) || headers.get(CONTENT_LENGTH).is_some_and(|length| length != "0")
}

fn busy(full: Full, reusable: bool) -> Reply {
    let reply = Reply::new(503, format!("{full} at the admin service (admin.requests_max); try again")).retry_after(1);
    if reusable { reply } else { reply.closing() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(ip: &str) -> Origin {
        Origin { client: ip.parse().ok(), source: Source::Network, on_lan: true }
    }

    #[test]
    fn no_client_takes_the_places_of_others_nor_those_of_heartbeats() {
        let places = AdminPlaces::new(64);
        let mut held = Vec::new();
        while let Ok(place) = places.take("/api/tags", origin("10.0.0.1")) {
            held.push(place);
        }
        assert_eq!(held.len(), 8);
        for host in 2..100 {
            held.extend((0..9).filter_map(|_| places.take("/dashboard", origin(&format!("10.0.0.{host}"))).ok()));
        }
        assert_eq!((held.len(), places.taken_count()), (64, 64));
        assert_eq!(places.take("/fleet/status", origin("127.0.0.1")).unwrap_err(), Full::All(64));
        for path in ["/heartbeat", "/healthz", "/readyz", "/"] {
            held.push(places.take(path, origin("127.0.0.1")).unwrap());
        }
        held.truncate(10);
        assert_eq!(places.taken_count(), 10);
    }
}
