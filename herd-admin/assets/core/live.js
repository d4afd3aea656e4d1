// The fleet as it is now: by a stream of events, or by asking every two seconds where there is none.
import { at, get } from "./api.js";
import { refresh } from "./schedule.js";

const POLL_MS = 2_000;
const BACKOFF_MAX_MS = 15_000;
// A stream says something at least every 15 s.
const SILENCE_MS = 40_000;
// Beside a stream the fleet is read anew now and then: ages in it are not news, and a lost event heals.
const HEAL_MS = 10_000;
// Where a herd has no stream it will hardly get one before it is replaced.
const TRY_STREAM_AGAIN_MS = 60_000;
const TRACES_KEPT = 50;

export const live = {
  status: null,
  queue: null,
  requests: null,
  pulls: null,
  traces: [],
  health: null,
  // "connecting", "stream", "poll" or "off".
  link: "connecting",
  error: null,
  // When each picture came, by this page's clock; ages in it are older by what has passed since.
  at: 0,
};

let stream = null;
let timer = 0;
let failures = 0;
let heard = 0;
let streamFailedAt = -Infinity;

export const since = () => (live.at ? performance.now() - live.at : 0);

export const nodes = () => live.status?.nodes ?? [];

export function startLive() {
  connect();
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) disconnect();
    else connect();
  });
  addEventListener("online", () => connect());
  setInterval(() => {
    if (document.hidden) return;
    if (stream && performance.now() - heard > SILENCE_MS) lost();
    // Ages count on between events.
    refresh();
  }, 1_000);
}

// Asks at once, after something was changed.
export function now() {
  clearTimeout(timer);
  poll();
}

function disconnect() {
  clearTimeout(timer);
  stream?.close();
  stream = null;
}

function connect() {
  disconnect();
  failures = 0;
  // The first picture does not wait for the stream.
  poll();
}

function tryStream() {
  if (stream || document.hidden || performance.now() - streamFailedAt < TRY_STREAM_AGAIN_MS) return;
  const source = new EventSource(at("/dashboard/events"));
  stream = source;
  heard = performance.now();
  const on = (name, take) =>
    source.addEventListener(name, (event) => {
      if (stream !== source) return;
      heard = performance.now();
      try {
        take(JSON.parse(event.data));
      } catch (error) {
        console.warn(`an event of ${name} could not be read`, error);
        return;
      }
      refresh();
    });
  on("snapshot", takeSnapshot);
  on("nodes", takeNodes);
  on("queue", (queue) => (live.queue = queue));
  on("requests", takeRequests);
  on("pulls", (pulls) => {
    if (Array.isArray(pulls.running)) live.pulls = { recent: [], ...pulls };
    else now();
  });
  on("health", (health) => (live.health = health));
  on("trace", (trace) => (live.traces = [trace, ...live.traces].slice(0, TRACES_KEPT)));
  source.onerror = () => stream === source && lost();
}

function lost() {
  const worked = live.link === "stream";
  stream?.close();
  stream = null;
  live.link = "poll";
  // One that worked comes back as soon as herd does.
  streamFailedAt = worked ? -Infinity : performance.now();
  clearTimeout(timer);
  poll();
}

function came() {
  live.at = performance.now();
  live.error = null;
  failures = 0;
}

function takeSnapshot(snapshot) {
  came();
  live.status = snapshot.status ?? live.status;
  live.queue = snapshot.queue ?? live.queue;
  live.requests = snapshot.requests ? stamped(snapshot.requests) : live.requests;
  live.pulls = snapshot.pulls ?? live.pulls;
  live.health = snapshot.health ?? live.health;
  live.link = "stream";
}

function takeNodes(change) {
  if (!live.status) return;
  const stamp = performance.now();
  const changed = new Map((change.changed ?? change.nodes ?? []).map((node) => [node.node_id, { ...node, stamp }]));
  const removed = new Set(change.removed ?? []);
  const kept = live.status.nodes.filter((node) => !removed.has(node.node_id));
  const merged = kept.map((node) => {
    const newer = changed.get(node.node_id);
    changed.delete(node.node_id);
    return newer ?? node;
  });
  live.status = { ...live.status, nodes: [...merged, ...changed.values()], fleet: change.fleet ?? live.status.fleet };
}

function takeRequests(change) {
  const removed = new Set((change.removed ?? []).map((one) => one.request_id ?? one));
  const changed = new Map(stampedList(change.changed ?? []).map((one) => [one.request_id, one]));
  const kept = (live.requests?.requests ?? []).filter((one) => !removed.has(one.request_id));
  const requests = kept.map((one) => changed.get(one.request_id) ?? one);
  const have = new Set(requests.map((one) => one.request_id));
  requests.push(...stampedList(change.added ?? []).filter((one) => !have.has(one.request_id)));
  live.requests = { total: change.total ?? requests.length, requests };
}

const stampedList = (requests) => {
  const stamp = performance.now();
  return requests.map((one) => ({ ...one, stamp }));
};

const stamped = (answer) => ({ ...answer, requests: stampedList(answer.requests ?? []) });

// The age of something from a picture, as it is now.
export const ageNow = (thing, ms) => ms + performance.now() - (thing.stamp ?? live.at);

let polling = false;

async function poll() {
  if (polling || document.hidden) return;
  polling = true;
  try {
    const [status, queue, requests, pulls] = await Promise.all([
      get("/fleet/status"),
      get("/fleet/queue"),
      get("/dashboard/api/requests?limit=200"),
      get("/fleet/pulls"),
    ]);
    came();
    Object.assign(live, { status, queue, requests: stamped(requests), pulls });
    if (live.link !== "stream") live.link = "poll";
    tryStream();
  } catch (error) {
    failures += 1;
    live.link = "off";
    live.error = error;
  } finally {
    polling = false;
  }
  const wait = failures ? Math.min(POLL_MS * 2 ** (failures - 1), BACKOFF_MAX_MS) : POLL_MS;
  clearTimeout(timer);
  timer = setTimeout(poll, live.link === "stream" ? HEAL_MS : wait);
  refresh();
}
