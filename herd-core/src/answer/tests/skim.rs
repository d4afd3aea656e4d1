//! The reader for text in pieces, against parsers for whole text.

use proptest::prelude::*;

use crate::answer::skim::Skimmer;
use crate::inspect::json::Scanner;

#[derive(Debug, PartialEq)]
enum Read {
    Part,
    Whole,
    Broken,
}

fn read(text: &[u8]) -> Read {
    let mut skimmer = Skimmer::new();
    let read = skimmer.feed(text, &mut |_, _| ());
    skimmer.trail(if skimmer.is_closed() { &text[read..] } else { b"" });
    match (skimmer.is_closed(), skimmer.is_broken()) {
        (true, _) => Read::Whole,
        (_, true) => Read::Broken,
        _ => Read::Part,
    }
}

#[test]
fn takes_objects_and_refuses_what_cannot_become_one() {
    for text in ["{}", " {\"a\":[]} ", "{\"a\":[{},[1,-2.5e+3,true,null]],\"b\":\"\\u00e9\\n\\\"\"}"] {
        assert_eq!(read(text.as_bytes()), Read::Whole, "{text}");
    }
    for text in [
        "[",
        "1",
        "{1",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{\"a\":1]",
        "{\"a\":[1}",
        "{\"a\":[1,]",
        "{\"a\":tru}",
        "{\"a\":1e}",
        "{\"a\":\"\\x",
        "{\"a\":\"\\u00g",
        "{\"a\":\"\n",
        "{\"a\" 1",
        "{} {",
        "{\"a\":1 2",
        "{,",
    ] {
        assert_eq!(read(text.as_bytes()), Read::Broken, "{text}");
    }
    assert_eq!(read(br#"{"a":[[[[[[[[1,true,null,{"b":"c"}]]]]]]]]}"#), Read::Whole);
    let deep = format!("{{\"a\":{}1{}}}", "[".repeat(127), "]".repeat(127));
    assert_eq!(read(deep.as_bytes()), Read::Whole);
    assert_eq!(read(format!("{{\"a\":{}", "[".repeat(128)).as_bytes()), Read::Broken);
}

fn json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        ".{0,60}".prop_map(Into::into),
    ];
    leaf.prop_recursive(8, 32, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
            prop::collection::hash_map(".{0,50}", inner, 0..6).prop_map(|map| map.into_iter().collect()),
        ]
    })
}

proptest! {
    #[test]
    fn any_object_is_whole_at_its_end_and_not_before(value in json()) {
        let text = serde_json::json!({ "value": value }).to_string().into_bytes();
        prop_assert_eq!(read(&text), Read::Whole);
        for cut in 0..text.len() {
            prop_assert_eq!(read(&text[..cut]), Read::Part);
        }
    }

    #[test]
    fn nothing_is_whole_that_the_scanner_refuses_but_for_numbers(text in r#"[{}\[\]",:\\ua1 ]{0,14}"#) {
        let text = format!("{{{text}");
        let mut scanner = Scanner::new(text.as_bytes(), 64);
        let valid = scanner.skip().and_then(|_| scanner.finish()).is_ok();
        if valid {
            prop_assert_eq!(read(text.as_bytes()), Read::Whole);
        } else {
            prop_assert_ne!(read(text.as_bytes()), Read::Whole);
        }
    }
}
