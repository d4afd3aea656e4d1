//! Lines at the front of a system prompt that change with every request, so that no prefix of it is ever cached: they are
//! pinned to a constant, and nothing else of a prompt is touched.

use std::borrow::Cow;
use std::ops::Range;

use super::json::{JsonError, Kind, Scanner};

/// A line that is known to change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line {
    /// How it starts.
    pub starts: &'static str,
    /// What is put in the place of the values behind that: `name=value;`, one or more.
    pub pinned: &'static str,
    /// Where it is described.
    pub source: &'static str,
}

/// Every line that is known. A new one has a test in this module.
pub const VOLATILE: &[Line] = &[Line {
    starts: "x-anthropic-billing-header:",
    pinned: " cc_version=0.0.0; cc_entrypoint=cli; cch=00000;",
    source: "https://github.com/anthropics/claude-code/issues/68900 (Claude Code from 2.1.36 on: cch changes with every \
             request, and the last part of cc_version with every conversation)",
}];

/// Bytes of a message in which such a line begins, if it is there: its front.
const FRONT_BYTES: usize = 1 << 10;
/// Most of the places of one body: more than any client makes.
const PLACES_MAX: usize = 16;

type Places = Vec<(Range<usize>, &'static str)>;

/// Notes such lines in the system prompt at `range`, which is a text or a list of blocks with texts.
pub(super) fn in_prompt(scanner: &Scanner<'_>, range: &Range<usize>, places: &mut Places) {
    // It has been read once, so that it cannot fail.
    drop(prompt(&mut scanner.back_at(range.start), places));
}

/// The same in the message at `range`, if it is one of the system.
pub(super) fn in_message(scanner: &Scanner<'_>, range: &Range<usize>, places: &mut Places) {
    let front = scanner.slice(range);
    let front = &front[..front.len().min(FRONT_BYTES)];
    let has = |line: &Line| front.windows(line.starts.len()).any(|window| is(window, line));
    if VOLATILE.iter().any(has) {
        drop(message(&mut scanner.back_at(range.start), places));
    }
}

/// `message`, which begins at `start` of the body, with the lines at `places` pinned.
pub(super) fn pinned<'a>(message: &'a [u8], start: usize, places: &[(Range<usize>, &str)]) -> Cow<'a, [u8]> {
    if places.is_empty() {
        return Cow::Borrowed(message);
    }
    let mut whole = Vec::with_capacity(message.len());
    let mut from = 0;
    for (range, text) in places {
        whole.extend_from_slice(&message[from..range.start - start]);
        whole.extend_from_slice(text.as_bytes());
        from = range.end - start;
    }
    whole.extend_from_slice(&message[from..]);
    Cow::Owned(whole)
}

fn message(scanner: &mut Scanner<'_>, places: &mut Places) -> Result<(), JsonError> {
    if scanner.kind()? != Kind::Object {
        return Ok(());
    }
    let (mut is_systems, mut contents) = (false, Vec::new());
    scanner.object(|scanner, key, _| {
        let value = scanner.skip()?;
        match key {
            "role" => is_systems = matches!(scanner.slice(&value), b"\"system\"" | b"\"developer\""),
            "content" => contents.push(value),
            _ => {}
        }
        Ok::<(), JsonError>(())
    })?;
    for content in contents.iter().filter(|_| is_systems) {
        in_prompt(scanner, content, places);
    }
    Ok(())
}

fn prompt(scanner: &mut Scanner<'_>, places: &mut Places) -> Result<(), JsonError> {
    match scanner.kind()? {
        Kind::String => {
            let range = scanner.string()?;
            front(scanner, &range, places);
        }
        Kind::Array => {
            scanner.array(|scanner| block(scanner, places))?;
        }
        _ => {}
    }
    Ok(())
}

/// A text of its own, or the text of an object.
fn block(scanner: &mut Scanner<'_>, places: &mut Places) -> Result<(), JsonError> {
    if scanner.kind()? != Kind::Object {
        let range = scanner.skip()?;
        front(scanner, &range, places);
        return Ok(());
    }
    scanner.object(|scanner, key, _| {
        let value = scanner.skip()?;
        if key == "text" {
            front(scanner, &value, places);
        }
        Ok::<(), JsonError>(())
    })?;
    Ok(())
}

/// Notes the values of the line with which the string at `range` begins, if it is a known one.
fn front(scanner: &Scanner<'_>, range: &Range<usize>, places: &mut Places) {
    let [b'"', text @ .., b'"'] = scanner.slice(range) else { return };
    let start = text.iter().take_while(|byte| **byte == b' ').count();
    let found = VOLATILE.iter().find(|line| text[start..].get(..line.starts.len()).is_some_and(|it| is(it, line)));
    let Some(line) = found.filter(|_| places.len() < PLACES_MAX) else { return };
    let begin = start + line.starts.len();
    let end = begin + values(&text[begin..]);
    if end > begin {
        places.push((range.start + 1 + begin..range.start + 1 + end, line.pinned));
    }
}

fn is(text: &[u8], line: &Line) -> bool {
    text.eq_ignore_ascii_case(line.starts.as_bytes())
}

/// Bytes of ` name=value;`, one or more; the last may stand without its semicolon where the text or line ends.
fn values(text: &[u8]) -> usize {
    let mut end = 0;
    loop {
        let rest = &text[end..];
        let blank = rest.iter().take_while(|byte| **byte == b' ').count();
        let name = rest[blank..].iter().take_while(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(byte)).count();
        if name == 0 || rest.get(blank + name) != Some(&b'=') {
            return end;
        }
        let begin = blank + name + 1;
        let value = rest[begin..].iter().take_while(|byte| !b"; \\\"".contains(byte)).count();
        match rest.get(begin + value) {
            Some(b';') => end += begin + value + 1,
            // A line ends in an escape, "\n".
            None | Some(b'\\') => return end + begin + value,
            Some(_) => return end,
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::inspect::{InspectLimits, inspect};
    use crate::request::{RequestProfile, Surface};
    use crate::splice::{Edit, splice};

    const ONE: &str = "x-anthropic-billing-header: cc_version=2.1.177.01c; cc_entrypoint=sdk-cli; cch=36ee5;";
    const TWO: &str = "x-anthropic-billing-header: cc_version=2.1.177.9ff; cc_entrypoint=sdk-cli; cch=0aaa9;";
    const PINNED: &str = "x-anthropic-billing-header: cc_version=0.0.0; cc_entrypoint=cli; cch=00000;";

    fn read(surface: Surface, body: &str) -> RequestProfile {
        inspect(surface, body.as_bytes(), &InspectLimits::default()).unwrap()
    }

    fn sent(surface: Surface, body: &str) -> String {
        let places = read(surface, body).places.volatile;
        let edits: Vec<_> =
            places.iter().map(|(range, text)| Edit { range: range.clone(), text: (*text).to_owned() }).collect();
        String::from_utf8(splice(body.as_bytes(), &edits)).unwrap()
    }

    /// The forms of a system prompt, `@` standing for the line.
    const FORMS: &[(Surface, &str)] = &[
        (
            Surface::AnthropicMessages,
            r#"{"model":"m","system":[{"type":"text","text":"@"},{"type":"text","text":"You are"}],"messages":[{"role":"user","content":"hi"}]}"#,
        ),
        (
            Surface::AnthropicMessages,
            r#"{"model":"m","system":[{"type":"text","text":"You are"},{"text":"@","type":"text","cache_control":{"type":"ephemeral"}}]}"#,
        ),
        (Surface::AnthropicMessages, r#"{"model":"m","system":"@\nYou are Claude Code","messages":[]}"#),
        (Surface::AnthropicMessages, r#"{"model":"m","system":"@"}"#),
        (
            Surface::OpenAiChat,
            r#"{"model":"m","messages":[{"role":"system","content":"@\nYou are"},{"role":"user","content":"hi"}]}"#,
        ),
        (
            Surface::OpenAiChat,
            r#"{"model":"m","messages":[{"content":[{"type":"text","text":"@"}],"role":"system"},{"role":"user","content":"hi"}]}"#,
        ),
        (Surface::OpenAiChat, r#"{"model":"m","messages":[{"role":"developer","content":"@You are glued to it"}]}"#),
        (Surface::OpenAiResponses, r#"{"model":"m","instructions":"@\n\nYou are","input":"hi"}"#),
        (
            Surface::OpenAiResponses,
            r#"{"model":"m","input":[{"role":"developer","content":[{"type":"input_text","text":"@"}]},{"role":"user","content":"hi"}]}"#,
        ),
        (
            Surface::OllamaChat,
            r#"{"model":"m","messages":[{"role":"system","content":" @\r\nYou are"},{"role":"user","content":"hi"}]}"#,
        ),
        (Surface::OllamaGenerate, r#"{"model":"m","system":"@\nYou are","prompt":"hi"}"#),
    ];

    #[test]
    fn a_line_that_changes_is_pinned_wherever_a_system_prompt_is() {
        for (surface, form) in FORMS {
            let body = form.replace('@', ONE);
            assert_eq!(sent(*surface, &body), form.replace('@', PINNED), "{form}");
            assert_eq!(
                read(*surface, &body).conversation,
                read(*surface, &form.replace('@', TWO)).conversation,
                "{form}"
            );
            assert_eq!(sent(*surface, &form.replace('@', PINNED)), form.replace('@', PINNED), "{form}");
        }
    }

    #[test]
    fn it_is_found_in_the_forms_that_it_had() {
        for line in [
            "X-Anthropic-Billing-Header: cc_version=2.1.37.0d9; cc_entrypoint=cli; cch=fa690;",
            "x-anthropic-billing-header: cc_version=2.1.37.0d9; cc_entrypoint=cli; cch=fa690",
            "x-anthropic-billing-header:cc_version=2;cch=1;",
            "x-anthropic-billing-header: account=abc; cch=rotating-hash;",
            "x-anthropic-billing-header: cc_version=2.1.9; cc_entrypoint=cli; cch=1; cc_is_subagent=true;",
        ] {
            let (surface, form) = FORMS[0];
            let starts = &line[..line.find(':').unwrap()];
            let expected = form.replace('@', &PINNED.replace("x-anthropic-billing-header", starts));
            assert_eq!(sent(surface, &form.replace('@', line)), expected, "{line}");
        }
    }

    #[test]
    fn nothing_else_of_a_prompt_is_touched() {
        let user = r#"{"model":"m","messages":[{"role":"system","content":"Be brief."},{"role":"user","content":"@\nwhat is this?"}]}"#;
        let rows = [
            user.replace('@', ONE),
            user.replace("Be brief.", &format!("Be brief.\\n{ONE}")).replace('@', ""),
            user.replace("Be brief.", "x-anthropic-billing-header: is what I ask about; cch=1;"),
            user.replace("Be brief.", "x-anthropic-billing-header:"),
            user.replace("Be brief.", "x-anthropic-other: cch=1;"),
            format!(r#"{{"model":"m","prompt":"{ONE}"}}"#),
            format!(r#"{{"model":"m","metadata":{{"system":"{ONE}"}},"tools":[{{"system":"{ONE}"}}]}}"#),
        ];
        for body in rows {
            for surface in [Surface::OpenAiChat, Surface::OllamaGenerate, Surface::AnthropicMessages] {
                assert_eq!(sent(surface, &body), body);
            }
        }
    }

    #[test]
    fn it_can_be_left_alone() {
        let limits = InspectLimits { stabilise: false, ..InspectLimits::default() };
        let body = FORMS[0].1.replace('@', ONE);
        assert!(inspect(FORMS[0].0, body.as_bytes(), &limits).unwrap().places.volatile.is_empty());
    }
}
