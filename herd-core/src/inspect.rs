//! Reads a request body in place: what a decision needs, and where the bytes stand that may be rewritten.
//!
//! Ollama decodes with Go's `encoding/json`, which compares keys without regard to case and lets the last of
//! duplicates win. A router that read `model` otherwise could be made to route for one model and run another, so keys
//! compare as Go compares them and a duplicate of a key that matters is refused.

mod conversation;
pub mod json;
mod members;
mod text;
mod value;

use std::ops::Range;

use crate::launch::{LaunchOptions, Signature};
use crate::name::{ModelName, NameError};
use crate::request::{Dialect, Places, RequestProfile, Surface, Task};
use json::{JsonError, Kind, Scanner};
use members::Members;
use value::{boolean, boolean_or_none, has_content, integer, integer_or_none, strings};

/// Bounds on what a body may make us do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InspectLimits {
    /// Deepest nesting, 1 to [`json::DEPTH_CEILING`].
    pub json_depth: u32,
    /// Most entries of `fallback_models`.
    pub fallback_models: usize,
    /// Most entries of `metadata.tags`.
    pub tags: usize,
}

impl Default for InspectLimits {
    fn default() -> Self {
        Self { json_depth: 64, fallback_models: 8, tags: 16 }
    }
}

/// Longest tag in bytes.
pub const TAG_MAX_BYTES: usize = 64;
/// Longest `user` in bytes: more than a hash with a prefix has.
pub const USER_MAX_BYTES: usize = 256;

/// Why a body is refused. Each is the client's to mend: 400.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InspectError {
    /// There is no body.
    #[error("missing request body")]
    Empty,
    /// It is not text.
    #[error("request body is not valid UTF-8")]
    NotUtf8,
    /// It is not JSON, or nests too deeply.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// It is JSON, but not an object.
    #[error("request body must be a JSON object")]
    NotAnObject,
    /// There is no model in it.
    #[error("model is required")]
    NoModel,
    /// A key that matters stands twice.
    #[error("duplicate key {0:?}")]
    Duplicate(&'static str),
    /// A value has the wrong type.
    #[error("{key:?} must be {expected}")]
    WrongType {
        /// The key, dotted.
        key: &'static str,
        /// What it should be.
        expected: &'static str,
    },
    /// A list has too many entries or an entry is too long.
    #[error("{key:?} exceeds its limit of {limit}")]
    TooMuch {
        /// The key, dotted.
        key: &'static str,
        /// The limit.
        limit: usize,
    },
    /// A model name is not one.
    #[error("{key:?} {why}")]
    Name {
        /// The key.
        key: &'static str,
        /// What is wrong with it.
        why: NameError,
    },
}

impl InspectError {
    /// The key that is at fault, where there is one.
    #[must_use]
    pub fn param(&self) -> Option<&'static str> {
        match self {
            Self::NoModel => Some("model"),
            Self::Duplicate(key) | Self::WrongType { key, .. } | Self::TooMuch { key, .. } | Self::Name { key, .. } => {
                Some(key)
            }
            _ => None,
        }
    }
}

/// Reads `body`, a request on `surface`.
///
/// # Errors
/// When the whole of it is not one JSON object, or what matters in it is missing, doubled, of the wrong type or over a
/// limit.
pub fn inspect(surface: Surface, body: &[u8], limits: &InspectLimits) -> Result<RequestProfile, InspectError> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Err(InspectError::Empty);
    }
    std::str::from_utf8(body).map_err(|_| InspectError::NotUtf8)?;
    let mut scanner = Scanner::new(body, limits.json_depth);
    if scanner.kind()? != Kind::Object {
        scanner.skip()?;
        return Err(InspectError::NotAnObject);
    }
    let mut found = Found { limits: *limits, ..Found::default() };
    let mut members = Members::default();
    let whole = scanner.object(|scanner, key, key_start| {
        let value = found.member(surface, scanner, key)?;
        members.add(key_start..value.end, known(key, PRIVATE).is_some());
        Ok::<(), InspectError>(())
    })?;
    scanner.finish()?;
    found.places.start = whole.start + 1;
    found.places.private.extend(members.cuts());
    found.into_profile(surface, body.len())
}

/// Whether `key` is `name`, as Go's decoder compares: without case, the long s and the Kelvin sign being letters too.
fn is_key(key: &str, name: &str) -> bool {
    if key.is_ascii() {
        return key.eq_ignore_ascii_case(name);
    }
    let folded = key.chars().map(|c| match c {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        c => c.to_ascii_lowercase(),
    });
    folded.eq(name.chars())
}

/// The one of `names` that `key` is.
fn known(key: &str, names: &[&'static str]) -> Option<&'static str> {
    names.iter().find(|name| is_key(key, name)).copied()
}

/// Members of the body that are herd's alone.
const PRIVATE: &[&str] = &["fallback_models", "fallback"];

/// Options that launch a runner, for which see [`LaunchOptions`].
const LAUNCH: &[&str] = &[
    "options.num_batch",
    "options.num_thread",
    "options.main_gpu",
    "options.draft_num_predict",
    "options.use_mmap",
    "options.num_gpu",
];

/// Keys that may stand once, the members of the body first. At most 64.
const ONCE: &[&str] = &[
    "model",
    "name",
    "stream",
    "options",
    "fallback_models",
    "metadata",
    "tools",
    "max_tokens",
    "max_completion_tokens",
    "max_output_tokens",
    "images",
    "messages",
    "prompt",
    "system",
    "suffix",
    "input",
    "instructions",
    "template",
    "fallback",
    "think",
    "shift",
    "user",
    "keep_alive",
    "options.num_ctx",
    "options.num_predict",
    "options.num_batch",
    "options.num_thread",
    "options.main_gpu",
    "options.draft_num_predict",
    "options.use_mmap",
    "options.num_gpu",
    "metadata.tags",
];

#[derive(Default)]
struct Found {
    limits: InspectLimits,
    /// One bit per entry of [`ONCE`].
    seen: u64,
    model: Option<ModelName>,
    fallback_models: Vec<ModelName>,
    fallback: Option<bool>,
    stream: Option<bool>,
    num_ctx: Option<u64>,
    launch: LaunchOptions,
    max_output_tokens: Option<u64>,
    text: text::TextCount,
    conversation: conversation::Head,
    has_content: bool,
    tools: bool,
    think: bool,
    user: Option<String>,
    tags: Vec<String>,
    places: Places,
}

impl Found {
    fn once(&mut self, key: &'static str) -> Result<(), InspectError> {
        let bit = ONCE.iter().position(|name| *name == key).map_or(0, |index| 1 << index);
        if self.seen & bit != 0 {
            return Err(InspectError::Duplicate(key));
        }
        self.seen |= bit;
        Ok(())
    }

    /// Reads one member of the body; returns the range of its value.
    fn member(&mut self, surface: Surface, scanner: &mut Scanner<'_>, key: &str) -> Result<Range<usize>, InspectError> {
        let Some(key) = known(key, ONCE).filter(|name| !name.contains('.')) else { return Ok(scanner.skip()?) };
        self.once(key)?;
        match key {
            "model" => self.model(scanner),
            "stream" => Ok(store(&mut self.stream, boolean(scanner, key)?)),
            "options" => self.options(scanner),
            "fallback_models" => self.fallback_models(scanner),
            "fallback" => Ok(store(&mut self.fallback, boolean(scanner, key)?)),
            "metadata" => self.metadata(scanner),
            "tools" => self.tools(scanner),
            "think" => self.think(scanner),
            "shift" => self.shift(scanner),
            "user" if surface.dialect() == Dialect::OpenAi => self.user(scanner),
            "max_tokens" | "max_completion_tokens" | "max_output_tokens" => {
                let (value, range) = integer(scanner, key)?;
                self.max_output_tokens = self.max_output_tokens.max(value.and_then(|v| u64::try_from(v).ok()));
                Ok(range)
            }
            "keep_alive" => {
                let range = scanner.skip()?;
                self.places.keep_alive = Some(range.clone()).filter(|_| surface.dialect() == Dialect::Ollama);
                Ok(range)
            }
            "name" | "user" => Ok(scanner.skip()?),
            _ => self.text(surface, scanner, key),
        }
    }

    fn model(&mut self, scanner: &mut Scanner<'_>) -> Result<Range<usize>, InspectError> {
        if scanner.kind()? != Kind::String {
            let is_null = scanner.kind()? == Kind::Null;
            scanner.skip()?;
            return Err(if is_null {
                InspectError::NoModel
            } else {
                InspectError::WrongType { key: "model", expected: "a string" }
            });
        }
        let range = scanner.string()?;
        let name = scanner.text(&range);
        if name.is_empty() {
            return Err(InspectError::NoModel);
        }
        self.model = Some(ModelName::new(&name).map_err(|why| InspectError::Name { key: "model", why })?);
        self.places.model = range.clone();
        Ok(range)
    }

    fn text(
        &mut self,
        surface: Surface,
        scanner: &mut Scanner<'_>,
        key: &'static str,
    ) -> Result<Range<usize>, InspectError> {
        let range = if matches!(key, "messages" | "input") && scanner.kind()? == Kind::Array {
            let Self { text, conversation, .. } = self;
            scanner.array(|scanner| {
                let message = text.value(scanner, false)?;
                conversation.add(scanner.slice(&message));
                Ok::<(), JsonError>(())
            })?
        } else {
            self.text.value(scanner, key == "images")?
        };
        let question = if surface == Surface::OllamaChat { "messages" } else { "prompt" };
        self.has_content |= key == question && has_content(scanner, &range);
        Ok(range)
    }

    /// `true` or the name of a level; of what else it is, the backend is the judge.
    fn think(&mut self, scanner: &mut Scanner<'_>) -> Result<Range<usize>, InspectError> {
        let kind = scanner.kind()?;
        let (told, range) = boolean_or_none(scanner)?;
        self.think = told == Some(true) || (kind == Kind::String && has_content(scanner, &range));
        Ok(range)
    }

    fn shift(&mut self, scanner: &mut Scanner<'_>) -> Result<Range<usize>, InspectError> {
        let (told, range) = boolean_or_none(scanner)?;
        self.launch.no_shift = told == Some(false);
        Ok(range)
    }

    fn user(&mut self, scanner: &mut Scanner<'_>) -> Result<Range<usize>, InspectError> {
        const KEY: &str = "user";
        match scanner.kind()? {
            Kind::Null => Ok(scanner.skip()?),
            Kind::String => {
                let range = scanner.string()?;
                let text = scanner.text(&range);
                if text.len() > USER_MAX_BYTES {
                    return Err(InspectError::TooMuch { key: KEY, limit: USER_MAX_BYTES });
                }
                self.user = Some(text.into_owned()).filter(|text| !text.is_empty());
                Ok(range)
            }
            _ => Err(InspectError::WrongType { key: KEY, expected: "a string" }),
        }
    }

    fn options(&mut self, scanner: &mut Scanner<'_>) -> Result<Range<usize>, InspectError> {
        match scanner.kind()? {
            Kind::Object => {}
            Kind::Null => {
                let range = scanner.skip()?;
                self.places.options_null = Some(range.clone());
                return Ok(range);
            }
            _ => return Err(InspectError::WrongType { key: "options", expected: "an object" }),
        }
        let mut has_members = false;
        let range = scanner.object(|scanner, key, _| {
            has_members = true;
            self.option(scanner, key)
        })?;
        self.places.options_start = Some((range.start + 1, has_members));
        Ok(range)
    }

    fn option(&mut self, scanner: &mut Scanner<'_>, key: &str) -> Result<(), InspectError> {
        // Options are a map to Ollama, so that these keys compare exactly.
        match key {
            "num_ctx" => {
                self.once("options.num_ctx")?;
                let (value, range) = integer(scanner, "options.num_ctx")?;
                // Ollama raises anything below 4 to 4, negative numbers included.
                self.num_ctx = value.map(|v| u64::try_from(v).unwrap_or(0).max(4));
                self.places.num_ctx = Some(range);
            }
            "num_predict" => {
                self.once("options.num_predict")?;
                let (value, _) = integer(scanner, "options.num_predict")?;
                self.max_output_tokens = value.and_then(|v| u64::try_from(v).ok());
            }
            _ => self.launch_option(scanner, key)?,
        }
        Ok(())
    }

    /// Reads one of [`LAUNCH`], or passes over what else it is. Ollama answers a wrong type itself.
    fn launch_option(&mut self, scanner: &mut Scanner<'_>, key: &str) -> Result<(), InspectError> {
        let names = LAUNCH.iter().find(|name| name.strip_prefix("options.") == Some(key));
        let Some(name) = names.copied() else {
            scanner.skip()?;
            return Ok(());
        };
        self.once(name)?;
        if key == "use_mmap" {
            self.launch.use_mmap = boolean_or_none(scanner)?.0;
            return Ok(());
        }
        let (value, _) = integer_or_none(scanner)?;
        match key {
            "num_batch" => self.launch.num_batch = value,
            "num_thread" => self.launch.num_thread = value,
            "main_gpu" => self.launch.main_gpu = value,
            "draft_num_predict" => self.launch.draft_num_predict = value,
            _ => self.launch.num_gpu = value.filter(|layers| *layers >= 0),
        }
        Ok(())
    }

    fn fallback_models(&mut self, scanner: &mut Scanner<'_>) -> Result<Range<usize>, InspectError> {
        const KEY: &str = "fallback_models";
        let limit = self.limits.fallback_models;
        let mut models = Vec::new();
        let range = strings(scanner, KEY, limit, |text| {
            models.push(ModelName::new(text).map_err(|why| InspectError::Name { key: KEY, why })?);
            Ok(())
        })?;
        self.fallback_models = models;
        Ok(range)
    }

    fn metadata(&mut self, scanner: &mut Scanner<'_>) -> Result<Range<usize>, InspectError> {
        if scanner.kind()? != Kind::Object {
            return Ok(scanner.skip()?);
        }
        let mut members = Members::default();
        let range = scanner.object(|scanner, key, key_start| {
            let is_tags = key == "tags";
            let value = if is_tags { self.tags(scanner)? } else { scanner.skip()? };
            members.add(key_start..value.end, is_tags);
            Ok::<(), InspectError>(())
        })?;
        self.places.private.extend(members.cuts());
        Ok(range)
    }

    fn tags(&mut self, scanner: &mut Scanner<'_>) -> Result<Range<usize>, InspectError> {
        const KEY: &str = "metadata.tags";
        self.once(KEY)?;
        let limit = self.limits.tags;
        let mut tags = Vec::new();
        let range = strings(scanner, KEY, limit, |text| {
            if text.len() > TAG_MAX_BYTES {
                return Err(InspectError::TooMuch { key: KEY, limit: TAG_MAX_BYTES });
            }
            tags.push(text.to_owned());
            Ok(())
        })?;
        self.tags = tags;
        Ok(range)
    }

    fn tools(&mut self, scanner: &mut Scanner<'_>) -> Result<Range<usize>, InspectError> {
        let kind = scanner.kind()?;
        let range = self.text.value(scanner, false)?;
        self.tools = kind == Kind::Array && has_content(scanner, &range);
        Ok(range)
    }

    fn into_profile(self, surface: Surface, body_bytes: usize) -> Result<RequestProfile, InspectError> {
        let native = surface.is_native_completion();
        let launch = LaunchOptions { no_shift: self.launch.no_shift && native, ..self.launch };
        let prompt_tokens = self.text.tokens();
        let one_by_one = surface.task() == Task::Embedding;
        Ok(RequestProfile {
            surface,
            model: self.model.ok_or(InspectError::NoModel)?,
            fallback_models: self.fallback_models,
            fallback: self.fallback,
            stream: surface.can_stream() && self.stream.unwrap_or(surface.streams_by_default()),
            num_ctx: self.num_ctx.filter(|_| surface.carries_num_ctx()),
            launch: if surface.carries_num_ctx() { Signature::new(&launch) } else { Signature::DEFAULT },
            max_output_tokens: self.max_output_tokens,
            prompt_tokens,
            conversation: self.conversation.hash().filter(|_| !one_by_one),
            tokens_at_once: if one_by_one { self.text.longest_tokens() } else { prompt_tokens },
            empty: native && self.text.images() == 0 && !self.has_content,
            images: self.text.images(),
            tools: self.tools,
            think: self.think && native,
            user: self.user,
            tags: self.tags,
            body_bytes,
            places: self.places,
        })
    }
}

/// Keeps what was read and gives its range on.
fn store<T>(place: &mut T, (value, range): (T, Range<usize>)) -> Range<usize> {
    *place = value;
    range
}

#[cfg(test)]
mod tests;
