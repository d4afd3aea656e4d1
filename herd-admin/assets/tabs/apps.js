// Who asks: by application, tag and key.
import { html, nothing } from "../core/view.js";
import { query } from "../core/api.js";
import { use } from "../core/resource.js";
import { hue, introduce } from "../core/hues.js";
import { href, param, rangeParams, setParams } from "../core/route.js";
import { count, duration, percent } from "../core/format.js";
import { copyButton, csv, empty, meter, section, shown, skeleton, stat, tokenSum } from "../parts/bits.js";
import { chart } from "../parts/chart.js";
import { table } from "../parts/table.js";

const APPS_IN_CHART = 6;
const HOW = `"metadata": {"tags": ["my-app"]}`;
// What can be drawn over time: label, how a point tells it, how it is shown.
const MEASURES = {
  requests: ["Requests", (one) => one.requests, count],
  tokens: ["Tokens", (one) => one.prompt_tokens + one.completion_tokens, count],
  latency: ["Latency p50", (one) => one.latency_ms.p50, duration],
  errors: ["Errors", (one) => one.errors, count],
};

const topModels = (one) => html`<span class="tops">${one.top_models.slice(0, 3).map((top) => html`<a class="tag" href=${href("models", { model: top.model })}
  title=${`${top.requests} requests, ${percent(top.requests, one.requests)}`}><span class="dot" .style=${`background:${hue(top.model)}`}></span> ${top.model}</a>`)}
  ${one.top_models.length > 3 ? html`<span class="dim" title=${one.top_models.slice(3).map((top) => top.model).join(", ")}>+${one.top_models.length - 3}</span>` : nothing}</span>`;

function columns(title, name) {
  return [
    { id: "name", title, value: (one) => one.app ?? one.tag ?? one.key_name ?? one.key_id, cell: name },
    { id: "requests", title: "Requests", number: true, value: (one) => one.requests, cell: (one) => count(one.requests) },
    { id: "errors", title: "Errors", number: true, value: (one) => one.errors, cell: (one) => html`<span class=${one.errors ? "bad-text" : ""} title=${percent(one.errors, one.requests)}>${count(one.errors)}</span>` },
    { id: "prompt", title: "Tokens read", number: true, value: (one) => one.prompt_tokens, cell: (one) => tokenSum(one, one.prompt_tokens) },
    { id: "completion", title: "written", number: true, value: (one) => one.completion_tokens, cell: (one) => tokenSum(one, one.completion_tokens) },
    { id: "ttft", title: "First token p50", number: true, value: (one) => one.ttft_ms?.p50, cell: (one) => duration(one.ttft_ms?.p50) },
    { id: "latency", title: "Latency p50", number: true, value: (one) => one.latency_ms?.p50, cell: (one) => duration(one.latency_ms?.p50) },
    { id: "latency95", title: "p95", number: true, value: (one) => one.latency_ms?.p95, cell: (one) => duration(one.latency_ms?.p95) },
    { id: "top", title: "Top models", cell: topModels },
  ];
}

const dotted = (colour, link, text) => html`<span class="what"><span class="dot" .style=${`background:${colour}`}></span><a class="name" href=${link}>${text}</a></span>`;
const plain = (link, text) => html`<a class="name" href=${link}>${text}</a>`;
const APP = columns("App", (one) => (one.app ? dotted(hue(one.app, "app"), href("apps", { app: one.app }), one.app) : html`<em>not said</em>`));
const TAG = columns("Tag", (one) => plain(href("traces", { tag: one.tag }), one.tag));
const KEY = columns("Key", (one) => html`${plain(href("traces", { key: one.key_id }), one.key_name ?? one.key_id)} ${one.key_name ? nothing : html`<span class="badge plain">removed</span>`}`);

// Without the step that is not over, which would look like a fall; but with the first one that there is.
function finished({ points, step_ms: step, to_unix_ms: to }) {
  const open = points.at(-1)?.at_unix_ms + step > Math.min(to, Date.now());
  return open && points.at(-2)?.requests ? points.slice(0, -1) : points;
}

// The most active applications over time, or one of them: each as the trends tell it.
function overTime(apps, only) {
  const names = only ? [only] : apps.map((one) => one.app).filter(Boolean).slice(0, APPS_IN_CHART);
  if (!names.length) return nothing;
  const parts = names.map((app) => ({ app, trends: use(query("/dashboard/api/trends", { ...rangeParams(), app }), { every: 15_000, key: `app ${app}` }) }));
  const by = MEASURES[param("by")] ? param("by") : "requests";
  const [label, of, show] = MEASURES[by];
  const whole = by !== "latency";
  const first = parts.find((one) => one.trends.data)?.trends.data;
  const failed = parts.find((one) => one.trends.error && !one.trends.data);
  const draw = () => {
    const at = new Map(parts.map(({ app, trends }) => [app, new Map((trends.data?.points ?? []).map((point) => [point.at_unix_ms, of(point)]))]));
    const times = finished(first).map((one) => one.at_unix_ms);
    return chart({ title: label, unit: `per ${duration(first.step_ms)}`, show, whole, times, from: first.from_unix_ms, to: Math.min(first.to_unix_ms, times.at(-1) + first.step_ms),
      series: names.map((app) => ({ label: app, colour: hue(app, "app"), bars: names.length === 1 && whole, fill: false, values: times.map((time) => at.get(app).get(time) ?? null) })) });
  };
  return html`<div class="segments" role="group" aria-label="over time">${Object.entries(MEASURES).map(([id, [name]]) =>
      html`<button aria-pressed=${id === by ? "true" : "false"} @click=${() => setParams({ by: id === "requests" ? "" : id })}>${name}</button>`)}</div>
    ${first ? draw() : failed ? shown(failed.trends, "Apps over time", () => nothing) : skeleton(4)}`;
}

function detail(app, apps) {
  const one = apps.find((row) => row.app === app);
  return section(app, html`${one ? html`<div class="stats">
      ${stat("Requests", count(one.requests), { note: one.errors ? html`<span class="bad-text">${count(one.errors)} errors</span>` : "no errors" })}
      ${stat("Tokens", count(one.prompt_tokens + one.completion_tokens), { note: `${count(one.completion_tokens)} written` })}
      ${stat("First token, p50", duration(one.ttft_ms.p50), { note: `p95 ${duration(one.ttft_ms.p95)}` })}
      ${stat("Latency, p50", duration(one.latency_ms.p50), { note: `p95 ${duration(one.latency_ms.p95)}` })}
    </div>${table("app-models", [
    { id: "model", title: "Model", value: (row) => row.model, cell: (row) => dotted(hue(row.model), href("models", { model: row.model }), row.model) },
    { id: "requests", title: "Requests", number: true, value: (row) => row.requests, cell: (row) => count(row.requests) },
    { id: "share", title: "Share", number: true, value: (row) => row.requests, cell: (row) => html`${percent(row.requests, one.requests)} ${meter(row.requests / one.requests, row.model)}` },
    { id: "written", title: "Tokens written", number: true, value: (row) => row.completion_tokens, cell: (row) => count(row.completion_tokens) },
    { id: "do", title: "", cell: (row) => html`<span class="tools"><a class="quiet" href=${href("traces", { app, model: row.model })}>Traces</a></span>` },
  ], one.top_models, { key: (row) => row.model })}` : empty("No request of it in this range")}`, {
    tools: html`<a class="quiet" href=${href("traces", { app })}>Traces</a><a class="quiet" href=${href("trends", { app })}>Trends</a>
      <button class="quiet" @click=${() => setParams({ app: "" }, { replace: false })}>All apps</button>`, id: "app",
  });
}

export function view() {
  const path = query("/dashboard/api/apps", rangeParams());
  const list = (name) => csv(query("/dashboard/api/apps", { ...rangeParams(), list: name }));
  const apps = use(path, { every: 15_000 });
  const only = param("app");
  if (apps.data) introduce(apps.data.apps.map((one) => one.app), "app");
  if (apps.missing) return shown(apps, "Apps", () => nothing);
  const more = (name, title, columns, rows, key) =>
    rows?.length ? section(title, table(name, columns, rows, { key, first: { id: "requests", up: false } }), { tools: list(name) }) : nothing;
  return html`
    ${only && apps.data ? detail(only, apps.data.apps) : nothing}
    ${apps.data?.apps.length ? overTime(apps.data.apps, only) : nothing}
    ${section("Applications", shown(apps, "Apps", (data) => data.apps.length
      ? table("apps", APP, data.apps, { key: (one) => one.app, first: { id: "requests", up: false }, selected: (one) => one.app === only,
        onRow: (one) => one.app && setParams({ app: one.app }, { replace: false }) })
      : empty("No application has said its name in this range", html`A request says it in its body, whatever the API: <code>${HOW}</code> ${copyButton(HOW)}`)), { tools: csv(path) })}
    ${more("tags", "Tags", TAG, apps.data?.tags, (one) => one.tag)}
    ${more("keys", "API keys", KEY, apps.data?.keys, (one) => one.key_id)}`;
}
