//! A real client, which we did not write: the community's `OpenAI` SDK for Rust.

use async_openai::Client;
use async_openai::config::OpenAIConfig;
use async_openai::types::chat::{
    ChatCompletionRequestUserMessageArgs, CreateChatCompletionRequest, CreateChatCompletionRequestArgs,
};
use async_openai::types::embeddings::CreateEmbeddingRequestArgs;
use futures_util::StreamExt as _;
use herd_harness::{Edge, Sim};

fn chat() -> CreateChatCompletionRequest {
    let message = ChatCompletionRequestUserMessageArgs::default().content("hi").build().unwrap();
    let mut request = CreateChatCompletionRequestArgs::default();
    request.model("tiny").messages([message.into()]).build().unwrap()
}

#[tokio::test]
async fn the_openai_client_chats_streams_embeds_and_lists() {
    let edge = Edge::start(&[]);
    let _sim = Sim::start(Some(&edge), "a", &["--model", "vec-embed=0.1", "--hot", "tiny", "--hot", "vec-embed"]);
    edge.wait_for(&["a"]);
    let config = OpenAIConfig::new().with_api_base(format!("http://{}/v1", edge.address)).with_api_key("any");
    let client = Client::with_config(config);

    let answer = client.chat().create(chat()).await.unwrap();
    assert!(answer.choices[0].message.content.as_ref().is_some_and(|text| !text.is_empty()));

    let mut stream = client.chat().create_stream(chat()).await.unwrap();
    let mut chunks = 0;
    while let Some(chunk) = stream.next().await {
        chunk.unwrap();
        chunks += 1;
    }
    assert!(chunks > 2, "{chunks} chunks");

    let request = CreateEmbeddingRequestArgs::default().model("vec-embed").input("hi").build().unwrap();
    let vectors = client.embeddings().create(request).await.unwrap();
    assert!(!vectors.data[0].embedding.is_empty());

    let models = client.models().list().await.unwrap();
    assert!(models.data.iter().any(|model| model.id == "tiny:latest"));
}
