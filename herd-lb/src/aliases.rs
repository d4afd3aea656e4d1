//! Aliases that hold a model at its loaded context, for requests that cannot say one (`context.openai`): made before the
//! first such request, and taken away with the runner's context and at the end. Each edge looks after its own.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use herd_admin::{AliasSettings, Aliases};
use herd_core::alias::{EdgeMark, alias_context, alias_name, create_body, is_alias, is_alias_of, is_made_by};
use herd_core::choice::Choice;
use herd_core::fleet::{FleetSnapshot, Node};
use herd_core::name::{ModelName, NodeId};

use crate::fleet::Fleet;

/// How often the nodes' lists are looked through for aliases that nobody needs any more.
pub const LOOK: Duration = Duration::from_secs(10);
/// Longest time for taking all aliases away at the end.
const CLEANUP: Duration = Duration::from_secs(5);

/// Keeps the aliases of the fleet. Cloning is cheap.
#[derive(Clone)]
pub struct AliasKeeper {
    aliases: Aliases,
    fleet: Arc<Fleet>,
    /// By which this edge knows its own, those of an earlier run included.
    mark: EdgeMark,
}

/// An alias that a request needs on its node.
#[derive(Debug, Clone)]
pub struct Wanted {
    address: SocketAddr,
    node_id: NodeId,
    model: ModelName,
    alias: ModelName,
    num_ctx: u64,
}

impl AliasKeeper {
    /// For the nodes of `fleet`; the edge's mark is kept in `data_dir`.
    ///
    /// # Errors
    /// When the system refuses an HTTP client.
    pub fn new(fleet: Arc<Fleet>, data_dir: &Path) -> anyhow::Result<Self> {
        Ok(Self { aliases: Aliases::new(AliasSettings::default())?, fleet, mark: mark(data_dir) })
    }

    /// The alias that keeps the runner of `choice`; `None` = it needs none.
    #[must_use]
    pub fn wanted(&self, choice: &Choice) -> Option<Wanted> {
        let (model, num_ctx) = (choice.model.clone(), choice.candidate.plan.alias?);
        let alias = alias_name(&model, num_ctx, self.mark)?;
        Some(Wanted { address: choice.node().address, node_id: choice.node().id.clone(), model, alias, num_ctx })
    }

    /// Sees to it that the node has the alias; `None` = it has not, so that the model serves, and may be reloaded.
    pub async fn ensure(&self, wanted: Wanted) -> Option<ModelName> {
        let Wanted { address, node_id, model, alias, num_ctx } = wanted;
        let body = create_body(&model, &alias, num_ctx).into();
        match self.aliases.ensure(address, &alias, body).await {
            Ok(()) => Some(alias),
            Err(error) => {
                let (node_id, model) = (node_id.as_str(), model.as_str());
                tracing::warn!(node_id, model, %error, "no alias: the model may be reloaded");
                None
            }
        }
    }

    /// Says that a node has lost an alias: it is made anew when next needed.
    pub fn lost(&self, node: SocketAddr) {
        self.aliases.forget(node);
    }

    /// Compares what the nodes list with what is known here, and takes away what no runner has any more.
    pub async fn look(&self) {
        let snapshot = self.fleet.snapshot();
        for node in &snapshot.nodes {
            let names = node.models.iter().map(|model| &model.name);
            let found: Vec<&ModelName> = names.filter(|name| is_made_by(name, self.mark)).collect();
            self.aliases.listed(node.address, |name| found.contains(&name));
            let unused: Vec<ModelName> = found.into_iter().filter(|alias| !is_of_use(alias, node)).cloned().collect();
            if !unused.is_empty() {
                self.aliases.cleanup(node.address, &unused).await;
            }
        }
    }

    /// Takes all aliases away that were made here, within a bound.
    pub async fn end(&self) {
        if tokio::time::timeout(CLEANUP, self.aliases.cleanup_all()).await.is_err() {
            tracing::warn!("not all aliases could be taken away in time");
        }
    }
}

/// The mark of the edge whose state is in `data_dir`: a new one, where there is none yet or it cannot be read.
fn mark(data_dir: &Path) -> EdgeMark {
    let file = data_dir.join("edge-mark");
    let kept = std::fs::read_to_string(&file).ok().and_then(|text| EdgeMark::parse(text.trim()));
    kept.unwrap_or_else(|| {
        let mark = EdgeMark(fastrand::u32(..));
        let written = std::fs::create_dir_all(data_dir).and_then(|()| std::fs::write(&file, format!("{mark}\n")));
        if let Err(error) = written {
            tracing::warn!(file = %file.display(), %error, "aliases that this run leaves will not be known again");
        }
        mark
    })
}

/// Whether `alias` has the context of the runner that its model has now.
fn is_of_use(alias: &ModelName, node: &Node) -> bool {
    let of_model = node.models.iter().find(|model| is_alias_of(alias, &model.name));
    let loaded = of_model.and_then(|model| model.resident.as_ref()).and_then(|resident| resident.context_length);
    loaded.is_some() && loaded == alias_context(alias)
}

/// Whether any node lists an alias: without one there is nothing to look after.
#[must_use]
pub fn any_listed(snapshot: &FleetSnapshot) -> bool {
    snapshot.nodes.iter().flat_map(|node| &node.models).any(|model| is_alias(&model.name))
}

#[cfg(test)]
mod tests {
    use herd_core::fleet::{Applied, HeartbeatLimits, LifeLimits, Sender};
    use herd_core::wire::{AvailableModel, Heartbeat, HerdReport, LoadedModel, OllamaReport};

    use super::*;

    #[test]
    fn an_alias_is_of_use_while_the_runner_has_its_context() {
        let model = ModelName::new("m").unwrap();
        let alias = |num_ctx| alias_name(&model, num_ctx, EdgeMark(1)).unwrap();
        let named = |name: &ModelName| AvailableModel { name: name.to_string(), ..AvailableModel::default() };
        let loaded = LoadedModel { name: "m".into(), context_length: 8192, ..LoadedModel::default() };
        let available = vec![named(&model), named(&alias(8192)), named(&alias(4096))];
        let ollama = OllamaReport { loaded: vec![loaded], available, ..OllamaReport::default() };
        let report = HerdReport { seq: 1, boot: "b".into(), ollama, ..HerdReport::default() };
        let heartbeat = Heartbeat { node_id: "a".into(), herd: Some(report), ..Heartbeat::default() };
        let sender = Sender::at("127.0.0.1".parse().unwrap());
        let (life, limits) = (LifeLimits::default(), HeartbeatLimits::default());
        let applied = FleetSnapshot::default().apply(heartbeat, sender, 0, &life, &limits);
        let Ok(Applied::Changed(snapshot)) = applied else { panic!("refused") };
        let node = &snapshot.nodes[0];
        assert!(any_listed(&snapshot));
        assert_eq!((is_of_use(&alias(8192), node), is_of_use(&alias(4096), node)), (true, false));
    }

    #[test]
    fn an_edge_knows_its_own_aliases_after_a_restart() {
        let folder = std::env::temp_dir().join(format!("herd-mark-{}", std::process::id()));
        let first = mark(&folder);
        assert_eq!(mark(&folder), first);
        std::fs::write(folder.join("edge-mark"), "nonsense").unwrap();
        let second = mark(&folder);
        assert_eq!(mark(&folder), second);
        std::fs::remove_dir_all(folder).unwrap();
    }
}
