//! The agent's tasks and how they are tied together.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use herd_core::name::NodeId;
use herd_core::wire::OllamaState;
use reqwest::{Client, redirect};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until};

use crate::collect::{Collector, HostSource};
use crate::compose::{Identity, Moment, heartbeat};
use crate::config::{Config, MdnsConfig, Problem};
use crate::discover::{self, LINGER};
use crate::identity::{IdentityError, node_id};
use crate::ollama::{Essence, OllamaFacts, Poller, watch_ollama};
use crate::reach::{Reach, offered_address, own_address};
use crate::send::{Outbox, Post, Router, TELL_AGAIN, deliver, stopped};

/// How long mDNS rests after a failure before it is tried anew.
const MDNS_REST: Duration = Duration::from_secs(30);

/// Least time between a heartbeat and one out of turn: models that come and go in a burst are told together.
const OUT_OF_TURN: Duration = Duration::from_millis(250);

/// How often runners are asked how many requests they run. With [`OUT_OF_TURN`] and the way to the edge, a change is known
/// there within half a second.
const OCCUPANCY_LOOK: Duration = Duration::from_millis(150);

/// Why the agent could not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The node has no usable name.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The configuration cannot be used on this machine.
    #[error(transparent)]
    Config(#[from] Problem),
    /// The HTTP client cannot be made.
    #[error("HTTP client: {0}")]
    Client(#[from] reqwest::Error),
    /// A part of the agent ended by itself: a defect.
    #[error("a task of the agent ended: {0}")]
    Task(String),
}

/// Runs an agent until `shutdown` is true or its sender is gone, and tells the edges that this node leaves.
///
/// # Errors
/// When the node's name cannot be had, or a part of the agent breaks. Neither Ollama nor an edge that is absent is an
/// error: the agent reports what it knows, and tries for ever.
pub async fn run(config: Config, source: HostSource, shutdown: watch::Receiver<bool>) -> Result<(), RunError> {
    run_pausable(config, source, shutdown, watch::channel(false).1).await
}

/// As [`run`]; while `paused` is true no edge hears of this node, as of one whose agent is frozen. Not even a stop is
/// announced then.
///
/// # Errors
/// As [`run`].
pub async fn run_pausable(
    mut config: Config,
    source: HostSource,
    shutdown: watch::Receiver<bool>,
    paused: watch::Receiver<bool>,
) -> Result<(), RunError> {
    if config.node_id.is_none() {
        // The name is kept there.
        config
            .expand_home(std::env::home_dir().and_then(|home| home.into_os_string().into_string().ok()).as_deref())?;
    }
    // Neither an inherited proxy nor a redirect may take heartbeats elsewhere.
    let client = Client::builder().no_proxy().redirect(redirect::Policy::none()).build()?;
    let node_id = match &config.node_id {
        Some(id) => id.clone(),
        None => node_id(&config.data_dir)?,
    };
    tracing::info!(node_id = node_id.as_str(), ollama = %config.ollama.url, "agent starts");
    let mut tasks = JoinSet::new();
    let (facts_in, facts) = watch::channel(None);
    let poller = Poller::new(client.clone(), config.ollama.url.clone(), config.ollama.timeout);
    tasks.spawn(watch_ollama(poller, config.heartbeat.interval, config.ollama.watch_interval, facts_in));

    let (routers_in, routers) = watch::channel(given(&config));
    if config.router_urls.is_empty() && config.mdns.enabled {
        tasks.spawn(find_routers(config.mdns.clone(), routers_in));
    } else {
        tasks.spawn(async move { routers_in.closed().await });
    }

    let (outbox_in, outbox) = watch::channel(None);
    let identity = identity(&config, &node_id);
    let collector = Collector::new(source, client.clone(), &config.ollama.url, config.ollama.env);
    let (routers_seen, reach) = (routers.clone(), Reach::default());
    let boot = identity.boot.clone();
    let beat = Beat {
        identity,
        seq: 0,
        collector,
        facts,
        routers: routers_seen,
        reach,
        ollama_address: None,
        told: Told::default(),
        outbox: outbox_in,
    };
    tasks.spawn(beat.run());

    let (timeout, interval) = (config.heartbeat.timeout, config.heartbeat.interval);
    let post = Post { client, node_id, boot, token: config.join_token, timeout, interval, paused };
    tokio::select! {
        () = deliver_to_all(post, routers, outbox, shutdown) => Ok(()),
        Some(ended) = tasks.join_next() => {
            Err(RunError::Task(ended.err().map_or_else(|| "too early".to_owned(), |error| error.to_string())))
        }
    }
}

fn identity(config: &Config, node_id: &NodeId) -> Identity {
    Identity {
        node_id: node_id.clone(),
        boot: format!("{:016x}", fastrand::u64(..)),
        ollama_url: config.ollama.url.clone(),
        interval: config.heartbeat.interval,
    }
}

fn given(config: &Config) -> BTreeSet<Router> {
    config
        .router_urls
        .iter()
        .map(|url| Router { name: url.to_string(), urls: vec![url.clone()], discovered: false })
        .collect()
}

async fn find_routers(config: MdnsConfig, routers: watch::Sender<BTreeSet<Router>>) {
    while !routers.is_closed() {
        match discover::browse(&config, LINGER, &routers).await {
            Ok(()) => return,
            Err(error) => tracing::warn!(%error, "cannot look for edges; trying again later"),
        }
        tokio::time::sleep(MDNS_REST).await;
    }
}

/// One delivering task per edge, started and ended as edges come and go. Returns after the last goodbye.
async fn deliver_to_all(
    post: Post,
    mut routers: watch::Receiver<BTreeSet<Router>>,
    outbox: Outbox,
    mut shutdown: watch::Receiver<bool>,
) {
    let mut tasks = JoinSet::new();
    let mut running: BTreeMap<Router, AbortHandle> = BTreeMap::new();
    loop {
        let wanted = routers.borrow_and_update().clone();
        running.retain(|router, task| {
            let keep = wanted.contains(router);
            if !keep {
                task.abort();
            }
            keep
        });
        for router in wanted {
            let start = || deliver(post.clone(), router.clone(), outbox.clone(), shutdown.clone());
            running.entry(router.clone()).or_insert_with(|| tasks.spawn(start()));
        }
        tokio::select! {
            () = stopped(&mut shutdown) => break,
            changed = routers.changed() => if changed.is_err() { break },
            Some(ended) = tasks.join_next(), if !tasks.is_empty() => {
                // Only an aborted task ends before the stop.
                drop(ended);
            }
        }
    }
    while tasks.join_next().await.is_some() {}
}

/// Writes heartbeats: at once, then at a fixed pace, and out of turn when something important changes.
struct Beat {
    identity: Identity,
    seq: u64,
    collector: Collector,
    facts: watch::Receiver<Option<Arc<OllamaFacts>>>,
    routers: watch::Receiver<BTreeSet<Router>>,
    reach: Reach,
    /// Where Ollama was last found; `None` = nowhere yet.
    ollama_address: Option<String>,
    told: Told,
    outbox: watch::Sender<Option<Bytes>>,
}

impl Beat {
    async fn run(mut self) {
        // The first answer, or the lack of one, comes within one timeout; a heartbeat before it would tell of a node
        // without models.
        if self.facts.wait_for(Option::is_some).await.is_err() {
            return;
        }
        let mut tick = interval_at(Instant::now() + self.identity.interval, self.identity.interval);
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut quick = false;
        loop {
            let ollama = self.facts.borrow_and_update().clone().unwrap_or_default();
            let told = ollama.essence();
            self.beat(&ollama, quick).await;
            let not_before = Instant::now() + OUT_OF_TURN;
            quick = tokio::select! {
                _ = tick.tick() => false,
                changed = important_change(&mut self.facts, &told, not_before) => {
                    if !changed {
                        return;
                    }
                    false
                }
                () = other_occupancy(&self.collector, not_before) => true,
            };
        }
    }

    /// Writes one; a `quick` one reads of the machine only what its runners do.
    async fn beat(&mut self, ollama: &OllamaFacts, quick: bool) {
        if ollama.is_herd {
            self.refuse_herd();
            return;
        }
        let machine = self.collector.collect(ollama, quick).await;
        self.seq += 1;
        let own = self.own_address(ollama.state).await;
        let address = self.ollama_address(own).await;
        // Requests would go to whatever has its port on this machine.
        let nowhere = address.is_none().then(|| OllamaFacts { state: OllamaState::Down, ..ollama.clone() });
        let moment = Moment {
            seq: self.seq,
            timestamp: unix_seconds(),
            lan_ip: own.map(|own| own.to_string()).unwrap_or_default(),
            ollama_address: address.unwrap_or_default(),
        };
        let heartbeat = heartbeat(&self.identity, moment, &machine, nowhere.as_ref().unwrap_or(ollama));
        match serde_json::to_vec(&heartbeat) {
            Ok(json) => {
                self.outbox.send_replace(Some(json.into()));
            }
            Err(error) => tracing::error!(%error, "a heartbeat cannot be written"),
        }
    }

    /// A herd is no node: its requests would come back to it, for ever.
    fn refuse_herd(&mut self) {
        if self.told.is_due() {
            tracing::error!(
                url = %self.identity.ollama_url,
                "this is a herd, not an Ollama, and is not reported: give the agent Ollama's own address (--ollama-url, \
                 usually http://127.0.0.1:11434). OLLAMA_HOST may name a herd for clients, not for agents"
            );
        }
    }

    /// The address that this machine has towards the first edge; `None` = there is none.
    async fn own_address(&mut self, ollama: OllamaState) -> Option<IpAddr> {
        let url = self.routers.borrow().first().and_then(|router| router.urls.first().cloned())?;
        let own = own_address(&url).await?;
        if ollama == OllamaState::Ok {
            self.reach.check(&self.identity.ollama_url, own).await;
        }
        Some(own)
    }

    /// Where Ollama is, as edges are to be told; a name that cannot be resolved now is where it was. `None` = nobody knows.
    async fn ollama_address(&mut self, own: Option<IpAddr>) -> Option<String> {
        let url = &self.identity.ollama_url;
        if let Some(address) = offered_address(url, own).await {
            self.ollama_address = Some(address);
        } else if self.ollama_address.is_none() && self.told.is_due() {
            tracing::warn!(
                %url,
                "the name of Ollama's host cannot be resolved, so that no edge can be told where Ollama is: is it written \
                 right (--ollama-url, OLLAMA_HOST)? An IP address will do, too"
            );
        }
        self.ollama_address.clone()
    }
}

/// When the log was last told of something that is wrong with Ollama's URL; `None` = not yet.
#[derive(Debug, Default)]
struct Told(Option<Instant>);

impl Told {
    /// Whether it is to be told (again) now, which it then is.
    fn is_due(&mut self) -> bool {
        let due = self.0.is_none_or(|at| at.elapsed() >= TELL_AGAIN);
        if due {
            self.0 = Some(Instant::now());
        }
        due
    }
}

/// Waits until Ollama's essence is another than `told`, at least until `not_before`. False = there will be no more
/// facts.
async fn important_change(
    facts: &mut watch::Receiver<Option<Arc<OllamaFacts>>>,
    told: &Essence,
    not_before: Instant,
) -> bool {
    let changed = facts.wait_for(|facts| facts.as_ref().is_some_and(|facts| facts.essence() != *told)).await.is_ok();
    sleep_until(not_before).await;
    changed
}

/// Waits until runners are busy with another number of requests than was last told, at least until `not_before`.
///
/// Work of others on this node is what edges cannot know themselves; they should not choose by what was so five seconds
/// ago.
async fn other_occupancy(collector: &Collector, not_before: Instant) {
    loop {
        tokio::time::sleep(OCCUPANCY_LOOK).await;
        if collector.is_busy_otherwise().await {
            return sleep_until(not_before).await;
        }
    }
}

fn unix_seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

#[cfg(test)]
mod tests;
