//! The dashboard: one page, its modules and its styles, all from this binary, so that it works where nothing else does.
//!
//! The page has no data in it; its modules ask the same API that everybody else may ask.

mod asset;

use std::sync::LazyLock;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Redirect, Response};
use bytes::Bytes;
use herd_core::name::fnv1a;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, REFERRER_POLICY};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use crate::refusal::Refusal;
use crate::state::AdminState;
use asset::{Asset, HASH};

/// Nothing but files of this server, and no markup made of strings but by the view layer, from its own templates.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
    font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
    require-trusted-types-for 'script'; trusted-types lit-html";

/// The page's tabs, by their paths.
const TABS: [&str; 10] = [
    "overview",
    "trends",
    "models",
    "apps",
    "benchmarks",
    "health",
    "recommendations",
    "settings",
    "traces",
    "explain",
];

const OPENER_POLICY: HeaderName = HeaderName::from_static("cross-origin-opener-policy");

/// The page, whatever tab of it.
pub(crate) async fn page(State(state): State<AdminState>, headers: HeaderMap) -> Response {
    /// With the places of the files filled in.
    static PAGE: LazyLock<String> = LazyLock::new(|| {
        include_str!("../assets/index.html").replace("{assets}", &format!("/dashboard/assets/{}", *HASH))
    });
    let version: String =
        state.config().version.chars().filter(|c| c.is_ascii_graphic() && !"<>&\"'".contains(*c)).collect();
    let html = PAGE.replace("{version}", &version);
    let tag = format!("\"{:016x}\"", fnv1a(html.as_bytes()));
    let policies = [
        (CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (OPENER_POLICY, HeaderValue::from_static("same-origin")),
        (CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ];
    let answer = asset::tagged(&headers, &tag, "text/html; charset=utf-8", Bytes::from(html));
    (policies, answer).into_response()
}

/// The page of one tab. A browser that wants another goes to the first; a program is told that there is none.
pub(crate) async fn tab(
    state: State<AdminState>,
    tab: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let unknown = || Refusal::not_found("not_found", "404 page not found");
    let Path(tab) = tab.map_err(|_| unknown())?;
    if TABS.contains(&tab.as_str()) {
        return Ok(page(state, headers).await);
    }
    let wants_page = headers.get(ACCEPT).is_some_and(|accept| accept.as_bytes().starts_with(b"text/html"));
    if wants_page { Ok(Redirect::temporary("/dashboard").into_response()) } else { Err(unknown()) }
}

/// One file. Under the hash of all files it never changes; under another, as a page of an older herd asks, it may.
pub(crate) async fn file(
    path: Result<Path<(String, String)>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let found = path.ok().and_then(|Path((hash, path))| Some((hash, Asset::at(&path)?)));
    let (hash, asset) = found.ok_or_else(|| Refusal::new(StatusCode::NOT_FOUND, "not_found", "404 page not found"))?;
    let keep = if hash == *HASH { "public, max-age=31536000, immutable" } else { "no-cache" };
    let headers_of_file =
        [(CACHE_CONTROL, HeaderValue::from_static(keep)), (CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY))];
    Ok((headers_of_file, asset.answer(&headers)).into_response())
}
