//! Every failure in every phase, and what it comes to: for the client, in the trace, at the nodes and in the counts.
//!
//! A [`Row`] is a line of `FAILURES.md`; [`document`] holds the two together. A test takes the rows of one phase over
//! the surfaces.

mod before;
mod connect;
mod document;
mod leave;
mod middle;
mod nobody;
mod queue;
mod scene;
mod stop;
mod way;

/// One failure, as `FAILURES.md` names it.
struct Row {
    /// What happens.
    name: &'static str,
    /// Status that the client may get; 0 = none.
    status: &'static [u16],
    /// Attempts that there may be; empty = as many as there is time for.
    attempts: &'static [usize],
    /// What the trace says of the end.
    trace: &'static str,
}

impl Row {
    fn may_take(&self, attempts: usize) -> bool {
        if self.attempts.is_empty() { attempts > 0 } else { self.attempts.contains(&attempts) }
    }
}

/// All rows, by phase.
fn rows() -> impl Iterator<Item = &'static Row> {
    let phases: [&[Row]; 7] =
        [connect::ROWS, before::ROWS, middle::ROWS, leave::ROWS, queue::ROWS, stop::ROWS, nobody::ROWS];
    phases.into_iter().flatten()
}

/// The row called `name`.
#[track_caller]
fn row(name: &str) -> &'static Row {
    rows().find(|row| row.name == name).unwrap_or_else(|| panic!("no row {name:?}"))
}
