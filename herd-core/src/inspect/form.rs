//! Reads a `multipart/form-data` body in place: the model that it names, and where.
//!
//! Ollama reads forms with Go's `mime/multipart`. What that would read as another model than we do is refused: a name in
//! the query, in an encoding of its own, in a file, or twice with two meanings.

use std::ops::Range;

use super::text::TextCount;
use super::{InspectError, note_model};
use crate::name::ModelName;
use crate::path::unescape;
use crate::request::{Places, RequestProfile, Surface};

/// Parts that are looked at; Go's own limit is 1,000.
const PARTS_MAX: usize = 1_000;
/// Largest header of one part, in bytes; Go's limit on all of a form is 10 MiB.
const HEADER_MAX_BYTES: usize = 64 << 10;

/// Reads `body`, a form on `surface` with this `content_type` and the `query` of its URL.
///
/// # Errors
/// When it is no form, names no model, or could be read as naming another one.
pub fn inspect_form(
    surface: Surface,
    content_type: &str,
    query: Option<&str>,
    body: &[u8],
) -> Result<RequestProfile, InspectError> {
    if query.is_some_and(|query| query.split('&').any(names_model)) {
        return Err(InspectError::Form("the model is named in the query; name it in the form"));
    }
    let boundary =
        boundary(content_type).ok_or(InspectError::Form("multipart/form-data with a boundary is required"))?;
    let mut found = Found::default();
    for part in Parts::new(body, &boundary) {
        found.part(body, part?)?;
    }
    let tokens = found.text.tokens();
    Ok(RequestProfile {
        prompt_tokens: tokens,
        attachment_tokens: found.text.attachment_tokens(),
        tokens_at_once: found.text.text_tokens(),
        body_bytes: body.len(),
        places: Places { form: true, ..found.places },
        ..RequestProfile::of(surface, found.model.ok_or(InspectError::NoModel)?)
    })
}

/// Whether one pair of a query sets `model`. Go passes over pairs that do not decode.
fn names_model(pair: &str) -> bool {
    unescape(pair.split('=').next().unwrap_or_default()).as_deref() == Some("model")
}

#[derive(Default)]
struct Found {
    model: Option<ModelName>,
    text: TextCount,
    places: Places,
}

impl Found {
    fn part(&mut self, body: &[u8], part: Part) -> Result<(), InspectError> {
        let content = &body[part.content.clone()];
        match (part.name.as_str(), part.is_file) {
            ("model", false) if !part.is_encoded => {
                note_model(&mut self.model, &mut self.places, &String::from_utf8_lossy(content), part.content)
            }
            ("model", _) => Err(InspectError::Form("the part \"model\" must be plain text")),
            (_, true) => {
                self.text.audio(content.len());
                Ok(())
            }
            ("prompt", false) => {
                self.text.plain_text(content.len());
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// The boundary that a content type names.
fn boundary(content_type: &str) -> Option<Vec<u8>> {
    let (kind, parameters) = content_type.split_once(';')?;
    if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    let found = parameter(parameters, "boundary").ok().flatten()?;
    (!found.is_empty()).then(|| found.into_bytes())
}

/// The value of the parameter `name`; `Ok(None)` = there is none.
///
/// # Errors
/// When it stands there twice or in the extended form of RFC 2231, which Go reads too.
fn parameter(text: &str, name: &str) -> Result<Option<String>, ()> {
    let mut found = None;
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ';', '\r', '\n']);
        if rest.is_empty() {
            return Ok(found);
        }
        let Some((key, after)) = rest.split_once('=') else { return Ok(found) };
        let key = key.trim();
        let (value, after) = value(after);
        let is_extended = key.split('*').next().is_some_and(|key| key.eq_ignore_ascii_case(name)) && key.contains('*');
        if is_extended {
            return Err(());
        }
        if key.eq_ignore_ascii_case(name) && found.replace(value).is_some() {
            return Err(());
        }
        rest = after;
    }
}

/// A token or a quoted string, and what follows it.
fn value(text: &str) -> (String, &str) {
    let text = text.trim_start();
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(';').unwrap_or(text.len());
        return (text[..end].trim_end().to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut escaped = false;
    for (at, c) in quoted.char_indices() {
        match c {
            '"' if !escaped => return (value, &quoted[at + 1..]),
            '\\' if !escaped => escaped = true,
            c => {
                value.push(c);
                escaped = false;
            }
        }
    }
    (value, "")
}

/// One part of a form.
#[derive(Debug)]
struct Part {
    /// Empty = it has none that counts.
    name: String,
    is_file: bool,
    /// Its content is in an encoding of its own.
    is_encoded: bool,
    content: Range<usize>,
}

/// The parts of a form, one after the other.
struct Parts<'a> {
    body: &'a [u8],
    /// The boundary with its two dashes.
    dashes: Vec<u8>,
    /// Lines end with a bare line feed, as the first boundary does.
    bare: bool,
    /// Where the next part begins; `None` = the form is over.
    at: Option<usize>,
    seen: usize,
    begun: bool,
}

impl<'a> Parts<'a> {
    fn new(body: &'a [u8], boundary: &[u8]) -> Self {
        Self { body, dashes: [b"--", boundary].concat(), bare: false, at: Some(0), seen: 0, begun: false }
    }

    /// Past the first boundary; what stands before it does not count.
    fn begin(&mut self) -> Result<(), InspectError> {
        let mut line_start = 0;
        while line_start < self.body.len() {
            let end = line_end(self.body, line_start);
            let line = &self.body[line_start..end];
            if let Some(rest) = line.strip_prefix(self.dashes.as_slice()) {
                let tail = rest.trim_ascii();
                self.bare = !rest.ends_with(b"\r\n");
                self.at = (tail != b"--").then_some(end);
                if tail.is_empty() || tail == b"--" {
                    return Ok(());
                }
            }
            line_start = end;
        }
        Err(BROKEN)
    }

    fn part(&mut self, start: usize) -> Result<Part, InspectError> {
        self.seen += 1;
        if self.seen > PARTS_MAX {
            return Err(InspectError::Form("the form has too many parts"));
        }
        let (header, content_start) = self.header(start)?;
        let (content_end, next) = self.content(content_start)?;
        self.at = next;
        let field =
            |name: &str| header.iter().find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value);
        let disposition = field("content-disposition").map(String::as_str).unwrap_or_default();
        let (kind, parameters) = disposition.split_once(';').unwrap_or((disposition, ""));
        let is_form = kind.trim().eq_ignore_ascii_case("form-data");
        let ambiguous = |()| InspectError::Form("a part's name can be read in two ways");
        let name = parameter(parameters, "name").map_err(ambiguous)?.filter(|_| is_form).unwrap_or_default();
        let is_file = match parameter(parameters, "filename") {
            Ok(file) => file.is_some(),
            Err(()) => true,
        };
        let encoding = field("content-transfer-encoding").map(String::as_str).unwrap_or_default().trim();
        let is_encoded = !["", "binary", "8bit", "7bit"].iter().any(|plain| encoding.eq_ignore_ascii_case(plain));
        Ok(Part { name, is_file, is_encoded, content: content_start..content_end })
    }

    /// The header of the part that begins at `start`, and where its content does.
    fn header(&self, start: usize) -> Result<(Vec<(String, String)>, usize), InspectError> {
        let mut fields: Vec<(String, String)> = Vec::new();
        let mut at = start;
        loop {
            if at >= self.body.len() || at - start > HEADER_MAX_BYTES {
                return Err(BROKEN);
            }
            let end = line_end(self.body, at);
            let line = String::from_utf8_lossy(&self.body[at..end]);
            let text = line.trim_end_matches(['\r', '\n']);
            at = end;
            if text.is_empty() {
                return Ok((fields, at));
            }
            if text.starts_with([' ', '\t']) {
                // A folded line goes on with the one before it.
                if let Some((_, value)) = fields.last_mut() {
                    value.push(' ');
                    value.push_str(text.trim());
                }
            } else if let Some((field, value)) = text.split_once(':') {
                fields.push((field.trim().to_owned(), value.trim().to_owned()));
            } else {
                return Err(BROKEN);
            }
        }
    }

    /// Where the content that begins at `start` ends, and where the next part begins.
    fn content(&self, start: usize) -> Result<(usize, Option<usize>), InspectError> {
        // An empty content has its boundary right here.
        if self.body[start..].starts_with(&self.dashes)
            && let Some(next) = self.after_boundary(start)
        {
            return Ok((start, next));
        }
        let mut from = start;
        while let Some(offset) = self.body[from..].iter().position(|byte| *byte == b'\n') {
            let feed = from + offset;
            from = feed + 1;
            let returned = feed > start && self.body[feed - 1] == b'\r';
            let fits = self.body[from..].starts_with(&self.dashes) && (returned || self.bare);
            if fits && let Some(next) = self.after_boundary(from) {
                let end = if returned && !self.bare { feed - 1 } else { feed };
                return Ok((end, next));
            }
        }
        Err(BROKEN)
    }

    /// Where the part behind the boundary at `at` begins, `Some(None)` = it is the last; `None` = it is no boundary.
    #[expect(clippy::option_option, reason = "whether it is a boundary, and what follows one")]
    fn after_boundary(&self, at: usize) -> Option<Option<usize>> {
        let rest = &self.body[at + self.dashes.len()..];
        if rest.starts_with(b"--") {
            return Some(None);
        }
        let end = line_end(self.body, at);
        let tail = &self.body[at + self.dashes.len()..end];
        tail.trim_ascii().is_empty().then_some(Some(end))
    }
}

const BROKEN: InspectError = InspectError::Form("the form is cut off or malformed");

impl Iterator for Parts<'_> {
    type Item = Result<Part, InspectError>;

    fn next(&mut self) -> Option<Self::Item> {
        if !self.begun {
            self.begun = true;
            if let Err(error) = self.begin() {
                self.at = None;
                return Some(Err(error));
            }
        }
        let start = self.at.take()?;
        Some(self.part(start))
    }
}

/// Where the line that begins at `start` ends, its line feed included.
fn line_end(body: &[u8], start: usize) -> usize {
    body[start..].iter().position(|byte| *byte == b'\n').map_or(body.len(), |offset| start + offset + 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::splice::{Edit, splice};

    const TYPE: &str = "multipart/form-data; boundary=xYz";

    fn read(body: &str) -> Result<RequestProfile, InspectError> {
        inspect_form(Surface::OpenAiTranscriptions, TYPE, None, body.as_bytes())
    }

    fn part(header: &str, content: &str) -> String {
        format!("--xYz\r\nContent-Disposition: form-data; {header}\r\n\r\n{content}\r\n")
    }

    fn form(parts: &[(&str, &str)]) -> String {
        let parts: String = parts.iter().map(|(header, content)| part(header, content)).collect();
        format!("{parts}--xYz--\r\n")
    }

    #[track_caller]
    fn model(body: &str, expected: &str) {
        let profile = read(body).unwrap();
        assert_eq!(profile.model.as_str(), expected, "{body}");
        let places = std::iter::once(&profile.places.model).chain(&profile.places.model_again);
        let edits = places.map(|place| Edit { range: place.clone(), text: "other:1".into() }).collect::<Vec<_>>();
        let spliced = String::from_utf8(splice(body.as_bytes(), &edits)).unwrap();
        assert_eq!(read(&spliced).unwrap().model.as_str(), "other:1", "{spliced}");
    }

    #[track_caller]
    fn refused(body: &str) {
        assert!(read(body).is_err(), "{body}");
    }

    const FILE: (&str, &str) = ("name=\"file\"; filename=\"a.wav\"", "RIFF\r\n--xY\r\n\r\n--");

    #[test]
    fn the_model_is_found_wherever_it_stands() {
        model(&form(&[FILE, ("name=\"model\"", "whisper")]), "whisper:latest");
        model(&form(&[("name=\"model\"", "Whisper:Big"), FILE]), "whisper:big");
        model(&form(&[("NAME=model", "m")]), "m:latest");
        model(&form(&[("name = \"model\" ", "m"), ("name=\"language\"", "de")]), "m:latest");
        model(&form(&[("name=\"mo\\del\"", "m")]), "m:latest");
        model(&form(&[("name=\"model\"", "m"), ("name=\"model\"", "m:latest")]), "m:latest");
        model(&format!("preamble\r\n{}epilogue", form(&[("name=\"model\"", "m")])), "m:latest");
        model("--xYz \t\r\ncontent-disposition:form-data;\r\n name=\"model\"\r\n\r\nm\r\n--xYz--", "m:latest");
        model("--xYz\nContent-Disposition: form-data; name=\"model\"\n\nm\n--xYz--\n", "m:latest");
    }

    #[test]
    fn what_could_be_read_as_another_model_is_refused() {
        refused(&form(&[("name=\"model\"", "m"), ("name=\"model\"", "other")]));
        refused(&form(&[("name=\"model\"; filename=\"m\"", "m")]));
        refused(&form(&[("name*=UTF-8''model", "m")]));
        refused(&form(&[("name=\"model\"; name=\"file\"", "m")]));
        refused(
            "--xYz\r\nContent-Disposition: form-data; name=\"model\"\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n=6D\r\n--xYz--",
        );
        for query in ["model=x", "a=b&model=x", "mo%64el=x", "model"] {
            let body = form(&[("name=\"model\"", "m")]);
            let surface = Surface::OpenAiTranscriptions;
            assert!(inspect_form(surface, TYPE, Some(query), body.as_bytes()).is_err(), "{query}");
            assert!(inspect_form(surface, TYPE, Some("models=x&Model=y"), body.as_bytes()).is_ok());
        }
    }

    #[test]
    fn what_is_no_form_is_refused() {
        assert_eq!(read(&form(&[FILE])), Err(InspectError::NoModel));
        assert_eq!(read(&form(&[("name=\"model\"", "")])), Err(InspectError::NoModel));
        for body in
            ["", "{}", "--xYz--", "--xYz\r\n", "--xYz\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nm"]
        {
            refused(body);
        }
        for kind in [
            "",
            "application/json",
            "multipart/form-data",
            "multipart/form-data; boundary=",
            "multipart/mixed; boundary=xYz",
        ] {
            let body = form(&[("name=\"model\"", "m")]);
            assert!(inspect_form(Surface::OpenAiTranscriptions, kind, None, body.as_bytes()).is_err(), "{kind}");
        }
        let quoted = inspect_form(
            Surface::OpenAiTranscriptions,
            "Multipart/Form-Data; charset=utf-8; Boundary=\"xYz\"",
            None,
            form(&[("name=\"model\"", "m")]).as_bytes(),
        );
        assert!(quoted.is_ok());
    }

    #[test]
    fn audio_is_no_text() {
        let audio = "x".repeat(4 << 20);
        let body =
            form(&[("name=\"model\"", "m"), ("name=\"file\"; filename=\"a\"", &audio), ("name=\"prompt\"", "four")]);
        let profile = read(&body).unwrap();
        assert!(profile.text_tokens() < 10 && profile.attachment_tokens > 1_000, "{profile:?}");
        assert_eq!((profile.stream, profile.empty), (false, false));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(body in "(--xYz|\r\n|\n|--|Content-Disposition: form-data; name=\"?model|;|\"|m|[ -~]){0,24}") {
            if let Ok(profile) = read(&body) {
                prop_assert!(body.get(profile.places.model.clone()).is_some());
            }
        }
    }
}
