//! What an answer teaches about its node.

use super::{Attempt, Env, Exchange, Note, Seen, State};
use crate::estimate::alone;
use crate::fleet::{FleetSnapshot, Model};
use crate::lesson::{Timing, lesson, load_ms_at_first_byte, waited_inside, was_loaded, written};
use crate::load::Work;
use crate::protect::sent_launch;

impl Exchange {
    /// The first byte of an answer shows that the load which the request caused is over.
    pub(super) fn learn_load(&mut self, attempt: &mut Attempt, env: &Env<'_>) {
        let Some(since_ms) = attempt.choice.slot.claim().and_then(|claim| claim.loading_since_ms()) else { return };
        let choice = &attempt.choice;
        if let Some(model) = choice.model() {
            let taken_ms = env.now_ms.saturating_sub(since_ms) as f64;
            let (profile, prefill_ms) = (&self.request.profile, choice.candidate.prediction.prefill_ms);
            let load_ms = load_ms_at_first_byte(profile.surface.dialect(), profile.stream, taken_ms, prefill_ms);
            if !self.request.benchmark {
                model.load.observe_work(&Work { load_ms, ..Work::default() });
            }
            if choice.candidate.plan.cause.is_some() {
                model.load.reloaded();
            }
        }
        self.note(Note::Loaded {
            node: choice.node().number,
            model: choice.model.clone(),
            context_length: choice.candidate.plan.window,
            signature: choice.model().map_or(self.request.profile.launch, |model| {
                sent_launch(&self.request.profile, choice.node(), model, &choice.candidate.plan)
            }),
        });
    }

    /// The fleet knows of the load that [`Note::Loaded`] told: the node may load again.
    pub fn load_known(&mut self) {
        if let State::Asking(attempt) | State::Answering(attempt, _) = &mut self.state
            && let Some(claim) = attempt.choice.slot.claim()
        {
            claim.load_ended();
        }
    }

    /// A complete answer teaches how long such answers take; `now` is the fleet as it is at its end.
    pub(super) fn learn(&mut self, attempt: &Attempt, seen: &Seen, now: &FleetSnapshot, env: &Env<'_>) {
        let Some(model) = attempt.choice.model().filter(|_| !self.request.benchmark) else { return };
        let (plan, profile) = (&attempt.choice.candidate.plan, &self.request.profile);
        let after = now.by_number(attempt.choice.node().number).and_then(|node| node.model(&attempt.choice.model));
        let service_ms = env.now_ms.saturating_sub(attempt.began_ms) as f64;
        let first_ms = self.record.first_byte_ms().filter(|_| profile.stream);
        let since_first_ms = |first_ms: f64| (self.age_ms(env.now_ms) as f64 - first_ms).max(0.0);
        let timing = Timing {
            service_ms,
            first_byte_ms: first_ms.map(|first_ms| service_ms - since_first_ms(first_ms)),
            loaded: was_loaded(plan, model, after),
        };
        learn_slots(attempt, seen, &timing, model, env);
        let lesson = lesson(&seen.counts, &timing, model);
        if let Some(service_ms) = lesson.service_ms {
            model.load.observe(service_ms, env.now_ms);
        }
        model.load.observe_work(&alone(profile, attempt.choice.node(), model, plan, &lesson.work));
        seen.tokens_per_piece.into_iter().for_each(|tokens| model.load.observe_tokens_per_piece(tokens));
        model.load.remember(profile.conversation, profile.prompt_tokens + seen.counts.completion_tokens.unwrap_or(0));
        if lesson.unforeseen_load {
            self.note(Note::UnforeseenLoad);
        }
    }
}

/// How many requests a runner works on at once is told by when their answers were written.
fn learn_slots(attempt: &Attempt, seen: &Seen, timing: &Timing, model: &Model, env: &Env<'_>) {
    if let Some((from_ms, to_ms)) = written(&seen.counts, timing) {
        model.load.ran(attempt.began_ms + from_ms, attempt.began_ms + to_ms, env.now_ms);
    }
    if let Some(waited) = waited_inside(&seen.counts, timing) {
        model.load.waited_inside(waited, attempt.choice.candidate.seen.on_model, env.now_ms);
    }
}
