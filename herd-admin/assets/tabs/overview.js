// The fleet now: capacity left, a card for each node, what is hot where, and requests as they go.
import { html, nothing, repeat } from "../core/view.js";
import { live, nodes } from "../core/live.js";
import { use } from "../core/resource.js";
import { hue } from "../core/hues.js";
import { href, range, rangeParams } from "../core/route.js";
import { query } from "../core/api.js";
import { NONE, bytes, count, duration, percent, rate } from "../core/format.js";
import { badge, change, copyButton, empty, errorBox, section, skeleton, stat } from "../parts/bits.js";
import { busySlots, freeSlots, nodeCard, pips } from "../parts/node-card.js";
import { requestsList } from "../parts/requests.js";
import { pullsList } from "../parts/pulls.js";
import { pull } from "../parts/model-actions.js";

const sum = (list, value) => list.reduce((all, one) => all + (value(one) ?? 0), 0);

function capacity(speeds) {
  const all = nodes().filter((node) => node.state !== "offline");
  const slots = sum(all, (node) => node.slots);
  const free = sum(all, freeSlots);
  const busy = sum(all, busySlots);
  const total = sum(all, (node) => node.device.total_bytes);
  const left = sum(all, (node) => node.device.free_bytes);
  const { fleet } = live.status;
  const tight = slots > 0 && free === 0;
  return html`
    ${stat("Slots free", html`${free}<span class="unit"> of ${slots}</span>`, { note: `${count(busy)} busy`, tone: tight ? "warn" : "", bar: slots ? busy / slots : 0 })}
    ${stat("Memory free", bytes(left), { note: `of ${bytes(total)}`, bar: total ? 1 - left / total : 0 })}
    ${stat("Nodes ready", html`${fleet.nodes_ready}<span class="unit"> of ${fleet.nodes_total}</span>`, {
      tone: fleet.nodes_ready < fleet.nodes_total ? "warn" : "", note: `${count(fleet.models_loaded)} models hot` })}
    ${stat("Waiting", count(live.queue?.waiting), { note: "at the edge", tone: live.queue?.waiting ? "warn" : "" })}
    ${speeds ? stat("Throughput", rate(sum([...speeds.values()], (one) => one)), { unit: "tok/s", note: html`<span title="tokens written by all nodes">last 5 min</span>` }) : nothing}`;
}

function totals() {
  const overview = use(query("/dashboard/api/overview", rangeParams()), { every: 10_000 });
  if (overview.missing) return nothing;
  if (!overview.data) return ["Requests", "Errors", "First token, p50", "Tokens written"].map((label) => stat(label, NONE, { note: `last ${range()}` }));
  const { totals: t, previous: p } = overview.data;
  const failed = (of) => (of ? of.failed + of.rejected + of.incomplete + of.reaped : undefined);
  const note = (now, before, better) => html`${change(now, before, { better })} last ${range()}`;
  return html`
    ${stat("Requests", count(t.requests), { note: note(t.requests, p?.requests) })}
    ${stat("Errors", percent(failed(t), t.requests || NaN), { tone: failed(t) ? "bad" : "", note: note(failed(t), failed(p), "less") })}
    ${stat("First token, p50", duration(t.ttft_ms.p50), { note: html`p95 ${duration(t.ttft_ms.p95)} ${change(t.ttft_ms.p50, p?.ttft_ms.p50, { better: "less" })}` })}
    ${stat("Tokens written", count(t.completion_tokens), { note: html`${t.tokens_per_s == null ? `last ${range()}` : html`<span title="for one request, the median">${rate(t.tokens_per_s)}/s each</span>`} ${change(t.completion_tokens, p?.completion_tokens)}` })}`;
}

// Tokens per second of each node in the last minutes, where this herd keeps records.
function throughput() {
  const { data } = use("/dashboard/api/usage?group_by=node&range=5m", { every: 5_000 });
  const seconds = Math.max(data?.passed_ms ?? 0, 1_000) / 1_000;
  return data ? new Map(data.rows.map((row) => [row.key, row.completion_tokens / seconds])) : null;
}

function models() {
  const byName = new Map();
  for (const node of nodes()) {
    for (const model of node.models) {
      const one = byName.get(model.name) ?? { name: model.name, hot: [], cold: 0, busy: 0, slots: 0, others: 0 };
      byName.set(model.name, one);
      if (model.resident) {
        one.hot.push(node.node_id);
        one.busy += model.in_flight;
        one.others += model.resident.busy_by_others;
        one.slots += model.slots;
      } else {
        one.cold += 1;
      }
    }
  }
  return [...byName.values()].sort((a, b) => b.hot.length - a.hot.length || a.name.localeCompare(b.name));
}

function modelList() {
  const all = models();
  if (!all.length) return empty("No model yet", "Pull one, or start a node that has some.");
  return html`<ul class="fleet-models">${repeat(all, (one) => one.name, (one) => html`<li>
    <span class="dot" .style=${`background:${one.hot.length ? hue(one.name) : "var(--line)"}`}></span>
    <a class="name" href=${href("models", { model: one.name })}>${one.name}</a>
    <span class="where">${one.hot.length ? one.hot.map((id) => html`<span class="chip">${id}</span>`) : html`<span class="dim">on disk</span>`}
      ${one.hot.length && one.cold ? html`<span class="dim" title="nodes that have it on disk only">+${one.cold} on disk</span>` : nothing}
      ${!one.hot.length && one.cold > 1 ? html`<span class="dim">× ${one.cold}</span>` : nothing}</span>
    ${one.hot.length ? pips(Math.min(one.busy, one.slots), one.others, one.slots) : nothing}
  </li>`)}</ul>`;
}

const LATELY = 12;

// What events told, and before there were any what is stored.
function ended() {
  if (live.traces.length >= LATELY) return live.traces.slice(0, LATELY);
  const { data } = use(`/dashboard/api/traces?limit=${LATELY}`, { key: "lately" });
  const told = new Set(live.traces.map((one) => one.request_id));
  return [...live.traces, ...(data?.traces ?? []).filter((one) => !told.has(one.request_id))].slice(0, LATELY);
}

function lately() {
  const rows = ended();
  if (!rows.length) return nothing;
  return section("Just ended", html`<ul class="ended">${repeat(rows, (one) => one.request_id, (one) => html`<li>
    <span title=${one.error_message ?? nothing}>${badge(one.status)}</span>
    <span class="what"><span class="dot" .style=${`background:${hue(one.model ?? one.original_model)}`}></span><span class="name">${one.model ?? one.original_model}</span></span>
    <span class="where">${one.node_id ?? NONE}</span>
    <span class="dim app">${one.app || NONE}</span>
    <span class="number dim" title="time to first token">${duration(one.ttft_ms)}</span>
    <span class="number" title="whole answer">${duration(one.latency_ms)}</span>
    <span class="number dim" title="tokens read and written">${count(one.prompt_tokens)} → ${count(one.completion_tokens)}</span>
    <a class="mono id" href=${href("traces", {}, one.request_id)}>${one.request_id}</a></li>`)}</ul>`, {
    note: "first token, whole answer, tokens", tools: html`<a class="quiet" href=${href("traces")}>All</a>` });
}

// Other machines reach this one by another name than it has for itself.
const HOST = /^(localhost|127\.|\[)/.test(location.hostname) ? "HOST" : location.hostname;
const JOIN = `herd-agent --router-url ${location.protocol}//${HOST}${location.port ? `:${location.port}` : ""}`;

export function view() {
  if (!live.status) return live.error ? errorBox(live.error) : skeleton(6);
  const speeds = throughput();
  const cards = [...nodes()].sort((a, b) => a.node_id.localeCompare(b.node_id));
  return html`
    <div class="stats">${capacity(speeds)}${totals()}</div>
    ${cards.length
      ? html`<div class="cards">${repeat(cards, (node) => node.node_id, (node) => nodeCard(node, speeds && (speeds.get(node.node_id) ?? 0)))}</div>`
      : empty("No node has joined yet", html`On each machine with Ollama: <code>${JOIN}</code> ${copyButton(JOIN)}`)}
    <div class="columns">
      ${section("Requests under way", requestsList(), { note: live.requests?.total ? count(live.requests.total) : nothing, id: "requests",
        tools: html`<a class="quiet" href=${href("traces")}>Traces</a>` })}
      ${section("Models", modelList(), { tools: html`<button class="quiet" @click=${() => pull()}>Pull…</button>` })}
    </div>
    ${pullsList()}
    ${lately()}`;
}
