use super::*;

/// Every tag is closed, in order; text is escaped.
#[track_caller]
pub(crate) fn assert_well_formed(svg: &str) {
    let mut open = Vec::new();
    for part in svg.split('<').skip(1) {
        let (tag, text) = part.split_once('>').expect("every tag ends");
        assert!(!text.contains(['&', '>']) || text.contains(';'), "{text}");
        let name = tag.split([' ', '/']).find(|word| !word.is_empty()).unwrap_or_default();
        if let Some(closed) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(closed));
        } else if !tag.ends_with('/') {
            open.push(name);
        }
        assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
        assert!(!tag.contains("NaN") && !tag.contains("inf"), "{tag}");
    }
    assert_eq!(open, Vec::<&str>::new());
}

fn bar(value: f64) -> Bar {
    Bar { name: "a & <b>".into(), hue: Hue::Own, mean: [value; 3], p99: [value * 0.9, value * 3.0, value * 4.0] }
}

#[test]
fn plots_are_well_formed_whatever_the_numbers() {
    for values in [&[][..], &[0.0], &[1.0], &[0.001, 20_000.0]] {
        let all: Vec<Bar> = values.iter().map(|value| bar(*value)).collect();
        assert_well_formed(&bars("x < y", &all, 0.5));
        let curve = |value: &f64| Curve { name: "c".into(), color: "#123456", hundredths: vec![*value; 100] };
        assert_well_formed(&curves("x & y", &values.iter().map(curve).collect::<Vec<_>>()));
    }
}

#[test]
fn seconds_have_about_three_digits() {
    let texts = [0.0, 0.0125, 0.5, 1.0, 9.876, 45.67, 1234.5].map(seconds);
    assert_eq!(texts, ["0", "0.013", "0.5", "1.00", "9.88", "45.7", "1234"]);
}
