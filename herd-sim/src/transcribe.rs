//! `/v1/audio/transcriptions`: a form, as curl and `OpenAI`'s libraries write one.

use bytes::Bytes;
use http::{Response, StatusCode, header};
use serde::Serialize;

use super::{
    body::{self, Body},
    exchange::{Exchange, Failure},
    fault::FaultKind,
    generate,
    launch::LoadOptions,
    scheduler::Want,
    surface::ApiError,
};

#[derive(Serialize)]
struct Transcription<'a> {
    text: &'a str,
}

/// What is heard in every recording.
const HEARD: &str = "hello herd";

/// The plain part of the form named `name`.
pub(crate) fn field(form: &[u8], name: &str) -> Option<String> {
    let text = String::from_utf8_lossy(form);
    let (_, part) = text.split_once(&format!("name=\"{name}\"\r\n"))?;
    // Other fields of its header may stand between.
    let content = part.strip_prefix("\r\n").or_else(|| part.split_once("\r\n\r\n").map(|(_, content)| content))?;
    Some(content.split("\r\n--").next()?.to_owned())
}

/// Writes down what is said in `form`.
pub(crate) async fn run(exchange: Exchange, form: &[u8]) -> Result<Response<Body>, Failure> {
    exchange.strike_early().await?;
    let name = field(form, "model").unwrap_or_default();
    let missing = || Failure::from(ApiError::no_model(&name));
    if exchange.fault() == FaultKind::NotFound {
        return Err(missing());
    }
    let model = exchange.node.catalog().find(&name).ok_or_else(missing)?;
    let want = Want { model, options: LoadOptions::default(), keep_alive: None, slot: true };
    let lease = generate::acquire(&exchange, want).await?;
    let plain = field(form, "response_format").as_deref() == Some("text");
    drop(lease);
    if plain {
        let headers = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
        return Ok(body::respond(StatusCode::OK, &headers, body::sized(Bytes::from_static(HEARD.as_bytes()))));
    }
    Ok(body::json(&Transcription { text: HEARD }))
}
