//! What a routing decision needs to know of a request: the surface it came in on and its profile.

use std::ops::Range;

use crate::launch::Signature;
use crate::name::ModelName;

words! {
    /// One of the inference APIs that Ollama speaks. A request is forwarded on the surface it came in on.
    pub enum Surface {
        /// `POST /api/chat`
        OllamaChat = "ollama_chat",
        /// `POST /api/generate`
        OllamaGenerate = "ollama_generate",
        /// `POST /api/embed`
        OllamaEmbed = "ollama_embed",
        /// `POST /api/embeddings`, the older form of [`Surface::OllamaEmbed`]
        OllamaEmbeddings = "ollama_embeddings",
        /// `POST /v1/chat/completions`
        OpenAiChat = "openai_chat",
        /// `POST /v1/completions`
        OpenAiCompletions = "openai_completions",
        /// `POST /v1/embeddings`
        OpenAiEmbeddings = "openai_embeddings",
        /// `POST /v1/responses`
        OpenAiResponses = "openai_responses",
        /// `POST /v1/messages`
        AnthropicMessages = "anthropic_messages",
        /// `POST /v1/audio/transcriptions`, a form; Ollama 0.20 and later
        OpenAiTranscriptions = "openai_transcriptions",
        /// `POST /v1/images/generations`, of some versions of Ollama
        OpenAiImages = "openai_images",
        /// `POST /v1/images/edits`, of some versions of Ollama
        OpenAiImageEdits = "openai_image_edits",
    }
}

/// The form in which a surface tells errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// `{"error": "..."}`
    Ollama,
    /// `{"error": {"message", "type", "param", "code"}}`
    OpenAi,
    /// `{"type": "error", "error": {"type", "message"}, "request_id"}`
    Anthropic,
}

/// What a model is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Task {
    /// Write text.
    Completion,
    /// Compute embeddings.
    Embedding,
    /// Write down what is said.
    Transcription,
    /// Make a picture.
    Image,
}

impl Surface {
    /// Its path.
    #[must_use]
    pub fn path(self) -> &'static str {
        match self {
            Self::OllamaChat => "/api/chat",
            Self::OllamaGenerate => "/api/generate",
            Self::OllamaEmbed => "/api/embed",
            Self::OllamaEmbeddings => "/api/embeddings",
            Self::OpenAiChat => "/v1/chat/completions",
            Self::OpenAiCompletions => "/v1/completions",
            Self::OpenAiEmbeddings => "/v1/embeddings",
            Self::OpenAiResponses => "/v1/responses",
            Self::AnthropicMessages => "/v1/messages",
            Self::OpenAiTranscriptions => "/v1/audio/transcriptions",
            Self::OpenAiImages => "/v1/images/generations",
            Self::OpenAiImageEdits => "/v1/images/edits",
        }
    }

    /// The surface at `path`.
    #[must_use]
    pub fn at(path: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|surface| surface.path() == path)
    }

    /// How it tells errors.
    #[must_use]
    pub fn dialect(self) -> Dialect {
        match self {
            Self::OllamaChat | Self::OllamaGenerate | Self::OllamaEmbed | Self::OllamaEmbeddings => Dialect::Ollama,
            Self::AnthropicMessages => Dialect::Anthropic,
            _ => Dialect::OpenAi,
        }
    }

    /// What it asks of a model.
    #[must_use]
    pub fn task(self) -> Task {
        match self {
            Self::OllamaEmbed | Self::OllamaEmbeddings | Self::OpenAiEmbeddings => Task::Embedding,
            Self::OpenAiTranscriptions => Task::Transcription,
            Self::OpenAiImages | Self::OpenAiImageEdits => Task::Image,
            _ => Task::Completion,
        }
    }

    /// Whether an answer is streamed when the request has no `stream` field: yes on Ollama's own chat and generate.
    #[must_use]
    pub fn streams_by_default(self) -> bool {
        self.is_native_completion()
    }

    /// Whether its answers can be streamed at all.
    #[must_use]
    pub fn can_stream(self) -> bool {
        self.task() == Task::Completion
    }

    /// Whether an empty conversation on it asks for the model to be loaded or unloaded, and whether it has `think` and
    /// `shift`.
    #[must_use]
    pub fn is_native_completion(self) -> bool {
        matches!(self, Self::OllamaChat | Self::OllamaGenerate)
    }

    /// Whether its requests are forms, not JSON.
    #[must_use]
    pub fn takes_form(self) -> bool {
        self == Self::OpenAiTranscriptions
    }

    /// Whether a request can say `options.num_ctx`; Ollama ignores it elsewhere and uses the node's default.
    #[must_use]
    pub fn carries_num_ctx(self) -> bool {
        self.dialect() == Dialect::Ollama
    }
}

/// The facts of one request. Never its text.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts, each read alone")]
pub struct RequestProfile {
    /// Where it came in.
    pub surface: Surface,
    /// The model it asks for.
    pub model: ModelName,
    /// Models that may serve instead, in the client's order.
    pub fallback_models: Vec<ModelName>,
    /// `fallback`: whether another model may serve when the requested one cannot; `None` = the client does not say.
    pub fallback: Option<bool>,
    /// Whether the answer is streamed.
    pub stream: bool,
    /// `options.num_ctx` in tokens, where given.
    pub num_ctx: Option<u64>,
    /// What it says of the launch of its runner; nothing where the surface has no `options`.
    pub launch: Signature,
    /// Most tokens that the answer may have, where given.
    pub max_output_tokens: Option<u64>,
    /// Estimated tokens of the prompt, attachments included; 0 when there is none.
    pub prompt_tokens: u64,
    /// Those of them that are guessed for attachments: images, audio, files. Nobody knows what an encoder will make of
    /// them, so that they neither exceed a window nor count against a key.
    pub attachment_tokens: u64,
    /// Its conversation, the same for every turn, by how it begins; `None` = its surface has none, or there is none.
    pub conversation: Option<u64>,
    /// Estimated tokens that the window must hold at once: those of the longest input of an embedding request, which
    /// are embedded one by one, else those of the prompt's text.
    pub tokens_at_once: u64,
    /// There is nothing to answer: it asks Ollama to load the model, or to unload it. Only Ollama's own chat and
    /// generate have such requests.
    pub empty: bool,
    /// It asks for nothing but that the model be unloaded.
    pub unloads: bool,
    /// Images in it.
    pub images: u32,
    /// It offers tools.
    pub tools: bool,
    /// It asks the model to think, by `think`, which Ollama's own chat and generate have.
    pub think: bool,
    /// The end user that an `OpenAI` request names in `user`.
    pub user: Option<String>,
    /// Tags by which its application is known, from `metadata.tags`.
    pub tags: Vec<String>,
    /// Bytes of the body as it was read, after decoding.
    pub body_bytes: usize,
    /// Where in the body stands what may be rewritten.
    pub places: Places,
}

/// Byte ranges of a body that herd may rewrite.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Places {
    /// Right after the `{` of the body.
    pub start: usize,
    /// The value of `model`, quotes included.
    pub model: Range<usize>,
    /// The same of members before it that say so too.
    pub model_again: Vec<Range<usize>>,
    /// Values of options that may be replaced, by their names, those that stand there again included.
    pub options: Vec<(&'static str, Range<usize>)>,
    /// Right after the `{` of `options`; and whether it has members.
    pub options_start: Option<(usize, bool)>,
    /// The whole value of `options` when it is null.
    pub options_null: Option<Range<usize>>,
    /// The value of `keep_alive`, where the surface has one.
    pub keep_alive: Option<Range<usize>>,
    /// Members that are herd's alone and not for the backend: `fallback_models`, `fallback`, `metadata.tags`.
    pub private: Vec<Range<usize>>,
    /// What changes with every request at the front of the system prompt, and what pins it.
    pub volatile: Vec<(Range<usize>, &'static str)>,
    /// The body is a form: names stand there as they are, not as JSON.
    pub form: bool,
}

/// Where clients of Anthropic's API ask how many tokens a request has.
pub const COUNT_TOKENS_PATH: &str = "/v1/messages/count_tokens";

/// Tokens of the answer that a window must hold when the request names no limit. A judgement: most chat answers are
/// shorter, and Ollama's own default is unlimited.
pub const DEFAULT_OUTPUT_RESERVE_TOKENS: u64 = 512;

impl RequestProfile {
    /// A request on `surface` for `model` of which nothing else is known.
    #[must_use]
    pub fn of(surface: Surface, model: ModelName) -> Self {
        Self {
            surface,
            model,
            fallback_models: Vec::new(),
            fallback: None,
            stream: false,
            num_ctx: None,
            launch: Signature::DEFAULT,
            max_output_tokens: None,
            prompt_tokens: 0,
            attachment_tokens: 0,
            conversation: None,
            tokens_at_once: 0,
            empty: false,
            unloads: false,
            images: 0,
            tools: false,
            think: false,
            user: None,
            tags: Vec::new(),
            body_bytes: 0,
            places: Places::default(),
        }
    }

    /// Estimated tokens of the prompt's text.
    #[must_use]
    pub fn text_tokens(&self) -> u64 {
        self.prompt_tokens.saturating_sub(self.attachment_tokens)
    }

    /// Window that holds the prompt and a reserve for the answer, in tokens.
    ///
    /// The reserve is at most a prompt's length or the default, whichever is more: clients set huge limits that no
    /// answer reaches, and those must not push every request to the largest window.
    #[must_use]
    pub fn context_needed(&self) -> u64 {
        if self.surface.task() == Task::Embedding {
            return self.tokens_at_once;
        }
        let asked = self.max_output_tokens.unwrap_or(DEFAULT_OUTPUT_RESERVE_TOKENS);
        let ceiling = self.prompt_tokens.max(DEFAULT_OUTPUT_RESERVE_TOKENS);
        self.prompt_tokens.saturating_add(asked.min(ceiling))
    }
}
