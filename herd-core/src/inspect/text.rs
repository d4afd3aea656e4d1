//! Estimates how many tokens a prompt has, without a tokenizer. Attachments are no text, in whatever form they come.

use std::ops::Range;

use super::json::{JsonError, Kind, Scanner};

/// Bytes of text per token. Four is the usual rule of thumb for English; code and other scripts have fewer characters
/// but not fewer bytes per token.
const BYTES_PER_TOKEN: u64 = 4;
/// Tokens that a chat template adds per message or part: role, separators.
const TOKENS_PER_OBJECT: u64 = 4;
/// Tokens of one image. Vision encoders of the models that Ollama runs make 256 to some thousands of them.
const TOKENS_PER_IMAGE: u64 = 256;
/// Bytes of base64 for one token of audio: 16 bit at 16 kHz, of which encoders make about 25 tokens a second.
const AUDIO_BYTES_PER_TOKEN: u64 = 1_706;
/// Bytes of base64 for one token of a file of another kind. A guess: most of a PDF is not text.
const FILE_BYTES_PER_TOKEN: u64 = 64;
/// The fewest and the most tokens that audio or a file is taken for.
const ATTACHMENT_TOKENS: std::ops::RangeInclusive<u64> = 32..=2_048;
/// A string of at least so many bytes that is nothing but base64 is an attachment, where it is not said to be text.
const BASE64_MIN_BYTES: usize = 1_024;
/// Objects and lists within each other that are looked into; what is deeper is taken for text.
const DEPTH_MAX: u32 = 64;

/// Keys whose strings reach the model as they are.
const TEXT: &[&str] =
    &["text", "content", "prompt", "system", "role", "thinking", "arguments", "name", "type", "title"];
/// Keys below which there is a program's data, whose keys are its own.
const PLAIN: &[&str] = &["tools", "functions", "tool_calls", "function", "parameters", "input_schema", "arguments"];

/// What is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attachment {
    Image,
    Audio,
    File,
}

impl Attachment {
    fn of_media_type(text: &str) -> Self {
        match text.split('/').next() {
            Some("image") => Self::Image,
            Some("audio") => Self::Audio,
            _ => Self::File,
        }
    }

    fn tokens(self, bytes: u64) -> u64 {
        let (least, most) = (*ATTACHMENT_TOKENS.start(), *ATTACHMENT_TOKENS.end());
        match self {
            Self::Image => TOKENS_PER_IMAGE,
            Self::Audio => (bytes / AUDIO_BYTES_PER_TOKEN).clamp(least, most),
            Self::File => (bytes / FILE_BYTES_PER_TOKEN).clamp(least, most),
        }
    }
}

/// Counts text and attachments of the parts of a request that reach the model.
#[derive(Debug, Default)]
pub(super) struct TextCount {
    bytes: u64,
    objects: u64,
    images: u32,
    attachments: u32,
    attachment_tokens: u64,
    longest_bytes: u64,
    depth: u32,
    /// Below one of [`PLAIN`].
    plain: u32,
}

impl TextCount {
    /// Counts the value that starts here and returns its range.
    pub(super) fn value(&mut self, scanner: &mut Scanner<'_>) -> Result<Range<usize>, JsonError> {
        let kind = scanner.kind()?;
        if self.depth == DEPTH_MAX && matches!(kind, Kind::Array | Kind::Object) {
            let range = scanner.skip()?;
            self.bytes += range.len() as u64;
            return Ok(range);
        }
        self.depth += 1;
        let range = match kind {
            Kind::String => {
                let range = scanner.string()?;
                self.text(&range);
                Ok(range)
            }
            Kind::Array => scanner.array(|scanner| self.value(scanner).map(drop)),
            Kind::Object => {
                self.objects += 1;
                scanner.object(|scanner, key, _| self.member(scanner, key))
            }
            Kind::Number | Kind::Bool | Kind::Null => scanner.skip(),
        };
        self.depth -= 1;
        range
    }

    /// The same where there is nothing attached, whatever a key is.
    pub(super) fn plain(&mut self, scanner: &mut Scanner<'_>) -> Result<Range<usize>, JsonError> {
        self.plain += 1;
        let range = self.value(scanner);
        self.plain -= 1;
        range
    }

    /// `images` as Ollama has them: strings, each an image.
    pub(super) fn images_member(&mut self, scanner: &mut Scanner<'_>) -> Result<Range<usize>, JsonError> {
        match scanner.kind()? {
            Kind::Array => scanner.array(|scanner| match scanner.kind()? {
                Kind::String => {
                    let range = scanner.string()?;
                    self.attach(Attachment::Image, range.len());
                    Ok(())
                }
                _ => self.value(scanner).map(drop),
            }),
            Kind::String => {
                let range = scanner.string()?;
                self.attach(Attachment::Image, range.len());
                Ok(range)
            }
            _ => self.value(scanner),
        }
    }

    /// Attachments stand below keys of their own: `images` (Ollama), `image_url`, `input_audio`, `file` (`OpenAI`),
    /// `source` (Anthropic), and as base64 below any other that is not text.
    fn member(&mut self, scanner: &mut Scanner<'_>, key: &str) -> Result<(), JsonError> {
        if PLAIN.contains(&key) {
            self.bytes += key.len() as u64;
            return self.plain(scanner).map(drop);
        }
        if self.plain > 0 || TEXT.contains(&key) {
            self.bytes += key.len() as u64;
            return self.value(scanner).map(drop);
        }
        let kind = scanner.kind()?;
        let whole = |kind: Kind| matches!(kind, Kind::Object | Kind::String);
        match key {
            "images" => {
                self.images_member(scanner)?;
            }
            "image_url" if whole(kind) => self.attached(scanner, Attachment::Image)?,
            "input_audio" | "audio_url" if whole(kind) => self.attached(scanner, Attachment::Audio)?,
            "video_url" | "input_video" if whole(kind) => self.attached(scanner, Attachment::File)?,
            "file_data" | "file_url" | "file_id" if kind == Kind::String => self.attached(scanner, Attachment::File)?,
            "source" if kind == Kind::Object => self.source(scanner)?,
            _ if kind == Kind::String => self.other(scanner, key)?,
            _ => {
                self.bytes += key.len() as u64;
                self.value(scanner)?;
            }
        }
        Ok(())
    }

    fn attached(&mut self, scanner: &mut Scanner<'_>, attachment: Attachment) -> Result<(), JsonError> {
        let range = scanner.skip()?;
        self.attach(attachment, range.len());
        Ok(())
    }

    fn attach(&mut self, attachment: Attachment, bytes: usize) {
        self.attachments = self.attachments.saturating_add(1);
        self.images = self.images.saturating_add(u32::from(attachment == Attachment::Image));
        self.attachment_tokens = self.attachment_tokens.saturating_add(attachment.tokens(bytes as u64));
    }

    /// The source of one of Anthropic's blocks: an image or a file, or the text of a document.
    fn source(&mut self, scanner: &mut Scanner<'_>) -> Result<(), JsonError> {
        let begin = scanner.clone();
        let (mut is_text, mut attachment) = (false, Attachment::Image);
        let range = scanner.object(|scanner, key, _| {
            let value = scanner.skip()?;
            match key {
                "type" => is_text = matches!(scanner.slice(&value), b"\"text\"" | b"\"content\""),
                "media_type" => {
                    let text = String::from_utf8_lossy(scanner.slice(&value)).into_owned();
                    attachment = Attachment::of_media_type(text.trim_matches('"'));
                }
                _ => {}
            }
            Ok::<(), JsonError>(())
        })?;
        if is_text {
            return self.plain(&mut begin.clone()).map(drop);
        }
        self.attach(attachment, range.len());
        Ok(())
    }

    /// A string below a key that says nothing: text, unless it is base64.
    fn other(&mut self, scanner: &mut Scanner<'_>, key: &str) -> Result<(), JsonError> {
        let range = scanner.string()?;
        if let Some(attachment) = attached_as(&scanner.slice(&range)[1..range.len() - 1]) {
            self.attach(attachment, range.len());
        } else {
            self.bytes += key.len() as u64;
            self.text(&range);
        }
        Ok(())
    }

    fn text(&mut self, string: &Range<usize>) {
        let bytes = string.len() as u64 - 2;
        self.bytes += bytes;
        self.longest_bytes = self.longest_bytes.max(bytes);
    }

    /// Counts a file of audio that comes as it is, not as base64.
    pub(super) fn audio(&mut self, bytes: usize) {
        self.attach(Attachment::Audio, bytes.saturating_mul(4) / 3);
    }

    /// Counts so many bytes of text.
    pub(super) fn plain_text(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
        self.longest_bytes = self.longest_bytes.max(bytes as u64);
    }

    /// Tokens of text and attachments.
    pub(super) fn tokens(&self) -> u64 {
        self.text_tokens().saturating_add(self.attachment_tokens)
    }

    /// Tokens of the text alone.
    pub(super) fn text_tokens(&self) -> u64 {
        self.bytes.div_ceil(BYTES_PER_TOKEN) + self.objects * TOKENS_PER_OBJECT
    }

    pub(super) fn attachment_tokens(&self) -> u64 {
        self.attachment_tokens
    }

    /// Tokens of the longest single string.
    pub(super) fn longest_tokens(&self) -> u64 {
        self.longest_bytes.div_ceil(BYTES_PER_TOKEN)
    }

    pub(super) fn images(&self) -> u32 {
        self.images
    }

    pub(super) fn attachments(&self) -> u32 {
        self.attachments
    }
}

/// What the inside of a string is, if it is a data URI or long and nothing but base64.
fn attached_as(text: &[u8]) -> Option<Attachment> {
    const URI_FRONT_BYTES: usize = 256;
    if let Some(rest) = text.strip_prefix(b"data:") {
        let front = String::from_utf8_lossy(&rest[..rest.len().min(URI_FRONT_BYTES)]).into_owned();
        return front.contains(";base64,").then(|| Attachment::of_media_type(&front));
    }
    // JSON may write a slash with a backslash.
    let is_base64 = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/=_-\\".contains(byte);
    (text.len() >= BASE64_MIN_BYTES && text.iter().all(is_base64)).then_some(Attachment::File)
}
