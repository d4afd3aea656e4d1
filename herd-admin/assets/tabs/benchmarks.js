// Measured runs against the fleet: start one, watch it, compare it with those before.
import { html, nothing } from "../core/view.js";
import { post, segment } from "../core/api.js";
import { reload, use } from "../core/resource.js";
import { nodes } from "../core/live.js";
import { param, setParams } from "../core/route.js";
import { count, duration, moment, percent, rate } from "../core/format.js";
import { badge, change, empty, meter, section, shown } from "../parts/bits.js";
import { dialog } from "../parts/dialog.js";
import { table } from "../parts/table.js";
import { nodeIds } from "../parts/shell.js";

const API = "/dashboard/api/benchmarks";

function start() {
  const models = [...new Set(nodes().flatMap((node) => node.models.map((model) => model.name)))].sort();
  const hot = nodes().flatMap((node) => node.models.filter((model) => model.resident).map((model) => model.name))[0];
  const number = (name, label, value, help) => ({ name, label, value, type: "number", min: 1, step: 1, help });
  dialog({
    title: "Start a benchmark",
    text: html`<p>It sends real requests, which others then wait for.</p>`,
    fields: [
      { name: "model", label: "Model", value: hot ?? models[0] ?? "", options: models },
      { name: "node", label: "Node", value: "", options: [{ value: "", label: "every node that has it" }, ...nodeIds()] },
      number("requests", "Requests per node", "20"),
      number("concurrency", "At a time", "2"),
      number("prompt_tokens", "Prompt, tokens", "256"),
      number("max_tokens", "Answer, tokens", "128"),
    ],
    action: "Start",
    run: async (values) => {
      const whole = (name) => Math.max(1, Math.round(Number(values[name])) || 1);
      const having = nodes().filter((node) => node.models.some((model) => model.name === values.model)).map((node) => node.node_id);
      await post(`${API}/start`, {
        models: [values.model], node_ids: values.node ? [values.node] : having, requests: whole("requests"), concurrency: whole("concurrency"),
        prompt_tokens: whole("prompt_tokens"), max_tokens: whole("max_tokens"),
      });
      reload(API);
    },
  });
}

function cancel() {
  dialog({
    title: "Cancel the benchmark?",
    text: html`<p>What it measured so far is kept.</p>`,
    action: "Cancel the run",
    danger: true,
    run: async () => {
      await post(`${API}/cancel`, {});
      reload(API);
    },
  });
}

function progress(now) {
  if (!now?.run_id) return nothing;
  const share = now.total ? now.done / now.total : 0;
  return section("Under way", html`${meter(share, "progress")}<p class="number">${count(now.done)} of ${count(now.total)} requests, ${percent(share)}${now.errors ? html`, <span class="bad-text">${count(now.errors)} errors</span>` : nothing}</p>`,
    { note: now.run_id, tools: html`<button class="quiet" @click=${cancel}>Cancel…</button>`, id: "progress" });
}

const told = (summary) => {
  if (summary == null) return "–";
  if (typeof summary === "string") return summary;
  const per = typeof summary.tokens_per_s === "object" ? summary.tokens_per_s?.p50 : summary.tokens_per_s;
  return html`${per == null ? nothing : html`${rate(per)} tok/s `}${summary.ttft_ms?.p50 == null ? nothing : html`<span class="dim">first token ${duration(summary.ttft_ms.p50)}</span>`}`;
};

const load = (config) =>
  config ? html`<span class="number" title="requests per node, at a time or per second, tokens of prompt and answer">${count(config.requests)} ×
    ${config.rate_per_s ? `${rate(config.rate_per_s)}/s` : count(config.concurrency)}, ${count(config.prompt_tokens)} → ${count(config.max_tokens)} tok</span>` : "–";

const names = (list) => (list ?? []).map((one) => html`<span class="chip">${one}</span> `);

function runs(data) {
  if (!data.runs.length) return empty("No benchmark yet", html`<button class="primary" @click=${start}>Start the first</button>`);
  const [first, second] = [param("run"), param("with")];
  const choose = (run) => {
    if (run.run_id === first) return setParams({ run: second, with: "" });
    if (run.run_id === second) return setParams({ with: "" });
    setParams(first ? { with: run.run_id } : { run: run.run_id });
  };
  const columns = [
    { id: "at", title: "Started", value: (one) => one.started_unix_ms, cell: (one) => html`<button class="sort number" aria-pressed=${one.run_id === first || one.run_id === second ? "true" : "false"} @click=${() => choose(one)}>${moment(one.started_unix_ms)}</button>` },
    { id: "state", title: "State", value: (one) => one.state, cell: (one) => badge(one.state, one.error ?? "") },
    { id: "models", title: "Models", cell: (one) => names(one.models) },
    { id: "nodes", title: "Nodes", cell: (one) => names(one.nodes) },
    { id: "config", title: "Load", cell: (one) => load(one.config) },
    { id: "took", title: "Took", number: true, value: (one) => (one.ended_unix_ms ?? Date.now()) - one.started_unix_ms, cell: (one) => duration((one.ended_unix_ms ?? Date.now()) - one.started_unix_ms) },
    { id: "summary", title: "Result", cell: (one) => told(one.summary) },
  ];
  return html`<p class="dim">One row opens a run, a second one compares it.</p>
    ${table("runs", columns, data.runs, { key: (one) => one.run_id, first: { id: "at", up: false }, onRow: choose, selected: (one) => one.run_id === first || one.run_id === second })}`;
}

const key = (one) => `${one.node_id} ${one.model}`;

function results(data, other) {
  const old = new Map((other?.results ?? []).map((one) => [key(one), one]));
  const against = (one, of, better) => (old.has(key(one)) ? html` ${change(of(one), of(old.get(key(one))), { better, title: "against the other run" })}` : nothing);
  const was = (one, of, show) => (old.has(key(one)) ? html`<small>was ${show(of(old.get(key(one))))}</small>` : nothing);
  const measure = (id, title, of, show, better) => ({ id, title, number: true, value: of, cell: (one) => html`${show(of(one))}${against(one, of, better)}${was(one, of, show)}` });
  return table("results", [
    { id: "node", title: "Node", value: (one) => one.node_id, cell: (one) => html`<b>${one.node_id}</b>` },
    { id: "model", title: "Model", value: (one) => one.model, cell: (one) => one.model },
    { id: "requests", title: "Requests", number: true, value: (one) => one.requests, cell: (one) => count(one.requests) },
    { ...measure("errors", "Errors", (one) => one.errors, count, "less"), cell: (one) => html`<span class=${one.errors ? "bad-text" : ""} title=${one.given_up ?? one.last_error ?? nothing}>${count(one.errors)}</span>` },
    measure("queue", "Queue p50", (one) => one.queue_ms?.p50, duration, "less"),
    measure("ttft", "First token p50", (one) => one.ttft_ms?.p50, duration, "less"),
    measure("ttft95", "p95", (one) => one.ttft_ms?.p95, duration, "less"),
    measure("latency", "Latency p50", (one) => one.latency_ms?.p50, duration, "less"),
    measure("speed", "Decode tok/s p50", (one) => one.tokens_per_s?.p50, rate, "more"),
    measure("prefill", "Prefill tok/s", (one) => one.prefill_tokens_per_s, rate, "more"),
  ], data.results, { key });
}

const began = (resource, id) => (resource?.data?.run?.started_unix_ms ? moment(resource.data.run.started_unix_ms) : id);

function opened() {
  const [first, second] = [param("run"), param("with")];
  if (!first) return nothing;
  const run = use(`${API}/${segment(first)}`, { key: `run ${first}`, every: 5_000 });
  const other = second ? use(`${API}/${segment(second)}`, { key: `run ${second}` }) : null;
  return section(second ? "Compared" : "Result", shown(run, "Results", (data) => results(data, other?.data)), {
    note: second ? html`<span title=${`${first} against ${second}`}>${began(run, first)} against ${began(other, second)}</span>` : first, id: "result",
    tools: html`<button class="quiet" @click=${() => setParams({ run: "", with: "" })}>Close</button>` });
}

export function view() {
  const all = use(API, { every: 5_000 });
  const now = all.missing ? null : use(`${API}/progress`, { every: 1_000 });
  return html`${progress(now?.data)}${all.missing ? nothing : opened()}
    ${all.missing ? shown(all, "Benchmarks", () => nothing)
      : section("Runs", shown(all, "Benchmarks", runs, { rows: 4 }), { tools: html`<button class="primary" @click=${start}>Start…</button>` })}`;
}
