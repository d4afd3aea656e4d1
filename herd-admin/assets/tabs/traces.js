// Completed requests: find one, see where its time went and why its node won.
import { html, nothing } from "../core/view.js";
import { get, query, segment } from "../core/api.js";
import { refresh } from "../core/schedule.js";
import { use } from "../core/resource.js";
import { live, nodes } from "../core/live.js";
import { hue } from "../core/hues.js";
import { href, param, range, rangeMs, route, setParams, stretch } from "../core/route.js";
import { NONE, bytes, count, decimal, duration, moment, tokens } from "../core/format.js";
import { badge, copyButton, csv, empty, errorBox, missing, mono, pick, section, shown } from "../parts/bits.js";
import { signalsTable } from "../parts/signals.js";
import { table } from "../parts/table.js";
import { total, waterfall } from "../parts/waterfall.js";
import { nodeIds } from "../parts/shell.js";

const PAGE = 100;
const STATUSES = ["completed", "failed", "rejected", "incomplete", "reaped", "cancelled", "client_disconnected"];
const SURFACES = ["ollama_chat", "ollama_generate", "ollama_embed", "openai_chat", "openai_completions", "openai_embeddings", "openai_responses", "anthropic_messages", "openai_transcriptions", "openai_images", "openai_image_edits"];
const FILTERS = ["model", "node", "status", "tag", "app", "surface", "client", "key"];
// A moving bound in the path would ask anew each second.
const ROUND_MS = 60_000;

const COLUMNS = [
  { id: "at", title: "Ended", cell: (one) => html`<span class="number">${moment(one.at_unix_ms)}</span>` },
  { id: "status", title: "Status", cell: (one) => html`<span title=${one.error_message ?? nothing}>${badge(one.status)}</span>${one.http_status && one.http_status !== 200 ? html` <span class="dim number">${one.http_status}</span>` : nothing}` },
  { id: "model", title: "Model", cell: (one) => html`<span class="what"><span class="dot" .style=${`background:${hue(one.model ?? one.original_model)}`}></span><span class="name">${one.model ?? one.original_model}</span>
    ${one.stand_in ? html`<span class="badge info" title=${`asked for ${one.original_model}`}>${one.stand_in}</span>` : nothing}</span>` },
  { id: "node", title: "Node", cell: (one) => html`${one.node_id ?? NONE}${one.retry_count ? html` <span class="badge warn" title="retries">+${one.retry_count}</span>` : nothing}` },
  { id: "queue", title: "Queue", number: true, cell: (one) => duration(one.queue_ms) },
  { id: "ttft", title: "First token", number: true, cell: (one) => duration(one.ttft_ms) },
  { id: "latency", title: "Latency", number: true, cell: (one) => duration(one.latency_ms) },
  { id: "tokens", title: "Tokens", number: true, cell: (one) => html`${count(one.prompt_tokens)} → ${count(one.completion_tokens)}` },
  { id: "context", title: "Context", cell: (one) => (one.context_action ? badge(one.context_action) : NONE) },
  { id: "app", title: "App", cell: (one) => one.app || (one.tags ?? []).join(", ") || NONE },
  { id: "id", title: "Request", cell: (one) => html`<a class="mono" href=${href("traces", {}, one.request_id)}>${one.request_id}</a>` },
];

// Pages after the first, for one set of filters. While there are any, the range stays where it was.
let further = { key: "", from: 0, rows: [], cursor: undefined, busy: false, error: null };

function anchored(filters) {
  const marked = stretch();
  const key = JSON.stringify([filters, range(), marked]);
  const from = Math.floor((Date.now() - rangeMs()) / ROUND_MS) * ROUND_MS;
  if (further.key !== key) further = { key, from, rows: [], cursor: undefined, busy: false, error: null };
  else if (!further.rows.length && !further.busy) further.from = from;
  return marked ? { from_unix_ms: marked.from, to_unix_ms: marked.to } : { from_unix_ms: further.from };
}

async function more(path, cursor) {
  further.busy = true;
  refresh();
  const mine = further;
  try {
    const page = await get(`${path}&cursor=${segment(cursor)}`);
    mine.rows = [...mine.rows, ...page.traces];
    mine.cursor = page.next_cursor;
    mine.error = null;
  } catch (error) {
    mine.error = error;
  }
  mine.busy = false;
  refresh();
}

function listing(path, data) {
  const seen = new Set(data.traces.map((one) => one.request_id));
  const rows = [...data.traces, ...further.rows.filter((one) => !seen.has(one.request_id))];
  const cursor = further.cursor === undefined ? data.next_cursor : further.cursor;
  if (!rows.length) return empty("No request fits", "A longer range, or fewer filters.");
  return html`
    ${table("traces", COLUMNS, rows, { key: (one) => one.request_id, onRow: (one) => setTrace(one.request_id) })}
    ${further.error ? errorBox(further.error) : nothing}
    ${cursor ? html`<p class="more"><button ?disabled=${further.busy} @click=${() => more(path, cursor)}>${further.busy ? "Loading…" : "Older ones"}</button></p>` : nothing}`;
}

function setTrace(id) {
  history.pushState(null, "", href("traces", Object.fromEntries(route.params), id));
  dispatchEvent(new PopStateEvent("popstate"));
}

function list() {
  const filters = Object.fromEntries(FILTERS.map((name) => [name, param(name)]));
  const path = query("/dashboard/api/traces", { ...filters, ...anchored(filters), limit: PAGE });
  const traces = use(path, { every: 5_000 });
  const models = [...new Set(nodes().flatMap((node) => node.models.map((model) => model.name)))].sort();
  const field = (name, label) => html`<input type="search" aria-label=${label} placeholder=${label} .value=${filters[name]} @change=${(event) => setParams({ [name]: event.target.value.trim() })}>`;
  const find = (event) => {
    event.preventDefault();
    const id = new FormData(event.target).get("id").trim();
    if (id) setTrace(id);
  };
  return html`
    <div class="filters">
      ${pick("Model", filters.model, models, (model) => setParams({ model }))}
      ${pick("Node", filters.node, nodeIds(), (node) => setParams({ node }))}
      ${pick("Status", filters.status, STATUSES, (status) => setParams({ status }))}
      ${pick("API", filters.surface, SURFACES, (surface) => setParams({ surface }))}
      ${field("tag", "tag")}${field("app", "app")}${field("client", "client address")}${field("key", "API key")}
      <form @submit=${find}><input name="id" type="search" aria-label="request id" placeholder="request id ↵"></form>
      ${Object.values(filters).some(Boolean) ? html`<button class="quiet" @click=${() => setParams(Object.fromEntries(FILTERS.map((name) => [name, ""])))}>Clear</button>` : nothing}
      ${traces.missing ? nothing : csv(path)}
    </div>
    ${section("Completed requests", shown(traces, "Traces", (data) => listing(path, data), { rows: 8 }), { note: stretch() ? nothing : `last ${range()}` })}`;
}

// Its own part of the page answers with null where nothing is known.
const whole = (found) => one({ trace: found.trace, attempts: found.attempts ?? [], candidates: found.candidates ?? [] });

const facts = (trace) => [
  ["Ended", moment(trace.at_unix_ms)], ["API", trace.surface], ["Model", trace.model], ["Asked for", trace.original_model], ["Node", trace.node_id],
  ["HTTP status", trace.http_status], ["Queue", duration(trace.queue_ms)], ["First token", duration(trace.ttft_ms)], ["Load", duration(trace.load_ms)],
  ["Latency", duration(trace.latency_ms)], ["Start predicted after", duration(trace.predicted_ms)], ["Tokens read", count(trace.prompt_tokens)], ["Tokens written", count(trace.completion_tokens)],
  ["Context asked for", tokens(trace.num_ctx)], ["Context", tokens(trace.context_length)], ["Score", decimal(trace.score)], ["Retries", count(trace.retry_count)],
  ["App", trace.app], ["Tags", (trace.tags ?? []).join(", ")], ["Key", trace.key_id], ["Client", trace.client_ip], ["Program", trace.user_agent],
  ["Priority", trace.priority], ["Request", bytes(trace.request_bytes)], ["Answer", bytes(trace.response_bytes)], ["Reload cause", trace.reload_cause],
];

// What was predicted against what came, where both are known.
function against(trace, attempts, chosen) {
  const start = attempts.at(-1)?.started_ms;
  const real = start == null ? null : trace.latency_ms - start;
  const expected = chosen?.predicted ? total(chosen.predicted) : null;
  const waited = (trace.queue_ms ?? 0) + (trace.load_ms ?? 0);
  return html`<p class="dim">
    ${trace.predicted_ms == null ? nothing : html`When it came, ${duration(trace.predicted_ms)} were predicted until it starts; it waited ${duration(waited)}. `}
    ${expected && real > 0 ? html`When it was sent to ${trace.node_id}, ${duration(expected)} were predicted there; it took ${duration(real)}, ${decimal(real / expected, 2)} times as long.` : nothing}</p>`;
}

function one({ trace, attempts, candidates }) {
  const chosen = candidates.find((candidate) => candidate.node_id === trace.node_id);
  return html`
    ${section("Where the time went", html`${waterfall(trace, attempts, chosen)}${against(trace, attempts, chosen)}`, {
      note: html`${badge(trace.status)} ${trace.stand_in ? badge(trace.stand_in) : nothing} ${trace.context_action ? badge(trace.context_action) : nothing}` })}
    ${trace.error_message ? html`<div class="state bad"><strong>What went wrong</strong><span class="mono error-text">${trace.error_message}</span></div>` : nothing}
    ${section("Why this node", signalsTable(candidates, trace.node_id), { note: "signals of every candidate at the moment of the choice, in points" })}
    ${section("Facts", html`<dl class="facts">${facts(trace).filter(([, value]) => value != null && value !== "" && value !== NONE)
      .map(([label, value]) => html`<div><dt>${label}</dt><dd>${value}</dd></div>`)}</dl>`)}`;
}

function running(id) {
  const request = live.requests?.requests.find((one) => one.request_id === id);
  return request ? html`<p class="banner">It is still under way: ${request.phase}${request.node_id ? ` on ${request.node_id}` : ""}.</p>` : nothing;
}

export function view() {
  if (!route.id) return list();
  const back = Object.fromEntries(FILTERS.map((name) => [name, param(name)]));
  const found = use(`/dashboard/api/traces/${segment(route.id)}`, { key: `trace ${route.id}` });
  const unknown = found.error?.status === 404;
  return html`
    <p class="filters"><a href=${href("traces", back)}>← All traces</a> ${mono(route.id)} ${copyButton(route.id)}</p>
    ${running(route.id)}
    ${unknown
      ? found.missing ? missing("Traces") : empty("No trace of that id", "It may be older than what is kept, or still under way.")
      : shown(found, "Traces", whole, { rows: 6 })}`;
}
