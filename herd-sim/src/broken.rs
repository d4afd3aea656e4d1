//! Whole answers, as the fault that struck their request leaves them.

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderName, Response, StatusCode, header};

use super::{
    body::{self, Body},
    engine::Lease,
    exchange::{Exchange, Failure},
    fault::FaultKind,
    surface::ApiError,
    wire,
};

/// Sends `whole` with a 200; a fault in the middle lets half of it through.
///
/// The slot is given back first, but for a hung engine, which keeps it.
pub(crate) fn respond(
    exchange: Exchange,
    lease: Option<Lease>,
    headers: &[(HeaderName, &'static str)],
    whole: Bytes,
) -> Result<Response<Body>, Failure> {
    let fault = exchange.fault();
    let lease = lease.filter(|_| fault == FaultKind::HangMidStream);
    match fault {
        FaultKind::GarbageLine => {
            let garbled = [wire::GARBAGE, &whole].concat();
            return Ok(body::respond(StatusCode::OK, headers, body::buffered(garbled.into())));
        }
        FaultKind::CrashMidStream => {
            let text = "an error was encountered while running the model: unexpected EOF";
            return Err(ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, text).into());
        }
        _ if !fault.is_mid_stream() => return Ok(body::respond(StatusCode::OK, headers, body::buffered(whole))),
        _ => {}
    }
    let half = Half { exchange, _lease: lease, bytes: Some(whole.slice(..whole.len() / 2)) };
    let mut response = body::respond(StatusCode::OK, headers, half.into_body());
    // A message that promises its length cannot end cleanly before that.
    if fault != FaultKind::CleanEnd {
        response.headers_mut().insert(header::CONTENT_LENGTH, whole.len().into());
    }
    Ok(response)
}

/// Half an answer, and the fault after it.
struct Half {
    exchange: Exchange,
    _lease: Option<Lease>,
    bytes: Option<Bytes>,
}

impl Half {
    fn into_body(self) -> Body {
        body::streamed(stream::unfold(self, |mut half| async move {
            if let Some(bytes) = half.bytes.take() {
                return Some((Ok(bytes), half));
            }
            let mut struck = half.exchange.struck.take()?;
            if struck.fault.fault == FaultKind::HangMidStream {
                struck.lifted().await;
            }
            match struck.fault.fault {
                FaultKind::CleanEnd => None,
                kind => Some((Err(half.exchange.cut(kind).await), half)),
            }
        }))
    }
}
