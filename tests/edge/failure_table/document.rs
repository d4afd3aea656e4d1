//! `FAILURES.md` and the rows of the tests are the same set, and say the same.

use super::{Row, rows};

/// A line of the document, as far as a row says it too: name, status, attempts, trace status.
type Told = [String; 4];

fn told(row: &Row) -> Told {
    let listed = |numbers: Vec<String>| numbers.join(" or ");
    let status = match row.status {
        [0] => "none".to_owned(),
        some => listed(some.iter().map(u16::to_string).collect()),
    };
    let attempts = match row.attempts {
        [] => "several".to_owned(),
        some => listed(some.iter().map(usize::to_string).collect()),
    };
    [row.name.to_owned(), status, attempts, format!("`{}`", row.trace)]
}

/// The lines of all tables of five columns, without their heads.
fn documented() -> Vec<Told> {
    let text = include_str!("../../../FAILURES.md");
    let cells = |line: &'static str| line.trim().trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>();
    let lines = text.lines().filter(|line| line.starts_with('|')).map(cells);
    let five = lines.filter_map(|cells| <[&str; 5]>::try_from(cells).ok());
    let rows = five.filter(|[name, ..]| !name.starts_with("---") && *name != "what happens");
    rows.map(|[name, status, _, attempts, trace]| [name, status, attempts, trace].map(str::to_owned)).collect()
}

#[test]
fn the_document_and_the_tests_have_the_same_rows() {
    let (mut documented, mut tested) = (documented(), rows().map(told).collect::<Vec<_>>());
    documented.sort();
    tested.sort();
    assert!(tested.len() > 30, "{tested:?}");
    for (documented, tested) in documented.iter().zip(&tested) {
        assert_eq!(documented, tested, "FAILURES.md on the left");
    }
    assert_eq!(documented.len(), tested.len(), "FAILURES.md on the left");
}
