//! Which bytes to cut so that an object loses members and keeps its commas.

use std::ops::Range;

/// The members of one object, for cutting some of them out with the right commas.
#[derive(Default)]
pub(super) struct Members {
    cuts: Vec<Range<usize>>,
    /// Something before stays, so that a cut takes the comma before it along.
    kept_any: bool,
    /// Start of a cut member with nothing kept before it: it takes the comma after it along.
    leading: Option<usize>,
    previous_end: usize,
}

impl Members {
    pub(super) fn add(&mut self, member: Range<usize>, cut: bool) {
        if let Some(start) = self.leading.take() {
            self.cuts.push(start..member.start);
        }
        match (cut, self.kept_any) {
            (true, true) => self.cuts.push(self.previous_end..member.end),
            (true, false) => self.leading = Some(member.start),
            (false, _) => self.kept_any = true,
        }
        self.previous_end = member.end;
    }

    pub(super) fn cuts(mut self) -> Vec<Range<usize>> {
        self.cuts.extend(self.leading.map(|start| start..self.previous_end));
        self.cuts
    }
}
