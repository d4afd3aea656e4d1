//! Against the samples of a real Ollama 0.33: the same request must get an answer of the same form.

use super::{
    client::{self, Framing, Reply, parse_head},
    shape::{Shape, Unit, units},
    *,
};

/// A request to a real server and its answer.
struct Sample {
    method: String,
    path: String,
    request: String,
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
}

impl Sample {
    fn read(name: &str) -> Self {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/src/tests/samples");
        let text = std::fs::read_to_string(format!("{dir}/{name}.txt")).expect(name).replace("\r\n", "\n");
        let (request, response) = text.split_once("--- response ---\n").expect("a response");
        let (first, request) = request.split_once('\n').unwrap_or((request, ""));
        let (method, path) = first.trim_start_matches("> ").split_once(' ').expect("a request line");
        let request = request.lines().filter(|line| !line.starts_with("> ")).collect::<Vec<_>>().join("\n");
        let (head, body) = response.split_once("\n\n").expect("a head");
        let (body, _) = body.split_once("--- curl exit").expect("an end");
        let (status, headers) = parse_head(head);
        // What the recording added to the body.
        let body = body.strip_suffix('\n').unwrap_or(body).to_owned();
        let owned = |text: &str| text.trim().to_owned();
        Self { method: owned(method), path: owned(path), request: owned(&request), status, headers, body }
    }

    fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(have, _)| have.eq_ignore_ascii_case(name)).map_or("", |(_, value)| value.as_str())
    }

    /// Names of the headers but for those that depend on the moment, or on the connection of the test.
    fn header_names(headers: &[(String, String)]) -> Vec<String> {
        let moment = ["date", "connection", "content-length", "transfer-encoding"];
        let names = headers.iter().map(|(name, _)| name.clone());
        let mut names: Vec<_> = names.filter(|name| !moment.contains(&name.to_ascii_lowercase().as_str())).collect();
        names.sort();
        names
    }

    fn framing(&self) -> Framing {
        match (self.header("content-length"), self.header("transfer-encoding")) {
            ("", "") => Framing::Nothing,
            ("", _) => Framing::Chunked,
            _ => Framing::Length,
        }
    }

    async fn ask(&self, node: &SimNode, extra: &[&str]) -> Reply {
        client::request_with(node.addr(), &self.method, &self.path, extra, self.request.as_bytes()).await
    }

    #[track_caller]
    fn assert_head(&self, reply: &Reply, name: &str) {
        assert_eq!(reply.status, self.status, "{name}: {}", reply.text());
        assert_eq!(reply.header("content-type").unwrap_or_default(), self.header("content-type"), "{name}");
        assert_eq!(Self::header_names(&reply.headers), Self::header_names(&self.headers), "{name}");
    }

    /// The units of the body, and how the last chunk ends: with a newline or not.
    #[track_caller]
    fn assert_form(&self, reply: &Reply, name: &str) {
        let content_type = self.header("content-type");
        let (ours, theirs) = (units(&reply.text(), content_type), units(&self.body, content_type));
        for (index, (our, their)) in ours.iter().zip(&theirs).enumerate() {
            assert_eq!(our, their, "{name}: unit {index}");
        }
        assert_eq!(ours.len(), theirs.len(), "{name}: {}", reply.text());
        let newlines = |text: &str| text.len() - text.trim_end_matches('\n').len();
        assert_eq!(newlines(&reply.text()), newlines(&self.body), "{name}: {:?}", reply.text());
    }
}

/// Answers that differ from the sample in words and numbers only.
#[tokio::test]
async fn answers_have_the_form_of_the_samples() {
    let node = start(config()).await;
    for name in [
        "010_chat_stream",
        "011_chat_nostream",
        "012_chat_num_predict",
        "013_chat_load_empty",
        "018_chat_stream_null",
        "020_generate_stream",
        "021_generate_nostream",
        "022_generate_raw",
        "023_generate_load_empty",
        "030_embed",
        "031_embed_single_dims",
        "032_embeddings_legacy",
        "035_embed_empty",
        "040_v1_chat_stream_usage",
        "041_v1_chat_stream",
        "042_v1_chat",
        "043_v1_chat_max_tokens",
        "044_v1_completions",
        "045_v1_completions_stream",
        "046_v1_embeddings",
        "047_v1_embeddings_base64",
        "048_v1_models",
        "049_v1_model",
        "051_v1_responses",
        "052_v1_responses_stream",
        "053_v1_messages",
        "054_v1_messages_stream",
        "057_v1_chat_num_ctx_ignored",
        "100_think_stream",
        "101_think_nostream",
        "103_think_v1_stream",
        "104_think_v1",
        "105_think_messages_stream",
        "106_think_responses_stream",
        "131_model_case",
        "134_v1_models_tag",
    ] {
        let sample = Sample::read(name);
        let reply = sample.ask(&node, &[]).await;
        sample.assert_head(&reply, name);
        sample.assert_form(&reply, name);
        assert_eq!(reply.framing, sample.framing(), "{name}");
    }
}

/// Here a tool is called when the message speaks of one.
#[tokio::test]
async fn tool_calls_have_the_form_of_the_samples() {
    let node = start(config()).await;
    for name in [
        "110_tools_stream",
        "111_tools_nostream",
        "112_tools_v1_stream",
        "113_tools_v1",
        "114_tools_messages_stream",
        "115_tools_messages",
        "116_tools_responses_stream",
    ] {
        let mut sample = Sample::read(name);
        sample.request = sample.request.replace("\"hi\"", "\"use a tool\"");
        let reply = sample.ask(&node, &[]).await;
        sample.assert_head(&reply, name);
        sample.assert_form(&reply, name);
    }
}

/// Answers that are the same to the byte: errors, and what has no numbers in it.
#[tokio::test]
async fn errors_and_constants_are_those_of_the_samples() {
    let node = start(config()).await;
    for name in [
        "001_root",
        "002_root_head",
        "008_status",
        "016_chat_think_unsupported",
        "017_chat_embed_model",
        "024_generate_suffix_unsupported",
        "034_embed_llm_model",
        "050_v1_model_missing",
        "055_v1_images_generations",
        "056_v1_messages_count_tokens",
        "060_err_missing_model_chat",
        "061_err_missing_model_generate",
        "062_err_missing_model_embed",
        "063_err_missing_model_show",
        "064_err_missing_model_v1",
        "066_err_malformed_chat",
        "067_err_malformed_v1",
        "068_err_empty_body_chat",
        "069_err_wrong_type",
        "070_err_no_model",
        "071_err_no_model_generate",
        "072_err_bad_option",
        "074_err_404_path",
        "075_err_405",
        "076_err_v1_no_messages",
        "080_copy",
        "081_delete",
        "082_delete_missing",
        "083_copy_missing",
        "085_create_nostream",
        "099_cloud_model_disabled",
        "117_tools_unsupported_model",
        "118_images_on_text_model",
        "119_v1_image_url_on_text_model",
        "133_cloud_suffix_local",
        "135_trailing_slash",
        "136_unknown_v1",
    ] {
        let sample = Sample::read(name);
        let reply = sample.ask(&node, &[]).await;
        sample.assert_head(&reply, name);
        if sample.method != "HEAD" {
            assert_eq!(reply.text(), sample.body, "{name}");
        }
        assert_eq!(reply.framing, sample.framing(), "{name}");
    }
}

#[tokio::test]
async fn strangers_are_refused_without_a_word() {
    let node = start(config()).await;
    for (name, header) in [("077_err_bad_host", "Host: example.com"), ("079_bad_origin", "Origin: http://evil.com")] {
        let sample = Sample::read(name);
        let reply = sample.ask(&node, &[header]).await;
        sample.assert_head(&reply, name);
        assert_eq!(reply.text(), "", "{name}");
    }
    assert_eq!((node.stats().cancelled, node.stats().in_flight), (0, 0));
    let preflight = Sample::read("078_options_cors");
    let reply = preflight.ask(&node, &["Origin: http://localhost:3000"]).await;
    assert_eq!((reply.status, reply.header("access-control-allow-origin")), (204, Some("http://localhost:3000")));
}

#[tokio::test]
async fn an_anthropic_error_has_its_own_form() {
    let node = start(config()).await;
    let sample = Sample::read("065_err_missing_model_messages");
    let reply = sample.ask(&node, &[]).await;
    sample.assert_head(&reply, "065");
    sample.assert_form(&reply, "065");
    assert_eq!(reply.json()["error"]["message"], "model 'nope' not found");
}

#[tokio::test]
async fn lists_of_models_have_the_form_of_the_samples() {
    let node = start(SimConfig { models: vec![SimModel::named("tiny")], ..config() }).await;
    post(&node, "/api/generate", &json!({"model": "tiny"})).await;
    for name in ["003_version", "004_tags", "005_ps_before"] {
        let sample = Sample::read(name);
        let reply = sample.ask(&node, &[]).await;
        sample.assert_head(&reply, name);
        sample.assert_form(&reply, name);
    }
}

#[tokio::test]
async fn a_model_card_has_the_fields_of_the_sample() {
    let alias = SimModel { from: Some("tiny".to_owned()), num_ctx: Some(2048), ..SimModel::named("tiny2k") };
    let node = start(SimConfig { models: vec![SimModel::named("tiny"), alias], ..config() }).await;
    let sample = Sample::read("006_show");
    let reply = post(&node, "/api/show", &json!({"model": "tiny2k"})).await;
    assert_eq!(Shape::of(&reply.text()).names(), Shape::of(&sample.body).names());
    let card = reply.json();
    assert_eq!(card["model_info"]["llama.context_length"], 8192);
    assert_eq!(card["parameters"], "num_ctx                        2048");
    assert_eq!(card["details"]["parent_model"], "tiny:latest");
}

#[tokio::test]
async fn making_an_alias_reports_its_steps() {
    let node = start(config()).await;
    let sample = Sample::read("084_create_from");
    let reply = sample.ask(&node, &[]).await;
    sample.assert_head(&reply, "084");
    sample.assert_form(&reply, "084");
    assert_eq!(reply.lines().last(), Some(&json!({"status": "success"})));
}

/// A body of many tokens comes one chunk per token, and the event names are on their own chunks too.
#[tokio::test]
async fn every_line_and_every_event_is_one_chunk() {
    let node = start(config()).await;
    let reply = post(&node, "/api/chat", &chat("tiny")).await;
    let is_a_line = |chunk: &Vec<u8>| chunk.split(|byte| *byte == b'\n').count() == 2 && chunk.ends_with(b"}\n");
    assert!(reply.chunks.iter().all(is_a_line));
    assert_eq!(reply.chunks.len(), 11);
    let reply = post(&node, "/v1/chat/completions", &with(chat("tiny"), "stream", json!(true))).await;
    assert!(reply.chunks.iter().all(|chunk| chunk.starts_with(b"data: ") && chunk.ends_with(b"\n\n")));
    assert_eq!(units(&reply.text(), "text/event-stream").last(), Some(&Unit::Done));
}

#[tokio::test]
async fn large_answers_come_in_chunks_and_small_ones_with_a_length() {
    let node = start(config()).await;
    let ask =
        |tokens: u32| with(with(chat("tiny"), "stream", json!(false)), "options", json!({ "num_predict": tokens }));
    assert_eq!(post(&node, "/api/chat", &ask(10)).await.framing, Framing::Length);
    assert_eq!(post(&node, "/api/chat", &ask(1000)).await.framing, Framing::Chunked);
}

/// Sample 205: the prompt does not fit, and the model renders its own template.
#[tokio::test]
async fn a_prompt_that_is_too_long_is_refused_or_cut() {
    let native = SimModel { native_template: true, ..SimModel::named("native") };
    let node = start(SimConfig { models: vec![native, SimModel::named("tiny")], ..config() }).await;
    let long = |model: &str, stream: bool| json!({"model": model, "stream": stream, "messages": [{"role": "user", "content": "word ".repeat(4000)}]});
    let text = concat!(
        r#"{"error":{"code":400,"message":"request (5000 tokens) exceeds the available context size (4096 tokens), "#,
        r#"try increasing it","type":"exceed_context_size_error","n_prompt_tokens":5000,"n_ctx":4096}}"#
    );
    let refused = post(&node, "/api/chat", &long("native", false)).await;
    assert_eq!((refused.status, refused.json()["error"].as_str()), (400, Some(text)));
    let streamed = post(&node, "/api/chat", &long("native", true)).await;
    assert_eq!((streamed.status, streamed.framing), (400, Framing::Chunked));
    assert_eq!(streamed.header("content-type"), Some("application/json"));
    let refused = post(&node, "/v1/messages", &with(long("native", false), "max_tokens", json!(1))).await;
    assert_eq!(refused.json()["error"]["message"].as_str(), Some(text));
    // Another template is cut in silence: 200, and a count that gives it away.
    let cut = post(&node, "/api/chat", &long("tiny", false)).await;
    assert_eq!((cut.status, cut.json()["prompt_eval_count"].as_u64()), (200, Some(2051)));
    let refused = post(&node, "/api/chat", &with(long("tiny", false), "truncate", json!(false))).await;
    assert_eq!(refused.status, 400);
}
