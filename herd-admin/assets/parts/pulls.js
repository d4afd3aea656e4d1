// Pulls that run, with how far they are, and those that ended lately.
import { html, nothing, repeat } from "../core/view.js";
import { live } from "../core/live.js";
import { age, bytes, moment, percent } from "../core/format.js";
import { badge, meter, section } from "./bits.js";
import { cancelPull } from "./model-actions.js";

const ENDED_SHOWN = 5;
const ENDED_SHOWN_MS = 3_600_000;

function running(pull) {
  const share = pull.total_bytes ? pull.completed_bytes / pull.total_bytes : 0;
  const lasts = Date.now() - pull.started_unix_ms;
  const speed = lasts > 2_000 ? pull.completed_bytes / (lasts / 1_000) : null;
  return html`<li data-pull=${pull.id}>
    ${badge(pull.phase)}<span class="name">${pull.model}</span><span class="dim">to ${pull.node_id}</span>
    ${meter(share, `pull of ${pull.model}`)}
    <span class="number">${pull.total_bytes ? html`${bytes(pull.completed_bytes)} of ${bytes(pull.total_bytes)}, ${percent(share)}` : pull.status}</span>
    <span class="number dim">${speed ? `${bytes(speed)}/s` : nothing}</span>
    <span class="dim" title=${`by ${pull.by}`}>${pull.reason}</span>
    <button class="quiet" @click=${() => cancelPull(pull)}>Cancel</button>
  </li>`;
}

const ended = (pull) => html`<li>
  ${badge(pull.phase)}<span class="name">${pull.model}</span><span class="dim">to ${pull.node_id}</span>
  <span class="dim">${pull.error ?? ""}</span><span class="number dim">${moment(pull.ended_unix_ms)}, took ${age(pull.ended_unix_ms - pull.started_unix_ms)}</span>
</li>`;

export function pullsList() {
  const pulls = live.pulls;
  if (!pulls) return nothing;
  const recent = pulls.recent.filter((one) => Date.now() - one.ended_unix_ms < ENDED_SHOWN_MS).slice(0, ENDED_SHOWN);
  if (!pulls.running.length && !recent.length) return nothing;
  return section("Pulls", html`<ul class="pulls">
    ${repeat(pulls.running, (one) => one.id, running)}${repeat(recent, (one) => one.id, ended)}</ul>`, { id: "pulls" });
}
