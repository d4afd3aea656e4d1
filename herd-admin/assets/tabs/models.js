// Each model: how it does on each node, and what to do about it.
import { html, nothing } from "../core/view.js";
import { query } from "../core/api.js";
import { live, nodes } from "../core/live.js";
import { use } from "../core/resource.js";
import { hue } from "../core/hues.js";
import { href, param, rangeParams, setParams } from "../core/route.js";
import { bytes, count, duration, nodesOf, percent, rate, tokens } from "../core/format.js";
import { badge, csv, empty, meter, section, shown, stat, tokenSum } from "../parts/bits.js";
import { table } from "../parts/table.js";
import { sizeInMemory } from "../parts/node-card.js";
import { pullsList } from "../parts/pulls.js";
import { deleteModel, pin, pull, unpin } from "../parts/model-actions.js";
import { unload } from "../parts/node-actions.js";

const name = (one) => html`<span class="what"><span class="dot" .style=${`background:${hue(one.model)}`}></span>
  <a class="name" href=${href("models", { model: one.model })}>${one.model}</a></span>`;

const COLUMNS = [
  { id: "model", title: "Model", value: (one) => one.model, cell: name },
  { id: "requests", title: "Requests", number: true, value: (one) => one.requests, cell: (one) => count(one.requests) },
  { id: "errors", title: "Errors", number: true, value: (one) => one.errors, cell: (one) => html`<span class=${one.errors ? "bad-text" : ""}>${count(one.errors)}</span>` },
  { id: "prompt", title: "Tokens read", number: true, value: (one) => one.prompt_tokens, cell: (one) => tokenSum(one, one.prompt_tokens) },
  { id: "completion", title: "written", number: true, value: (one) => one.completion_tokens, cell: (one) => tokenSum(one, one.completion_tokens) },
  { id: "ttft", title: "First token p50", number: true, value: (one) => one.ttft_ms.p50, cell: (one) => duration(one.ttft_ms.p50) },
  { id: "ttft95", title: "p95", number: true, value: (one) => one.ttft_ms.p95, cell: (one) => duration(one.ttft_ms.p95) },
  { id: "latency", title: "Latency p50", number: true, value: (one) => one.latency_ms.p50, cell: (one) => duration(one.latency_ms.p50) },
  { id: "speed", title: "Decode tok/s", number: true, value: (one) => one.tokens_per_s, cell: (one) => rate(one.tokens_per_s) },
  { id: "cold", title: "Cold loads", number: true, value: (one) => one.cold_loads, cell: (one) => count(one.cold_loads) },
  { id: "reloads", title: "Reloads", number: true, value: (one) => one.reloads, cell: (one) => html`<span class=${one.reloads ? "warn-text" : ""}>${count(one.reloads)}</span>` },
  { id: "context", title: "Context used p95", number: true, value: (one) => share(one), cell: context,
    help: "tokens of context that requests used, against what is allocated" },
];

const share = (one) => (one.context_allocated ? one.context_used_p95 / one.context_allocated : null);

function context(one) {
  if (one.context_used_p95 == null) return "–";
  return html`<span title=${`most: ${count(one.context_used_max)}`}>${tokens(one.context_used_p95)} of ${tokens(one.context_allocated)}
    ${share(one) == null ? nothing : meter(share(one), "context used")}</span>`;
}

const hot = (share) => (share == null ? "–" : html`<span title="part of the time that the node was known">${percent(share)}</span> ${meter(share, "in memory")}`);

const nodeColumns = [
  { id: "node", title: "Node", value: (one) => one.node_id, cell: (one) => html`<b>${one.node_id}</b> ${one.hot ? html`<span class="badge good">hot</span>` : nothing}` },
  ...COLUMNS.filter((one) => ["requests", "errors", "ttft", "ttft95", "latency", "speed", "cold", "reloads"].includes(one.id)),
  { id: "hot", title: "Hot time", number: true, value: (one) => one.hot_share, cell: (one) => hot(one.hot_share), help: "part of the range in which it was in memory there" },
  COLUMNS.find((one) => one.id === "context"),
  { id: "overflows", title: "Too long", number: true, value: (one) => one.overflows, help: "prompts that were estimated to be longer than the window that served them",
    cell: (one) => html`<span class=${one.overflows ? "warn-text" : ""}>${count(one.overflows)}</span>` },
];

// The model as nodes have it, from the fleet's own state.
function places(wanted) {
  return nodes().flatMap((node) => {
    const model = node.models.find((one) => one.name === wanted);
    return model ? [{ node, model }] : [];
  });
}

function placesTable(wanted, management) {
  const pinned = new Set((management?.models.find((one) => one.model === wanted)?.pinned ?? []).map((one) => one.node_id));
  const columns = [
    { id: "node", title: "Node", value: (one) => one.node.node_id, cell: (one) => html`<b>${one.node.node_id}</b>` },
    { id: "state", title: "State", value: (one) => (one.model.resident ? 0 : 1), cell: (one) => html`${badge(one.model.resident ? "hot" : "on disk")}
      ${pinned.has(one.node.node_id) ? html`<span class="badge info">pinned</span>` : nothing}` },
    { id: "disk", title: "On disk", number: true, value: (one) => one.model.size_bytes, cell: (one) => bytes(one.model.size_bytes) },
    { id: "memory", title: "In memory", number: true, value: (one) => one.model.resident && sizeInMemory(one.model, one.node.device.discrete),
      cell: (one) => (one.model.resident ? bytes(sizeInMemory(one.model, one.node.device.discrete)) : "–") },
    { id: "context", title: "Context", number: true, value: (one) => one.model.resident?.context_length, cell: (one) => html`${tokens(one.model.resident?.context_length)}
      <span class="dim" title="what it was trained with">of ${tokens(one.model.context_length_max)}</span>` },
    { id: "slots", title: "In flight", number: true, value: (one) => one.model.in_flight, cell: (one) => `${count(one.model.in_flight)} of ${count(one.model.slots)}` },
    { id: "p75", title: "p75", number: true, value: (one) => one.model.p75_ms, cell: (one) => duration(one.model.p75_ms), help: "what requests took there" },
    { id: "do", title: "", cell: ({ node, model }) => html`<span class="tools">
      ${pinned.has(node.node_id)
        ? html`<button class="quiet" @click=${() => unpin(wanted)}>Unpin</button>`
        : html`<button class="quiet" @click=${() => pin(wanted, node.node_id)}>Pin…</button>`}
      ${model.resident ? html`<button class="quiet" @click=${() => unload(node.node_id, model)}>Unload…</button>` : nothing}
      <button class="quiet" @click=${() => deleteModel(node.node_id, wanted, Boolean(model.resident))}>Delete…</button></span>` },
  ];
  return table("places", columns, places(wanted), { key: (one) => one.node.node_id, caption: `${wanted} on nodes` });
}

function detail(wanted, insight, management) {
  const one = insight?.models.find((model) => model.model === wanted);
  const elsewhere = nodes().some((node) => !node.models.some((model) => model.name === wanted));
  return html`
    ${section(wanted, html`
      ${one ? html`<div class="stats">
        ${stat("Requests", count(one.requests), { note: one.errors ? html`<span class="bad-text">${count(one.errors)} errors</span>` : "no errors" })}
        ${stat("First token, p50", duration(one.ttft_ms.p50), { note: `p95 ${duration(one.ttft_ms.p95)}` })}
        ${stat("Decode", rate(one.tokens_per_s), { unit: "tok/s", note: `${count(one.completion_tokens)} tokens written` })}
        ${stat("Cold loads", count(one.cold_loads), { note: one.reloads ? html`<span class="warn-text">${count(one.reloads)} reloads</span>` : "no reloads" })}
        ${stat("Context used, p95", tokens(one.context_used_p95), { note: html`of ${tokens(one.context_allocated)} allocated${one.overflows ? html`, <span class="warn-text">${count(one.overflows)} too long</span>` : nothing}`, bar: share(one) })}
      </div>` : nothing}
      ${one?.nodes.length ? html`<h3 class="sub">On each node</h3>${table("model-nodes", nodeColumns, one.nodes, { key: (row) => row.node_id })}` : nothing}
      <h3 class="sub">Where it is</h3>
      ${places(wanted).length ? placesTable(wanted, management) : empty("On no node", "Pull it, and it appears here.")}`, {
      id: "model",
      tools: html`
        <a class="quiet" href=${href("trends", { model: wanted })}>Trends</a>
        <a class="quiet" href=${href("traces", { model: wanted })}>Traces</a>
        <a class="quiet" href=${href("explain", { model: wanted })}>Explain</a>
        ${elsewhere ? html`<button class="quiet" @click=${() => pull({ model: wanted })}>Pull…</button>` : nothing}
        <button class="quiet" @click=${() => setParams({ model: "" }, { replace: false })}>All models</button>`,
    })}`;
}

// What the fleet has, where this herd keeps no records of what became of it.
function inventory() {
  const names = [...new Set(nodes().flatMap((node) => node.models.map((model) => model.name)))].sort();
  const columns = [
    { id: "model", title: "Model", value: (one) => one.model, cell: name },
    { id: "hot", title: "In memory on", value: (one) => one.hot.length, cell: (one) => (one.hot.length ? one.hot.map((id) => html`<span class="chip">${id}</span> `) : html`<span class="dim">–</span>`) },
    { id: "disk", title: "On disk", number: true, value: (one) => one.all, cell: (one) => nodesOf(one.all) },
    { id: "size", title: "Size", number: true, value: (one) => one.size, cell: (one) => bytes(one.size) },
    { id: "flight", title: "In flight", number: true, value: (one) => one.flight, cell: (one) => count(one.flight) },
  ];
  const rows = names.map((model) => {
    const found = places(model);
    return { model, all: found.length, hot: found.filter((one) => one.model.resident).map((one) => one.node.node_id),
      size: Math.max(...found.map((one) => one.model.size_bytes ?? 0)), flight: found.reduce((sum, one) => sum + one.model.in_flight, 0) };
  });
  if (!rows.length) return empty("No model yet", "Pull one, or start a node that has some.");
  return table("inventory", columns, rows, { key: (one) => one.model, first: { id: "model", up: true }, onRow: (one) => setParams({ model: one.model }, { replace: false }) });
}

export function view() {
  const path = query("/dashboard/api/models", rangeParams());
  const insight = use(path, { every: 15_000 });
  const management = use("/dashboard/api/model-management", { every: 10_000 });
  const wanted = param("model");
  const open = (one) => setParams({ model: one.model }, { replace: false });
  const tools = html`${insight.missing ? nothing : csv(path)}<button class="quiet" @click=${() => pull()}>Pull…</button>`;
  return html`
    ${wanted ? detail(wanted, insight.data, management.data) : nothing}
    ${pullsList()}
    ${section("Requests by model", shown(insight, "Numbers per model", (data) => data.models.length
      ? table("models", COLUMNS, data.models, { key: (one) => one.model, first: { id: "requests", up: false }, onRow: open, selected: (one) => one.model === wanted })
      : empty("No request in this range"), { rows: 5 }), { tools })}
    ${live.status ? section("Models of the fleet", inventory()) : nothing}`;
}
