//! Which nodes are compared: all that have the model, or enough of them where the fleet is large.

use super::Question;
use crate::fleet::{Model, Node};
use crate::name::ModelName;

/// Default of [`super::Policy::candidates_max`].
pub const CANDIDATES_MAX: usize = 128;

/// What was found in a look at the fleet.
pub(super) struct Found<'a> {
    /// Nodes that have the model, by their places in the snapshot.
    pub(super) holders: Vec<(usize, &'a Node, &'a Model)>,
    /// Places of the nodes that do not.
    pub(super) absent: Vec<usize>,
    /// Nodes that were not looked at.
    pub(super) passed_over: usize,
}

impl<'a> Question<'a> {
    /// The nodes that have the model `name`, all of them.
    pub(super) fn look_at_all(&self, name: &ModelName) -> Found<'a> {
        self.look(name, 0..self.snapshot.nodes.len(), usize::MAX)
    }

    /// As many nodes that have the model `name` as are compared in a large fleet; `None` = it is not large, or all of it is
    /// to be looked at.
    ///
    /// They are spread evenly over the fleet. A conversation is always looked for among the same ones, because one of
    /// them has it in its cache.
    pub(super) fn look_around(&self, name: &ModelName) -> Option<Found<'a>> {
        let (count, most) = (self.snapshot.nodes.len(), self.policy.candidates_max);
        let draw = self.draw.filter(|_| count > most)?;
        Some(self.look(name, spread(count, most, self.profile.conversation.unwrap_or(draw)), most))
    }

    fn look(&self, name: &ModelName, places: impl Iterator<Item = usize>, most: usize) -> Found<'a> {
        let (key, nodes) = (name.key(), &self.snapshot.nodes);
        let mut found =
            Found { holders: Vec::with_capacity(nodes.len().min(most)), absent: Vec::new(), passed_over: 0 };
        for place in places {
            if found.holders.len() >= most {
                break;
            }
            let node: &Node = &nodes[place];
            match node.model_by_key(key).filter(|model| model.name == *name) {
                Some(model) => found.holders.push((place, node, model)),
                None => found.absent.push(place),
            }
        }
        found.passed_over = nodes.len() - found.holders.len() - found.absent.len();
        found
    }
}

/// Every place below `count` once, beginning at one that `draw` tells; `few` of them, and each further few, are spread over
/// all, because nodes that are neighbours by name are often alike.
fn spread(count: usize, few: usize, draw: u64) -> impl Iterator<Item = usize> {
    let step = count.div_ceil(few.max(1));
    let first = usize::try_from(draw % count.max(1) as u64).unwrap_or(0);
    let rounds = (0..step).flat_map(move |offset| (offset..count).step_by(step));
    rounds.map(move |place| (first + place) % count)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_place_comes_once_and_the_first_few_are_far_apart(count in 0_usize..3_000, few in 1_usize..200, draw: u64) {
            let places: Vec<usize> = spread(count, few, draw).collect();
            prop_assert_eq!(places.iter().collect::<BTreeSet<_>>().len(), count);
            let gap = count.div_ceil(few);
            let first = &places[..count.checked_div(gap).unwrap_or(0)];
            prop_assert!(first.windows(2).all(|two| (two[1] + count - two[0]) % count == gap % count));
        }
    }
}
