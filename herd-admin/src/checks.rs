//! What is wrong with the fleet and what could be better: looked at in the background, told at once.

mod advice;
mod board;
mod counted;
mod http;
mod stats;

use std::sync::Arc;

use herd_core::access::Scope;
use herd_core::health::{Inputs, Policy, evaluate};
use herd_core::recommend::{Action, Commitments, recommend};
use tokio::sync::watch;

pub(crate) use advice::recommendations;
pub(crate) use board::Checks;
pub use counted::EdgeCounts;
pub(crate) use http::{acknowledge, check, health, history, mute, unmute};

use crate::state::AdminState;
use crate::stop::repeated;

/// Looks from one list of recommendations to the next.
const ADVICE_EVERY: u32 = 3;

/// Looks at the fleet until `shutdown`.
pub(crate) async fn run(state: AdminState, shutdown: watch::Receiver<bool>) {
    let mut looks = (0..ADVICE_EVERY).cycle();
    let every = state.config().health_interval;
    repeated(every, shutdown, || look(&state, looks.next() == Some(0))).await;
}

/// One look: findings, and recommendations if it `recommends`.
pub(crate) async fn look(state: &AdminState, recommends: bool) {
    let checks = state.checks();
    // One at a time: a look counts what it sees against what the last one saw.
    let _turn = checks.turn().await;
    checks.restore(state.config().store.as_ref()).await;
    let known = stats::gather(state).await;
    let view = state.view();
    let config = state.config();
    let policy = Policy {
        life: view.policy.life,
        pull: state.pulls().policy().as_ref().clone(),
        has_join_token: config.join_token.is_some() || state.keys().posture().scopes.has(Scope::Node),
        version: config.version.clone(),
        ..Policy::default()
    };
    let inputs = Inputs {
        snapshot: &view.snapshot,
        policy: &policy,
        stats: &known,
        catalogue: checks.catalogue(),
        now_ms: view.now_ms,
        unix_ms: view.unix_ms,
    };
    let changed = checks.fold(evaluate(&inputs), view.unix_ms);
    checks.keep_score(state.config().store.as_ref());
    if changed {
        checks.save(state.config().store.as_ref()).await;
    }
    if recommends {
        let (running, _) = state.pulls().list();
        let at = |id: &str| view.snapshot.node(id).map(|node| node.id.clone());
        let pulling: Vec<_> = running.iter().filter_map(|pull| at(&pull.node_id)).collect();
        let pinned = state.pins().on_nodes(&view.snapshot);
        let mut recommended = recommend(&inputs, &Commitments { pulling: &pulling, pinned: &pinned });
        // One that is on its way is not missed elsewhere for that.
        let on_its_way = |model: &str| running.iter().any(|pull| pull.model == model);
        recommended.retain(|one| !(matches!(one.action, Action::Pull { .. }) && on_its_way(&one.model)));
        checks.set_advice(Arc::new(recommended));
    }
}
