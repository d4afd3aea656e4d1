// Why a node won: the seven signals of every candidate side by side.
import { html, nothing } from "../core/view.js";
import { NONE, decimal, duration, tokens, words } from "../core/format.js";
import { badge, empty } from "./bits.js";
import { total } from "./waterfall.js";

// What each measures; others are shown too.
const SIGNALS = {
  thermal: "is the model in memory there",
  memory_fit: "headroom once the model is placed",
  queue_depth: "work on the node against its slots",
  latency_history: "expected time, from what requests took there",
  role_affinity: "large models to large machines",
  availability_trend: "does the machine stay available",
  context_fit: "does the window hold the prompt and a reserve",
};
// Points of the longest bar; the largest cap is 50.
const FULL = 50;

function bar(points) {
  if (typeof points !== "number") return html`<td class="signal dim">${NONE}</td>`;
  const width = Math.min(Math.abs(points) / FULL, 1) * 50;
  return html`<td class="signal">
    <span class="number">${points > 0 ? "+" : ""}${decimal(points)}</span><span class="scale"><i class=${points < 0 ? "minus" : "plus"} .style=${`width:${width.toFixed(1)}%`}></i></span>
  </td>`;
}

const predicted = (candidate) => {
  const one = candidate.predicted;
  if (!one) return NONE;
  return html`<span title=${`wait ${duration(one.wait_ms)}, load ${duration(one.load_ms)}, prefill ${duration(one.prefill_ms)}, decode ${duration(one.decode_ms)}`}>${duration(total(one))}</span>`;
};

// `candidates`: [{ node_id, total, signals, predicted, readiness, context_action, context_length, last_resort, reason, eligible }]
export function signalsTable(candidates, winner) {
  const able = candidates.filter((one) => one.eligible !== false);
  const out = candidates.filter((one) => one.eligible === false);
  if (!candidates.length) return empty("No candidates", "No node was looked at.");
  const names = [...new Set([...Object.keys(SIGNALS), ...able.flatMap((one) => Object.keys(one.signals ?? {}))])];
  const row = (name, help) => {
    const values = able.map((one) => one.signals?.[name]);
    const same = values.length > 1 && values.every((value) => Math.abs((value ?? 0) - (values[0] ?? 0)) < 0.05);
    return html`<tr class=${same ? "same" : ""}><th scope="row" title=${help}>${words(name)}</th>${able.map((one) => bar(one.signals?.[name]))}</tr>`;
  };
  const line = (title, cell) => html`<tr class="plain"><th scope="row">${title}</th>${able.map((one) => html`<td class="signal">${cell(one)}</td>`)}</tr>`;
  return html`${able.length
      ? html`<div class="scroll" tabindex="0" role="region" aria-label="signals"><table class="signals">
          <thead><tr><th scope="col">signal</th>${able.map(
            (one) => html`<th scope="col" class=${one.node_id === winner ? "winner" : ""}>${one.node_id}${one.node_id === winner ? html` <span class="badge good">won</span>` : nothing}</th>`,
          )}</tr></thead>
          <tbody>
            ${names.map((name) => row(name, SIGNALS[name] ?? ""))}
            <tr class="total"><th scope="row">score</th>${able.map((one) => html`<td class="signal"><b class="number">${decimal(one.total)}</b></td>`)}</tr>
            ${line("predicted", predicted)}
            ${line("ready", (one) => (one.readiness ? badge(one.readiness) : NONE))}
            ${line("context", (one) => html`${one.context_action ? badge(one.context_action) : NONE}${one.context_length ? html` <span class="dim number">${tokens(one.context_length)}</span>` : nothing}`)}
            ${able.some((one) => one.reason || one.last_resort) ? line("but", (one) => one.reason?.message ?? (one.last_resort ? "only if no other is eligible" : NONE)) : nothing}
          </tbody></table></div>`
      : nothing}
    ${out.length
      ? html`<ul class="out">${out.map((one) => html`<li><b>${one.node_id}</b> ${badge(one.reason?.code ?? "ineligible")} <span class="dim">${one.reason?.message ?? ""}</span></li>`)}</ul>`
      : nothing}`;
}
