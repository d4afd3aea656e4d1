// What to pull, move or unload, with the gain, and one click to do it.
import { html, nothing, repeat } from "../core/view.js";
import { use } from "../core/resource.js";
import { href } from "../core/route.js";
import { decimalBytes } from "../core/format.js";
import { badge, csv, empty, evidence, shown } from "../parts/bits.js";
import { carryOut } from "../parts/model-actions.js";
import { lookAgain } from "./health.js";

// Where it leads, for people: the service proposes it as a request.
const step = (action) => {
  const { model, node_id: node } = action.body ?? {};
  const place = node ?? decodeURIComponent(/^\/fleet\/nodes\/([^/]+)\//.exec(action.path)?.[1] ?? "");
  const verb = { "/fleet/pin": "Pin", "/dashboard/api/pull": "Pull" }[action.path] ?? (action.path.endsWith("/unload") ? "Unload" : "Do");
  return `${verb} ${model}${place ? ` on ${place}` : ""}`;
};

function card(one) {
  const question = html`<p>${one.reason}</p>${one.size_bytes ? html`<p>${decimalBytes(one.size_bytes)}</p>` : nothing}`;
  const button = (action, kind) => html`<button class=${kind} @click=${() => carryOut(`${step(action)}?`, question, action, lookAgain)}>${step(action).split(" ")[0]}…</button>`;
  return html`<article class="finding ${one.priority === "high" ? "warning" : "info"}" data-recommendation=${one.id}>
    <header>${badge(one.kind)}${one.priority ? badge(one.priority) : nothing}<h3>${one.model}</h3>
      ${one.from_node_id ? html`<span class="chip">${one.from_node_id}</span> →` : nothing}
      ${one.node_id ? html`<span class="chip">${one.node_id}</span>` : nothing}
      ${one.size_bytes ? html`<span class="dim number">${decimalBytes(one.size_bytes)}</span>` : nothing}
      <span class="tools"><a class="quiet" href=${href("models", { model: one.model })}>Model</a><a class="quiet" href=${href("traces", { model: one.model })}>Traces</a>
        ${one.action ? button(one.action, "primary") : nothing}</span></header>
    <p>${one.reason}</p>
    <div class="evidences"><div class="gain">${evidence(one.expected_gain)}</div>${evidence(one.evidence)}</div>
    ${one.then ? html`<p class="dim">Then: ${step(one.then)}. ${button(one.then, "quiet")}</p>` : nothing}
  </article>`;
}

export function view() {
  const path = "/dashboard/api/recommendations";
  const recommended = use(path, { every: 30_000 });
  return shown(recommended, "Recommendations", (data) => html`
    <div class="filters"><span class="dim">From what was asked for in the last day and what fits, looked at every minute.</span>
      <button @click=${lookAgain}>Look again</button>${csv(path)}</div>
    ${data.recommendations.length
      ? html`<div class="list">${repeat(data.recommendations, (one) => one.id, card)}</div>`
      : empty("Nothing to change", "The models are where the requests are. This is looked at anew as traffic comes.")}`, { rows: 4 });
}
