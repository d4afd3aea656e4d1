// Who asks: by application, tag and key.
import { html, nothing } from "../core/view.js";
import { query } from "../core/api.js";
import { use } from "../core/resource.js";
import { hue } from "../core/hues.js";
import { href, param, rangeParams, setParams } from "../core/route.js";
import { count, duration, percent } from "../core/format.js";
import { copyButton, csv, empty, section, shown } from "../parts/bits.js";
import { chart } from "../parts/chart.js";
import { table } from "../parts/table.js";

const DAY_MS = 86_400_000;
const APPS_IN_CHART = 8;
const HOW = `"metadata": {"tags": ["my-app"]}`;

function columns(field, title) {
  const link = (one) => (field === "app" ? href("apps", { app: one.app }) : href("traces", { tag: one.tag }));
  return [
    { id: "name", title, value: (one) => one[field], cell: (one) => html`<span class="what"><span class="dot" .style=${`background:${hue(`${field} ${one[field]}`)}`}></span>
      <a class="name" href=${link(one)}>${one[field] || html`<em>not said</em>`}</a></span>` },
    { id: "requests", title: "Requests", number: true, value: (one) => one.requests, cell: (one) => count(one.requests) },
    { id: "errors", title: "Errors", number: true, value: (one) => one.errors, cell: (one) => html`<span class=${one.errors ? "bad-text" : ""} title=${percent(one.errors, one.requests)}>${count(one.errors)}</span>` },
    { id: "prompt", title: "Tokens read", number: true, value: (one) => one.prompt_tokens, cell: (one) => count(one.prompt_tokens) },
    { id: "completion", title: "written", number: true, value: (one) => one.completion_tokens, cell: (one) => count(one.completion_tokens) },
    { id: "ttft", title: "First token p50", number: true, value: (one) => one.ttft_ms?.p50, cell: (one) => duration(one.ttft_ms?.p50) },
    { id: "latency", title: "Latency p50", number: true, value: (one) => one.latency_ms?.p50, cell: (one) => duration(one.latency_ms?.p50) },
    { id: "latency95", title: "p95", number: true, value: (one) => one.latency_ms?.p95, cell: (one) => duration(one.latency_ms?.p95) },
    { id: "top", title: "Top models", cell: (one) => (one.top_models ?? []).slice(0, 3).map((top) => html`<a class="tag" href=${href("models", { model: top.model })} title=${`${top.requests} requests`}>${top.model}</a> `) },
  ];
}

function overTime(days, only) {
  const rows = only ? days.filter((one) => one.app === only) : days;
  const dates = [...new Set(rows.map((one) => one.day))].sort();
  if (!dates.length) return empty("Nothing in this range");
  const volume = new Map();
  for (const row of rows) volume.set(row.app, (volume.get(row.app) ?? 0) + row.requests);
  const apps = [...volume].sort((a, b) => b[1] - a[1]).slice(0, APPS_IN_CHART).map(([app]) => app);
  const times = dates.map((day) => Date.parse(`${day}T00:00:00`));
  const cell = new Map(rows.map((one) => [`${one.day} ${one.app}`, one.requests]));
  const series = apps.map((app) => ({ label: app || "not said", colour: hue(`app ${app}`), bars: apps.length === 1,
    values: dates.map((day) => cell.get(`${day} ${app}`) ?? 0) }));
  return chart({ title: "Requests per day", show: count, whole: true, times, series, from: times[0], to: Math.max(times.at(-1) + DAY_MS, times[0] + 7 * DAY_MS) });
}

function detail(app, apps) {
  const one = apps.find((row) => row.app === app);
  return section(app, html`${one ? table("app-models", [
    { id: "model", title: "Model", value: (row) => row.model, cell: (row) => html`<a href=${href("models", { model: row.model })}>${row.model}</a>` },
    { id: "requests", title: "Requests", number: true, value: (row) => row.requests, cell: (row) => count(row.requests) },
    { id: "share", title: "Share", number: true, value: (row) => row.requests, cell: (row) => percent(row.requests, one.requests) },
  ], one.top_models ?? [], { key: (row) => row.model }) : empty("No request of it in this range")}`, {
    tools: html`<a class="quiet" href=${href("traces", { app })}>Traces</a><a class="quiet" href=${href("trends", { app })}>Trends</a>
      <button class="quiet" @click=${() => setParams({ app: "" }, { replace: false })}>All apps</button>`,
  });
}

export function view() {
  const path = query("/dashboard/api/apps", rangeParams());
  const apps = use(path, { every: 15_000 });
  const daily = use(query("/dashboard/api/apps/daily", rangeParams()), { every: 60_000 });
  const only = param("app");
  if (apps.missing) return shown(apps, "Apps", () => nothing);
  return html`
    ${only && apps.data ? detail(only, apps.data.apps) : nothing}
    ${section("Applications", shown(apps, "Apps", (data) => data.apps.length
      ? table("apps", columns("app", "App"), data.apps, { key: (one) => one.app, first: { id: "requests", up: false }, selected: (one) => one.app === only })
      : empty("No application has said its name in this range", html`A request says it in its body, whatever the API: <code>${HOW}</code> ${copyButton(HOW)}`)), { tools: csv(path) })}
    ${apps.data?.tags?.length ? section("Tags", table("tags", columns("tag", "Tag"), apps.data.tags, { key: (one) => one.tag, first: { id: "requests", up: false } })) : nothing}
    ${shown(daily, "Apps over time", (data) => overTime(data.days, only))}`;
}
