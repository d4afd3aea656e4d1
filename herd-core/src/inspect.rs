//! Reads a request body in place: what a decision needs, and where the bytes stand that may be rewritten.
//!
//! Ollama decodes with Go's `encoding/json`, which compares keys without regard to case, lets the last of duplicates win,
//! takes text that is not UTF-8 and reads nothing behind the value. So do we, and what Ollama takes is not refused: what
//! only labels or estimates a request is used as far as it can be. One thing is: a key that stands twice with two
//! meanings, where a request could be routed as one and run as the other.

mod conversation;
mod form;
pub mod json;
mod members;
mod text;
mod value;
mod volatile;

use std::ops::Range;

use crate::launch::{LaunchOptions, Signature};
use crate::name::{ModelName, NameError};
use crate::request::{Dialect, Places, RequestProfile, Surface, Task};
use json::{JsonError, Kind, Scanner};
use members::Members;
use value::{boolean, boolean_or_none, has_content, integer, integer_or_none, label, labels, strings};

pub use form::inspect_form;
pub use volatile::{Line, VOLATILE};

/// How a body is read, and bounds on what it may make us do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InspectLimits {
    /// Deepest nesting, 1 to [`json::DEPTH_CEILING`].
    pub json_depth: u32,
    /// Most entries of `fallback_models`.
    pub fallback_models: usize,
    /// Most entries of `metadata.tags`.
    pub tags: usize,
    /// Whether lines of a system prompt that change with every request are found, to be pinned: see [`VOLATILE`].
    pub stabilise: bool,
}

impl Default for InspectLimits {
    fn default() -> Self {
        Self { json_depth: json::DEPTH_CEILING, fallback_models: 8, tags: 16, stabilise: true }
    }
}

/// So much of a tag is kept, in bytes.
pub const TAG_MAX_BYTES: usize = 64;
/// So much of `user` is kept, in bytes: more than a hash with a prefix has.
pub const USER_MAX_BYTES: usize = 256;

/// Options that may be rewritten, each as often as it stands there; further ones are refused likewise.
const OPTIONS_MAX: usize = 64;
/// Members that may name the model; further ones are refused, so that a body has few places that must be rewritten.
const MODELS_MAX: usize = 8;

/// Why a body is refused. Each is the client's to mend.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InspectError {
    /// There is no body.
    #[error("missing request body")]
    Empty,
    /// It is not JSON, or nests too deeply.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// It is JSON, but not an object.
    #[error("request body must be a JSON object")]
    NotAnObject,
    /// It is not the form that it should be.
    #[error("{0}")]
    Form(&'static str),
    /// There is no model in it.
    #[error("model is required")]
    NoModel,
    /// A key that matters stands twice, with two meanings.
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
    /// A model name is not one.
    #[error("{}", told(key, why))]
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
            Self::Duplicate(key) | Self::WrongType { key, .. } | Self::Name { key, .. } => Some(key),
            _ => None,
        }
    }

    /// The HTTP status that a request on `surface` is refused with, and the words. A request without a model is one for a
    /// model without a name to some of Ollama's handlers.
    #[must_use]
    pub fn told_on(&self, surface: Surface) -> (u16, String) {
        match surface {
            Surface::OllamaGenerate | Surface::OllamaEmbed if *self == Self::NoModel => {
                (404, "model '' not found".to_owned())
            }
            _ => (400, self.to_string()),
        }
    }
}

/// What is wrong with the name at `key`: of `model` in Ollama's words.
fn told(key: &str, why: &NameError) -> String {
    if key == "model" { why.to_string() } else { format!("{key:?}: {why}") }
}

/// Reads `body`, a request on `surface`. What stands behind its first value does not count.
///
/// # Errors
/// When it does not begin with a JSON object, or what matters in that is missing, told twice, or of the wrong type.
pub fn inspect(surface: Surface, body: &[u8], limits: &InspectLimits) -> Result<RequestProfile, InspectError> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Err(InspectError::Empty);
    }
    let mut scanner = Scanner::new(body, limits.json_depth);
    match scanner.kind()? {
        Kind::Object => {}
        kind => {
            scanner.skip()?;
            // `null` is an object without members to Ollama.
            return Err(if kind == Kind::Null { InspectError::NoModel } else { InspectError::NotAnObject });
        }
    }
    let mut found = Found { limits: *limits, ..Found::default() };
    let mut members = Members::default();
    let whole = scanner.object(|scanner, key, key_start| {
        let value = found.member(surface, scanner, key)?;
        members.add(key_start..value.end, known(key, PRIVATE).is_some());
        Ok::<(), InspectError>(())
    })?;
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

/// Members of the body that are read.
const READ: &[&str] = &[
    "model",
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
];

#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts, each read alone")]
struct Found {
    limits: InspectLimits,
    /// One bit per entry of [`LAUNCH`] that has been read.
    launch_seen: u64,
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
    keeps_for_no_time: bool,
    tools: bool,
    think: bool,
    user: Option<String>,
    tags: Vec<String>,
    places: Places,
}

/// The key of the model's name, and the name of a form's part.
const MODEL: &str = "model";

/// Notes that a body names the model `text` at `place`. It may do so several times, as long as all mean one model.
fn note_model(
    model: &mut Option<ModelName>,
    places: &mut Places,
    text: &str,
    place: Range<usize>,
) -> Result<(), InspectError> {
    let name = match ModelName::asked(text) {
        Ok(name) => name,
        Err(NameError::Empty) => return Err(InspectError::NoModel),
        Err(why) => return Err(InspectError::Name { key: MODEL, why }),
    };
    if model.as_ref().is_some_and(|first| *first != name) || places.model_again.len() == MODELS_MAX {
        return Err(InspectError::Duplicate(MODEL));
    }
    if model.replace(name).is_some() {
        places.model_again.push(std::mem::take(&mut places.model));
    }
    places.model = place;
    Ok(())
}

impl Found {
    /// Reads one member of the body; returns the range of its value.
    fn member(&mut self, surface: Surface, scanner: &mut Scanner<'_>, key: &str) -> Result<Range<usize>, InspectError> {
        let Some(key) = known(key, READ) else { return Ok(scanner.skip()?) };
        match key {
            "model" => self.model(scanner),
            "stream" if surface.can_stream() => {
                let (told, range) = boolean(scanner, key)?;
                self.stream = told.or(self.stream);
                Ok(range)
            }
            "options" if surface.carries_num_ctx() => self.options(scanner),
            "fallback_models" => self.fallback_models(scanner),
            "fallback" => Ok(store(&mut self.fallback, boolean(scanner, key)?)),
            "metadata" => self.metadata(scanner),
            "tools" => self.tools(scanner),
            "think" => self.think(scanner),
            "shift" => self.shift(scanner),
            "user" if surface.dialect() == Dialect::OpenAi => self.user(scanner),
            "max_tokens" | "max_completion_tokens" | "max_output_tokens" => {
                let (value, range) = integer_or_none(scanner)?;
                self.max_output_tokens = self.max_output_tokens.max(value.and_then(|v| u64::try_from(v).ok()));
                Ok(range)
            }
            "keep_alive" => {
                let range = scanner.skip()?;
                self.keeps_for_no_time = value::is_no_time(scanner.slice(&range));
                self.places.keep_alive = Some(range.clone()).filter(|_| surface.dialect() == Dialect::Ollama);
                Ok(range)
            }
            "user" | "stream" | "options" => Ok(scanner.skip()?),
            _ => self.text(surface, scanner, key),
        }
    }

    fn model(&mut self, scanner: &mut Scanner<'_>) -> Result<Range<usize>, InspectError> {
        if scanner.kind()? != Kind::String {
            let is_null = scanner.kind()? == Kind::Null;
            let range = scanner.skip()?;
            // Ollama reads null as nothing said.
            return if is_null { Ok(range) } else { Err(InspectError::WrongType { key: MODEL, expected: "a string" }) };
        }
        let range = scanner.string()?;
        note_model(&mut self.model, &mut self.places, &scanner.text(&range), range.clone())?;
        Ok(range)
    }

    fn text(
        &mut self,
        surface: Surface,
        scanner: &mut Scanner<'_>,
        key: &'static str,
    ) -> Result<Range<usize>, InspectError> {
        let range = match key {
            "messages" | "input" if scanner.kind()? == Kind::Array => scanner.array(|scanner| self.message(scanner))?,
            "images" => self.text.images_member(scanner)?,
            _ => self.text.value(scanner)?,
        };
        if self.limits.stabilise && matches!(key, "system" | "instructions") {
            volatile::in_prompt(scanner, &range, &mut self.places.volatile);
        }
        let question = if surface == Surface::OllamaChat { "messages" } else { "prompt" };
        self.has_content |= key == question && has_content(scanner, &range);
        Ok(range)
    }

    fn message(&mut self, scanner: &mut Scanner<'_>) -> Result<(), JsonError> {
        let range = self.text.value(scanner)?;
        if self.conversation.is_complete() {
            return Ok(());
        }
        let before = self.places.volatile.len();
        if self.limits.stabilise {
            volatile::in_message(scanner, &range, &mut self.places.volatile);
        }
        let message = scanner.slice(&range);
        self.conversation.add(&volatile::pinned(message, range.start, &self.places.volatile[before..]));
        Ok(())
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
        let (told, range) = label(scanner, USER_MAX_BYTES)?;
        self.user = told;
        Ok(range)
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
                const KEY: &str = "options.num_ctx";
                let (value, range) = integer(scanner, KEY)?;
                // Ollama raises anything below 4 to 4, negative numbers included.
                let num_ctx = value.map(|v| u64::try_from(v).unwrap_or(0).max(4));
                let again = self.places.options.iter().any(|(known, _)| *known == "num_ctx");
                if self.places.options.len() >= OPTIONS_MAX {
                    return Err(InspectError::Duplicate(KEY));
                }
                self.places.options.push(("num_ctx", range));
                if again && self.num_ctx != num_ctx {
                    return Err(InspectError::Duplicate(KEY));
                }
                self.num_ctx = num_ctx;
            }
            "num_predict" => {
                let (value, _) = integer(scanner, "options.num_predict")?;
                self.max_output_tokens = value.and_then(|v| u64::try_from(v).ok());
            }
            _ => self.launch_option(scanner, key)?,
        }
        Ok(())
    }

    /// Reads one of [`LAUNCH`], or passes over what else it is. Ollama answers a wrong type itself.
    fn launch_option(&mut self, scanner: &mut Scanner<'_>, key: &str) -> Result<(), InspectError> {
        let Some(name) = LAUNCH.iter().find(|name| name.strip_prefix("options.") == Some(key)) else {
            scanner.skip()?;
            return Ok(());
        };
        let (before, bit) = (self.launch, LAUNCH.iter().position(|one| one == name).map_or(0, |index| 1 << index));
        let again = self.launch_seen & bit != 0;
        self.launch_seen |= bit;
        if self.places.options.len() >= OPTIONS_MAX {
            return Err(InspectError::Duplicate(name));
        }
        let short = name.strip_prefix("options.").unwrap_or(name);
        if key == "use_mmap" {
            let (value, range) = boolean_or_none(scanner)?;
            self.places.options.push((short, range));
            self.launch.use_mmap = value;
        } else {
            let (value, range) = integer_or_none(scanner)?;
            self.places.options.push((short, range));
            match key {
                "num_batch" => self.launch.num_batch = value,
                "num_thread" => self.launch.num_thread = value,
                "main_gpu" => self.launch.main_gpu = value,
                "draft_num_predict" => self.launch.draft_num_predict = value,
                _ => self.launch.num_gpu = value.filter(|layers| *layers >= 0),
            }
        }
        if again && self.launch != before { Err(InspectError::Duplicate(name)) } else { Ok(()) }
    }

    fn fallback_models(&mut self, scanner: &mut Scanner<'_>) -> Result<Range<usize>, InspectError> {
        const KEY: &str = "fallback_models";
        let limit = self.limits.fallback_models;
        let mut models = Vec::new();
        let range = strings(scanner, KEY, |text| {
            let model = ModelName::asked(text).map_err(|why| InspectError::Name { key: KEY, why })?;
            if models.len() < limit {
                models.push(model);
            }
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
        let (told, range) = labels(scanner, self.limits.tags, TAG_MAX_BYTES)?;
        self.tags = told;
        Ok(range)
    }

    fn tools(&mut self, scanner: &mut Scanner<'_>) -> Result<Range<usize>, InspectError> {
        let kind = scanner.kind()?;
        let range = self.text.plain(scanner)?;
        self.tools |= kind == Kind::Array && has_content(scanner, &range);
        Ok(range)
    }

    fn into_profile(self, surface: Surface, body_bytes: usize) -> Result<RequestProfile, InspectError> {
        let native = surface.is_native_completion();
        let launch = LaunchOptions { no_shift: self.launch.no_shift && native, ..self.launch };
        let prompt_tokens = self.text.tokens();
        let one_by_one = surface.task() == Task::Embedding;
        let model = self.model.ok_or(InspectError::NoModel)?;
        let empty = native && self.text.attachments() == 0 && !self.has_content;
        Ok(RequestProfile {
            fallback_models: self.fallback_models,
            fallback: self.fallback,
            stream: surface.can_stream() && self.stream.unwrap_or(surface.streams_by_default()),
            num_ctx: self.num_ctx.filter(|_| surface.carries_num_ctx()),
            launch: if surface.carries_num_ctx() { Signature::new(&launch) } else { Signature::DEFAULT },
            max_output_tokens: self.max_output_tokens,
            prompt_tokens,
            attachment_tokens: self.text.attachment_tokens(),
            conversation: self.conversation.hash().filter(|_| !one_by_one),
            tokens_at_once: if one_by_one { self.text.longest_tokens() } else { self.text.text_tokens() },
            empty,
            unloads: empty && self.keeps_for_no_time,
            images: self.text.images(),
            tools: self.tools,
            think: self.think && native,
            user: self.user,
            tags: self.tags,
            body_bytes,
            places: self.places,
            ..RequestProfile::of(surface, model)
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
