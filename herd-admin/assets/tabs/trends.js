// How the fleet did over time, compared with the previous period.
import { html, nothing } from "../core/view.js";
import { query } from "../core/api.js";
import { use } from "../core/resource.js";
import { nodes } from "../core/live.js";
import { param, rangeParams, setParams } from "../core/route.js";
import { count, duration, rate } from "../core/format.js";
import { change, csv, empty, pick, shown, stat } from "../parts/bits.js";
import { chart } from "../parts/chart.js";
import { nodeIds } from "../parts/shell.js";

const EVERY_MS = 10_000;
const column = (points, of) => points.map(of);

// The same moments of the previous period, laid over these.
function before(data, of) {
  if (!data.previous?.length) return null;
  const start = data.previous[0].at_unix_ms;
  const byStep = new Map(data.previous.map((point) => [Math.round((point.at_unix_ms - start) / data.step_ms), point]));
  const first = data.points[0]?.at_unix_ms ?? 0;
  return data.points.map((point) => {
    const other = byStep.get(Math.round((point.at_unix_ms - first) / data.step_ms));
    return other ? of(other) : null;
  });
}

function quantiles(points, name, data) {
  const lines = [
    { label: "p50", values: column(points, (one) => one[name].p50), colour: "var(--series-2)", fill: true },
    { label: "p95", values: column(points, (one) => one[name].p95), colour: "var(--series-3)" },
    { label: "p99", values: column(points, (one) => one[name].p99), colour: "var(--series-5)" },
  ];
  const earlier = before(data, (one) => one[name].p50);
  if (earlier) lines.push({ label: "p50 before", values: earlier, colour: "var(--muted)", dash: true });
  return lines;
}

function counted(points, data, label, of, colour) {
  const lines = [{ label, values: column(points, of), colour, bars: true }];
  const earlier = before(data, of);
  if (earlier) lines.push({ label: "before", values: earlier, colour: "var(--muted)", dash: true });
  return lines;
}

function sums(points) {
  const sum = (of) => points.reduce((all, one) => all + (of(one) ?? 0), 0);
  return { requests: sum((one) => one.requests), errors: sum((one) => one.errors), tokens: sum((one) => one.completion_tokens),
    cold: sum((one) => one.cold_loads), reloads: sum((one) => one.reloads), retries: sum((one) => one.retries), overflows: sum((one) => one.overflows) };
}

// Tokens per second of a step; the last one is not over yet.
function perSecond(data, of) {
  const now = Math.min(data.to_unix_ms, Date.now());
  return (point) => {
    const passed = Math.min(data.step_ms, Math.max(now - point.at_unix_ms, data.step_ms / 6));
    return of(point) / (passed / 1_000);
  };
}

function throughput(points, data) {
  const written = perSecond(data, (one) => one.completion_tokens);
  const lines = [
    { label: "written by all", values: column(points, written), colour: "var(--series-2)", fill: true },
    { label: "by one request, p50", values: column(points, (one) => one.tokens_per_s), colour: "var(--series-4)" },
  ];
  const earlier = before(data, (one) => one.completion_tokens / (data.step_ms / 1_000));
  if (earlier) lines.push({ label: "all before", values: earlier, colour: "var(--muted)", dash: true });
  return lines;
}

function totals(data) {
  const now = sums(data.points);
  const then = data.previous ? sums(data.previous) : null;
  const of = (name, label, { tone = "", better = "" } = {}) =>
    stat(label, count(now[name]), { tone: now[name] ? tone : "", note: then ? html`${change(now[name], then[name], { better })} <span>${count(then[name])} before</span>` : nothing });
  return html`<div class="stats">
    ${of("requests", "Requests")}${of("errors", "Errors", { tone: "bad", better: "less" })}${of("tokens", "Tokens written")}
    ${of("cold", "Cold loads", { better: "less" })}${of("reloads", "Reloads", { tone: "warn", better: "less" })}
    ${of("retries", "Retries", { better: "less" })}${of("overflows", "Prompts too long", { tone: "warn", better: "less" })}
  </div>`;
}

function charts(data) {
  const { points } = data;
  if (!points.some((one) => one.requests)) {
    return empty("No request in this stretch", "A longer range, or another filter, may have some.");
  }
  const base = { times: column(points, (one) => one.at_unix_ms), from: data.from_unix_ms, to: data.to_unix_ms };
  const all = sums(points);
  const requests = [
    ...counted(points, data, "requests", (one) => one.requests, "var(--series-1)"),
    { label: "errors", values: column(points, (one) => one.errors), colour: "var(--bad)", bars: true },
  ];
  return html`
    ${totals(data)}
    <div class="charts">
      ${chart({ ...base, title: "Requests", unit: `per ${duration(data.step_ms)}`, show: count, whole: true, series: requests, summary: `Requests: ${all.requests}, errors: ${all.errors}` })}
      ${chart({ ...base, title: "Time to first token", show: duration, series: quantiles(points, "ttft_ms", data) })}
      ${chart({ ...base, title: "Latency", unit: "whole answer", show: duration, series: quantiles(points, "latency_ms", data) })}
      ${chart({ ...base, title: "Queue time", unit: "at the edge", show: duration, series: quantiles(points, "queue_ms", data) })}
      ${chart({ ...base, title: "Tokens per second", show: rate, series: throughput(points, data) })}
      ${chart({ ...base, title: "Loads and retries", unit: `per ${duration(data.step_ms)}`, show: count, whole: true, series: [
        { label: "cold loads", values: column(points, (one) => one.cold_loads), colour: "var(--series-1)" },
        { label: "reloads", values: column(points, (one) => one.reloads), colour: "var(--series-3)" },
        { label: "retries", values: column(points, (one) => one.retries), colour: "var(--series-5)" }] })}
    </div>`;
}

export function view() {
  const compare = param("compare") === "1";
  const filters = { model: param("model"), node: param("node"), app: param("app") };
  const path = query("/dashboard/api/trends", { ...rangeParams(), ...filters, compare: compare ? 1 : undefined });
  const trends = use(path, { every: EVERY_MS });
  const models = [...new Set(nodes().flatMap((node) => node.models.map((model) => model.name)))].sort();
  const apps = use(query("/dashboard/api/apps", rangeParams()), { every: 60_000 });
  return html`
    <div class="filters">
      ${pick("Model", filters.model, models, (model) => setParams({ model }))}
      ${pick("Node", filters.node, nodeIds(), (node) => setParams({ node }))}
      ${pick("App", filters.app, (apps.data?.apps ?? []).map((one) => one.app), (app) => setParams({ app }))}
      <label class="check"><input type="checkbox" .checked=${compare} @change=${(event) => setParams({ compare: event.target.checked ? "1" : "" })}> compare with previous period</label>
      ${trends.missing ? nothing : csv(path)}
    </div>
    ${shown(trends, "Trends", charts, { rows: 6 })}`;
}
