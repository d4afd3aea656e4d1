//! Estimates how many tokens a prompt has, without a tokenizer.

use std::ops::Range;

use super::json::{JsonError, Kind, Scanner};

/// Bytes of text per token. Four is the usual rule of thumb for English; code and other scripts have fewer characters
/// but not fewer bytes per token.
const BYTES_PER_TOKEN: u64 = 4;
/// Tokens that a chat template adds per message or part: role, separators.
const TOKENS_PER_OBJECT: u64 = 4;
/// Tokens of one image. Vision encoders of the models that Ollama runs make 256 to some thousands of them.
const TOKENS_PER_IMAGE: u64 = 256;

/// Counts text and images of the parts of a request that reach the model.
#[derive(Debug, Default)]
pub(super) struct TextCount {
    bytes: u64,
    objects: u64,
    images: u32,
    longest_bytes: u64,
}

impl TextCount {
    /// Counts the value that starts here and returns its range. `image` says that strings in it are images.
    pub(super) fn value(&mut self, scanner: &mut Scanner<'_>, image: bool) -> Result<Range<usize>, JsonError> {
        match scanner.kind()? {
            Kind::String => {
                let range = scanner.string()?;
                if image {
                    self.images = self.images.saturating_add(1);
                } else {
                    let bytes = range.len() as u64 - 2;
                    self.bytes += bytes;
                    self.longest_bytes = self.longest_bytes.max(bytes);
                }
                Ok(range)
            }
            Kind::Array => scanner.array(|scanner| self.value(scanner, image).map(drop)),
            Kind::Object => {
                self.objects += 1;
                scanner.object(|scanner, key, _| self.member(scanner, key))
            }
            Kind::Number | Kind::Bool | Kind::Null => scanner.skip(),
        }
    }

    /// Images hide behind different keys: `images` (Ollama), `image_url` (`OpenAI`), `source` (Anthropic).
    fn member(&mut self, scanner: &mut Scanner<'_>, key: &str) -> Result<(), JsonError> {
        match key {
            "images" => {
                self.value(scanner, true)?;
            }
            "image_url" | "source" => {
                scanner.skip()?;
                self.images = self.images.saturating_add(1);
            }
            _ => {
                self.bytes += key.len() as u64;
                self.value(scanner, false)?;
            }
        }
        Ok(())
    }

    pub(super) fn tokens(&self) -> u64 {
        let text = self.bytes.div_ceil(BYTES_PER_TOKEN);
        text + self.objects * TOKENS_PER_OBJECT + u64::from(self.images) * TOKENS_PER_IMAGE
    }

    /// Tokens of the longest single string.
    pub(super) fn longest_tokens(&self) -> u64 {
        self.longest_bytes.div_ceil(BYTES_PER_TOKEN)
    }

    pub(super) fn images(&self) -> u32 {
        self.images
    }
}
