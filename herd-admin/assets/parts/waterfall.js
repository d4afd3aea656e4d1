// Where a request's time went, against what was predicted.
import { html, nothing } from "../core/view.js";
import { duration, words } from "../core/format.js";
import { badge } from "./bits.js";

const PHASES = ["queue", "load", "prefill", "decode"];

// What is known of a trace, as stretches from its begin. What cannot be told apart is one stretch.
export function stretches(trace) {
  const queue = trace.queue_ms ?? 0;
  const load = trace.load_ms ?? 0;
  const total = trace.latency_ms ?? 0;
  const first = trace.ttft_ms;
  const parts = [];
  let at = 0;
  const add = (name, ms) => {
    if (ms > 0) parts.push({ name, at, ms });
    at += Math.max(ms, 0);
  };
  add("queue", queue);
  add("load", load);
  if (first == null) {
    add("prefill", total - at);
  } else {
    add("prefill", first - at);
    add("decode", total - Math.max(first, at));
  }
  return parts;
}

const line = (label, parts, whole, note = nothing) => html`<div class="lane">
  <span class="label">${label}</span>
  <span class="track">${parts.map((part) => html`<i class=${part.name} title=${`${words(part.name)}: ${duration(part.ms)}`}
    .style=${`left:${((part.at / whole) * 100).toFixed(2)}%;width:${((part.ms / whole) * 100).toFixed(2)}%`}></i>`)}</span>
  <span class="number">${note}</span>
</div>`;

const PREDICTED = ["wait", "load", "prefill", "decode"];

// All that was predicted from the choice on.
export const total = (predicted) => predicted.total_ms ?? PREDICTED.reduce((sum, name) => sum + (predicted[`${name}_ms`] ?? 0), 0);

// From the moment at which it was predicted: the choice of the last attempt.
function ofPrediction(predicted, start) {
  let at = start;
  return PREDICTED.map((name) => {
    const part = { name: name === "wait" ? "queue" : name, at, ms: predicted[`${name}_ms`] ?? 0 };
    at += part.ms;
    return part;
  });
}

export function waterfall(trace, attempts, chosen) {
  const real = stretches(trace);
  const expected = chosen?.predicted ? ofPrediction(chosen.predicted, attempts.at(-1)?.started_ms ?? 0) : [];
  const end = (parts) => parts.reduce((most, part) => Math.max(most, part.at + part.ms), 0);
  const lastAttempt = attempts.reduce((most, one) => Math.max(most, (one.started_ms ?? 0) + (one.duration_ms ?? 0)), 0);
  const whole = Math.max(end(real), end(expected), lastAttempt, trace.latency_ms ?? 0, 1);
  return html`<div class="waterfall">
    ${line("took", real, whole, duration(trace.latency_ms))}
    ${expected.length ? line("predicted", expected, whole, html`<span title="from the choice of this node on">${duration(total(chosen.predicted))}</span>`) : nothing}
    ${attempts.map((one, index) => line(
      html`${index + 1}. ${one.node_id} ${badge(one.outcome)}`,
      [{ name: "attempt", at: one.started_ms ?? 0, ms: one.duration_ms ?? 0 }],
      whole,
      duration(one.duration_ms),
    ))}
    <p class="legend">${PHASES.map((name) => html`<span><i class=${name}></i>${name}</span>`)}</p>
  </div>`;
}
