//! Which known name somebody may have meant who asks for an unknown one.

use super::ModelName;

/// Longer names are compared by their beginnings alone, so that a request costs little.
const COMPARED_BYTES: usize = 96;

/// The known name that `asked` is nearest to, if it is near at all: the same model with another tag or from another
/// place, or so few letters away that it may be a slip. Of equals the first by name.
#[must_use]
pub fn nearest<'a>(asked: &ModelName, known: impl IntoIterator<Item = &'a ModelName>) -> Option<&'a ModelName> {
    let known = known.into_iter().filter(|name| *name != asked);
    let near = known.filter_map(|name| Some((distance(asked.as_str(), name.as_str())?, name)));
    near.min_by(|(a, first), (b, second)| a.cmp(b).then_with(|| first.cmp(second))).map(|(_, name)| name)
}

/// How far two names are apart; `None` = too far.
fn distance(asked: &str, known: &str) -> Option<usize> {
    let (asked_model, asked_tag) = parts(asked);
    let (known_model, known_tag) = parts(known);
    let allowed = if asked_model.len() < 3 { 0 } else { (asked_model.len() / 4).clamp(1, 3) };
    let model = letters(asked_model, known_model);
    let model = if model <= allowed { model } else { begins(asked_model, known_model)? };
    // Another tag is a smaller matter than another model.
    Some(model * 16 + letters(asked_tag, known_tag).min(15))
}

/// The model without its place, and the tag.
fn parts(name: &str) -> (&str, &str) {
    let (path, tag) = name.rsplit_once(':').unwrap_or((name, ""));
    let model = path.rsplit('/').next().unwrap_or(path);
    (cut(model), cut(tag))
}

/// Where one is the other's beginning: `llama3` for `llama3.1`. As far as a slip of four letters.
fn begins(a: &str, b: &str) -> Option<usize> {
    let (short, long) = if a.len() < b.len() { (a, b) } else { (b, a) };
    let rest = long.strip_prefix(short)?;
    (short.len() >= 3 && rest.starts_with(|c: char| !c.is_ascii_alphabetic())).then_some(4)
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(COMPARED_BYTES)]
}

/// Letters that must be put in, taken out or replaced, two that changed places counting once.
fn letters(a: &str, b: &str) -> usize {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut above = vec![0; b.len() + 1];
    let mut current: Vec<usize> = (0..=b.len()).collect();
    for (row, x) in a.iter().enumerate() {
        let mut next = vec![row + 1];
        for (column, y) in b.iter().enumerate() {
            let replaced = current[column] + usize::from(x != y);
            let mut fewest = replaced.min(current[column + 1] + 1).min(next[column] + 1);
            if row > 0 && column > 0 && *x == b[column - 1] && a[row - 1] == *y {
                fewest = fewest.min(above[column - 1] + 1);
            }
            next.push(fewest);
        }
        above = std::mem::replace(&mut current, next);
    }
    current[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(asked: &str, known: &[&str], expected: Option<&str>) {
        let known: Vec<ModelName> = known.iter().map(|name| ModelName::new(name).unwrap()).collect();
        let found = nearest(&ModelName::new(asked).unwrap(), &known).map(ModelName::as_str);
        assert_eq!(found, expected, "{asked}");
    }

    #[test]
    fn slips_tags_and_places_are_near() {
        let known = ["llama3.1:8b", "qwen3:32b", "qwen3:8b", "nomic-embed-text", "hf.co/org/phi-4-gguf:q4_k_m", "tiny"];
        check("llama3.1", &known, Some("llama3.1:8b"));
        check("llama3:8b", &known, Some("llama3.1:8b"));
        check("lama3.1:8b", &known, Some("llama3.1:8b"));
        check("qwen3:7b", &known, Some("qwen3:8b"));
        check("qewn3:32b", &known, Some("qwen3:32b"));
        check("nomic-embed-txet", &known, Some("nomic-embed-text:latest"));
        check("phi-4-gguf", &known, Some("hf.co/org/phi-4-gguf:q4_k_m"));
        check("me/tiny", &known, Some("tiny:latest"));
        check("tiny:2b", &known, Some("tiny:latest"));
    }

    #[test]
    fn what_is_far_is_not_guessed() {
        let known = ["llama3.1:8b", "tiny", "m"];
        check("nope", &known, None);
        check("gpt-4o", &known, None);
        check("x", &["qwen3"], None);
        check("tinyllama", &known, None);
        check("anything", &[], None);
        check("tiny", &["tiny"], None);
    }

    #[test]
    fn letters_are_counted() {
        assert_eq!(letters("", ""), 0);
        assert_eq!(letters("abc", ""), 3);
        assert_eq!(letters("abc", "acb"), 1);
        assert_eq!(letters("kitten", "sitting"), 3);
    }
}
