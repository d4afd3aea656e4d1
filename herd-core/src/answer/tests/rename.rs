//! Names put back.

use proptest::prelude::*;

use super::*;

const ALIAS: &str = "tiny-ctx8192";

fn renamed(from: &str, to: &str, chunks: &[&[u8]]) -> String {
    let mut renamer = Renamer::new(from, to);
    let mut bytes: Vec<u8> = chunks.iter().flat_map(|chunk| renamer.push(chunk)).collect();
    bytes.extend(renamer.finish());
    String::from_utf8(bytes).unwrap()
}

#[test]
fn only_model_members_of_that_name_change() {
    #[track_caller]
    fn check(text: &str, expected: &str) {
        assert_eq!(renamed(ALIAS, "Tiny", &[text.as_bytes()]), expected);
    }
    check(r#"{"model":"tiny-ctx8192","a":1}"#, r#"{"model":"Tiny","a":1}"#);
    check(r#"{"model": "tiny-ctx8192"}"#, r#"{"model": "Tiny"}"#);
    check(r#"{"model":"tiny-ctx8192:latest"}"#, r#"{"model":"tiny-ctx8192:latest"}"#);
    check(r#"{"model":"tiny"}"#, r#"{"model":"tiny"}"#);
    check(r#"{"name":"tiny-ctx8192"}"#, r#"{"name":"tiny-ctx8192"}"#);
    check(r#"{"content":"\"model\":\"tiny-ctx8192\""}"#, r#"{"content":"\"model\":\"tiny-ctx8192\""}"#);
    check(r#"{"x\"model":"tiny-ctx8192"}"#, r#"{"x\"model":"tiny-ctx8192"}"#);
    check(r#""model":"tiny-ctx8192""model":"tiny-ctx8192"#, r#""model":"Tiny""model":"tiny-ctx8192"#);
    check("\"\"model\":\"tiny-ctx8192\"", "\"\"model\":\"Tiny\"");
    assert_eq!(renamed("a", "q\"\\", &[br#"{"model":"a"}"#]), r#"{"model":"q\"\\"}"#);
}

#[test]
fn every_surface_names_its_model_in_a_form_that_is_found() {
    for (stream, members) in [
        (CHAT_STREAM, 4),
        (GENERATE_STREAM, 3),
        (EMBED, 1),
        (V1_EMBEDDINGS, 1),
        (V1_CHAT, 1),
        (V1_CHAT_STREAM, 4),
        (V1_COMPLETIONS_STREAM, 4),
        (V1_RESPONSES, 1),
        (V1_RESPONSES_STREAM, 2),
        (V1_MESSAGES, 1),
        (V1_MESSAGES_STREAM, 1),
    ] {
        let name = if stream.contains("\"embed\"") { "embed" } else { "tiny" };
        let text = renamed(name, "the-name", &[stream.as_bytes()]);
        assert_eq!(text.matches("\"model\":\"the-name\"").count(), members, "{stream}");
        assert_eq!(text.replace("\"model\":\"the-name\"", &format!("\"model\":\"{name}\"")), stream);
    }
}

#[test]
fn holds_back_no_more_than_could_be_the_start_of_a_match() {
    let mut renamer = Renamer::new(ALIAS, "tiny");
    assert_eq!(renamer.push(b"{\"a\":1,"), b"{\"a\":1,");
    assert_eq!(renamer.push(b"\"mod"), b"");
    assert_eq!(renamer.push(b"e\":1,\"model"), b"\"mode\":1,");
    assert_eq!(renamer.push(b"\":\"tiny-ctx8192"), b"");
    assert_eq!(renamer.push(b"\"}"), b"\"model\":\"tiny\"}");
    assert_eq!(renamer.push(b"\""), b"");
    assert_eq!(renamer.finish(), b"\"");
}

proptest! {
    #[test]
    fn pieces_do_not_matter(
        parts in prop::collection::vec(
            prop::sample::select(vec![
                "\"model\":\"aa\"", "\"model\": \"aa\"", "\"model\":", "\"", "a", "\\", " ", "\"mod", "\"model", "é", "aa\"",
            ]),
            0..12,
        ),
        size in 1_usize..20,
    ) {
        let text = parts.concat();
        let chunks: Vec<&[u8]> = text.as_bytes().chunks(size).collect();
        prop_assert_eq!(renamed("aa", "b", &chunks), renamed("aa", "b", &[text.as_bytes()]));
    }
}
