// Requests under way, as a list that moves.
import { html, nothing, repeat } from "../core/view.js";
import { remove, segment } from "../core/api.js";
import { ageNow, live, now } from "../core/live.js";
import { hue } from "../core/hues.js";
import { age, bytes, count, duration } from "../core/format.js";
import { href } from "../core/route.js";
import { badge, empty, skeleton } from "./bits.js";
import { dialog } from "./dialog.js";

function cancel(request) {
  dialog({
    title: "Cancel this request?",
    text: html`<p>${request.model}${request.node_id ? html` on ${request.node_id}` : nothing}, <span class="mono">${request.request_id}</span>.
      Its client is told, its slot freed.</p>`,
    action: "Cancel the request",
    danger: true,
    run: async () => {
      await remove(`/dashboard/api/requests/${segment(request.request_id)}`);
      now();
    },
  });
}

const waits = () => new Map((live.queue?.requests ?? []).map((one) => [one.request_id, one]));

function row(request, waiting) {
  const wait = waiting.get(request.request_id);
  const why = wait ? `waits: ${wait.reason}, about ${duration(wait.predicted_wait_ms)} more` : "";
  return html`<li class="request" data-request=${request.request_id}>
    ${badge(request.phase, why)}
    <span class="what"><span class="dot" .style=${`background:${hue(request.model)}`}></span><span class="name">${request.model}</span>
      ${request.tags.slice(0, 1).map((tag) => html`<a class="tag" href=${href("traces", { tag })}>${tag}</a>`)}${request.tags.length > 1
        ? html`<span class="dim" title=${request.tags.slice(1).join(", ")}>+${request.tags.length - 1}</span>` : nothing}</span>
    <span class="where">${request.node_id ?? (wait ? html`<em>${wait.reason}</em>` : "–")}</span>
    <span class="number dim" title="tokens of the prompt, estimated">${count(request.prompt_tokens)} tok</span>
    <span class="number dim" title="bytes of the answer so far">${request.response_bytes ? bytes(request.response_bytes) : "–"}</span>
    <span class="number" title="age">${age(ageNow(request, request.age_ms))}</span>
    <a class="mono id" href=${href("traces", {}, request.request_id)} title=${`${request.surface}, ${request.class}`}>${request.request_id}</a>
    <button class="quiet" aria-label=${`cancel ${request.request_id}`} @click=${() => cancel(request)}>Cancel</button>
  </li>`;
}

export function requestsList(most = 30) {
  if (!live.requests) return skeleton(3);
  const { total, requests } = live.requests;
  if (total === 0) return empty("No request is under way", "The next one appears here as it comes in.");
  const waiting = waits();
  const shown = requests.slice(0, most);
  const more = total - shown.length;
  return html`<ul class="requests">${repeat(shown, (one) => one.request_id, (one) => row(one, waiting))}</ul>
    ${more > 0 ? html`<p class="more">and ${count(more)} more</p>` : nothing}`;
}
