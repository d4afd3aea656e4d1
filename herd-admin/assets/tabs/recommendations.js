// What to pull, move or unload, with the gain, and one click to do it.
import { html, nothing, repeat } from "../core/view.js";
import { use } from "../core/resource.js";
import { href } from "../core/route.js";
import { bytes } from "../core/format.js";
import { badge, empty, evidence, shown } from "../parts/bits.js";
import { carryOut } from "../parts/model-actions.js";

const VERBS = { pull: "Pull", replicate: "Pull", keep: "Keep", unload: "Unload", move: "Move", pin: "Pin" };

function card(one) {
  const title = `${VERBS[one.kind] ?? one.kind} ${one.model}${one.node_id ? ` on ${one.node_id}` : ""}`;
  const question = html`<p>${one.reason}</p>${one.size_bytes ? html`<p>${bytes(one.size_bytes)}</p>` : nothing}`;
  return html`<article class="finding info" data-recommendation=${one.id}>
    <header>${badge(one.kind)}${one.priority ? badge(one.priority) : nothing}<h3>${one.model}</h3>
      ${one.node_id ? html`<span class="chip">${one.node_id}</span>` : nothing}
      ${one.size_bytes ? html`<span class="dim number">${bytes(one.size_bytes)}</span>` : nothing}
      <span class="tools"><a class="quiet" href=${href("models", { model: one.model })}>Model</a>
        ${one.action ? html`<button class="primary" @click=${() => carryOut(`${title}?`, question, one.action)}>${VERBS[one.kind] ?? "Do it"}…</button>` : nothing}</span></header>
    <p>${one.reason}</p>
    <div class="gain">${evidence(one.expected_gain)}</div>
  </article>`;
}

export function view() {
  const recommended = use("/dashboard/api/recommendations", { every: 30_000 });
  return shown(recommended, "Recommendations", (data) =>
    data.recommendations.length
      ? html`<div class="list">${repeat(data.recommendations, (one) => one.id, card)}</div>`
      : empty("Nothing to change", "The models are where the requests are. This is looked at anew as traffic comes."), { rows: 4 });
}
