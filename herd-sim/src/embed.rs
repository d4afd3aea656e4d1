//! Embeddings on their three surfaces.

use std::sync::Arc;

use http::{Response, StatusCode};
use serde::Serialize;

use super::{
    body::{self, Body},
    broken,
    catalog::Stored,
    engine::Lease,
    exchange::{Exchange, Failure},
    generate, json, options, plan,
    request::Ask,
    scheduler::Want,
    surface::{ApiError, Dialect, Surface},
    text::{estimate_tokens, unit_vector},
    wire,
};

#[derive(Serialize)]
struct Native<'a> {
    model: &'a str,
    embeddings: Vec<Vec<f32>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    total_duration: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    load_duration: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_eval_count: Option<u32>,
}

#[derive(Serialize)]
struct Legacy {
    embedding: Vec<f64>,
}

#[derive(Serialize)]
struct OpenAi<'a> {
    object: &'static str,
    data: Vec<OpenAiItem>,
    model: &'a str,
    usage: OpenAiUsage,
}

#[derive(Serialize)]
struct OpenAiItem {
    object: &'static str,
    embedding: Vector,
    index: usize,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Vector {
    Floats(Vec<f32>),
    Base64(String),
}

#[derive(Serialize)]
struct OpenAiUsage {
    prompt_tokens: u32,
    total_tokens: u32,
}

/// What came out, before a surface writes it.
struct Embedded {
    vectors: Vec<Vec<f32>>,
    tokens: u32,
    total_nanos: u64,
    load_nanos: u64,
}

/// Embeds what `ask` gives.
pub(crate) async fn run(
    mut exchange: Exchange,
    ask: &Ask,
    surface: Surface,
    model: Arc<Stored>,
) -> Result<Response<Body>, Failure> {
    let inputs = inputs(ask, surface)?;
    if inputs.is_empty() && surface == Surface::Embed {
        let none = Native {
            model: ask.model(),
            embeddings: Vec::new(),
            total_duration: None,
            load_duration: None,
            prompt_eval_count: None,
        };
        return Ok(body::json(&none));
    }
    let (embedded, lease) = embed(&mut exchange, ask, surface, model, &inputs).await?;
    let headers = wire::headers(surface, false);
    broken::respond(exchange, Some(lease), &headers, write(ask, surface, embedded).into())
}

fn inputs(ask: &Ask, surface: Surface) -> Result<Vec<String>, ApiError> {
    match surface {
        Surface::Embeddings => Ok(vec![ask.prompt.clone().unwrap_or_default()]),
        _ => ask.embed_inputs(),
    }
}

async fn embed(
    exchange: &mut Exchange,
    ask: &Ask,
    surface: Surface,
    model: Arc<Stored>,
    inputs: &[String],
) -> Result<(Embedded, Lease), Failure> {
    let clock = exchange.node.clock;
    let submitted = clock.now();
    let native = surface.dialect() == Dialect::Native;
    let keep_alive = ask.keep_alive.as_ref().filter(|_| native).map(options::keep_alive).transpose()?;
    let load = plan::load_options(ask, surface)?.load;
    let want = Want { model: Arc::clone(&model), options: load, keep_alive, slot: true };
    let lease = generate::acquire(exchange, want).await?;
    if !model.is_embedding_only() {
        // Only the engine knows, so that the model has been loaded for nothing: as in Ollama.
        let text = "This server does not support embeddings. Start it with `--embeddings`";
        return Err(ApiError::new(StatusCode::NOT_IMPLEMENTED, text).into());
    }
    let each = inputs.iter().map(|text| estimate_tokens(text.chars().count()));
    if ask.truncate == Some(false) && each.clone().any(|tokens| tokens > lease.grant.num_ctx) {
        return Err(ApiError::bad_request("the input length exceeds the context length").into());
    }
    let tokens = each.map(|tokens| tokens.min(lease.grant.num_ctx)).fold(0, u32::saturating_add);
    exchange.hang(Some((&lease, generate::pace(exchange, tokens, 0)))).await;
    let pace = generate::pace(exchange, tokens, 0);
    lease.set_pace(pace);
    clock.wait_until(pace.decode_from).await;
    let dimensions = ask.dimensions.unwrap_or(usize::MAX).clamp(1, model.model.embedding_length.max(1) as usize);
    let nanos = |duration: std::time::Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX).max(1000);
    let embedded = Embedded {
        vectors: inputs.iter().map(|text| unit_vector(model.name.as_str(), text, dimensions)).collect(),
        tokens,
        total_nanos: nanos(clock.now().saturating_sub(submitted)),
        load_nanos: nanos(lease.grant.attached_at.saturating_sub(submitted)),
    };
    Ok((embedded, lease))
}

fn write(ask: &Ask, surface: Surface, embedded: Embedded) -> Vec<u8> {
    let Embedded { vectors, tokens, total_nanos, load_nanos } = embedded;
    match surface {
        Surface::Embeddings => {
            let embedding = vectors.into_iter().next().unwrap_or_default().into_iter().map(f64::from).collect();
            json::to_vec(&Legacy { embedding })
        }
        Surface::V1Embeddings => {
            let base64 = ask.encoding_format.as_deref() == Some("base64");
            let item = |(index, floats): (usize, Vec<f32>)| {
                let embedding = if base64 { Vector::Base64(float_base64(&floats)) } else { Vector::Floats(floats) };
                OpenAiItem { object: "embedding", embedding, index }
            };
            let data = vectors.into_iter().enumerate().map(item).collect();
            let usage = OpenAiUsage { prompt_tokens: tokens, total_tokens: tokens };
            let mut text = json::to_vec(&OpenAi { object: "list", data, model: ask.model(), usage });
            text.push(b'\n');
            text
        }
        _ => json::to_vec(&Native {
            model: ask.model(),
            embeddings: vectors,
            total_duration: Some(total_nanos),
            load_duration: Some(load_nanos),
            prompt_eval_count: Some(tokens).filter(|tokens| *tokens > 0),
        }),
    }
}

/// Little-endian floats in standard base64, with padding.
fn float_base64(floats: &[f32]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bytes: Vec<u8> = floats.iter().flat_map(|float| float.to_le_bytes()).collect();
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let value = group.iter().fold(0_u32, |value, byte| value << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for place in 0..4 {
            let sextet = (value >> (18 - 6 * place)) as usize & 63;
            text.push(if place <= group.len() { char::from(ALPHABET[sextet]) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_become_base64() {
        assert_eq!(float_base64(&[1.0]), "AACAPw==");
        assert_eq!(float_base64(&[1.0, -2.0, 0.5]), "AACAPwAAAMAAAAA/");
    }
}
