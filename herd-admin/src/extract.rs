//! What handlers ask of a request, as axum hands it to them.

use std::net::SocketAddr;

use axum::extract::{ConnectInfo, FromRequestParts};
use http::StatusCode;
use http::request::Parts;

use crate::caller::Caller;
use crate::guard::Operator;
use crate::refusal::Refusal;
use crate::state::AdminState;

impl FromRequestParts<AdminState> for Caller {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &AdminState) -> Result<Self, Refusal> {
        let unknown =
            || Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "unknown_caller", "the caller's address is not known");
        let config = state.config();
        let ConnectInfo(peer) = *parts.extensions.get::<ConnectInfo<SocketAddr>>().ok_or_else(unknown)?;
        let caller = Self::read(&parts.headers, peer.ip(), config.edge_secret.as_ref()).ok_or_else(unknown)?;
        Ok(caller)
    }
}

impl FromRequestParts<AdminState> for Operator {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &AdminState) -> Result<Self, Refusal> {
        let unguarded =
            || Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "unguarded", "the route is not one that changes things");
        parts.extensions.get().cloned().ok_or_else(unguarded)
    }
}
