// Small pieces that every tab is made of.
import { html, nothing } from "../core/view.js";
import { retry } from "../core/resource.js";
import { NONE, age, count, decimalBytes, duration, exact, words } from "../core/format.js";

const TONES = {
  online: "good", hot: "good", completed: "good", succeeded: "good", free: "good", kept: "good", decode: "good", info: "info", open: "warn",
  degraded: "warn", stale: "warn", draining: "warn", warning: "warn", queued: "warn", incomplete: "warn", reload: "warn", running: "info",
  prefill: "info", load: "info", raised: "info", pinned: "info", upgraded: "info",
  offline: "bad", failed: "bad", critical: "bad", rejected: "bad", reaped: "bad",
};

export const badge = (name, title = "") =>
  html`<span class="badge ${TONES[name] ?? "plain"}" title=${title || nothing}>${words(name)}</span>`;

export const mono = (text) => html`<span class="mono">${text ?? NONE}</span>`;

export const section = (title, content, { tools = nothing, note = nothing, id = "" } = {}) => html`
  <section class="panel" aria-label=${title} data-panel=${id || nothing}>
    <header><h2>${title}</h2>${note === nothing ? nothing : html`<span class="note">${note}</span>`}<span class="tools">${tools}</span></header>
    ${content}
  </section>`;

export const stat = (label, value, { unit = "", note = nothing, tone = "", bar = null } = {}) => html`
  <div class="stat ${tone}">
    <span class="label">${label}</span>
    <span class="value">${value}${unit ? html`<span class="unit"> ${unit}</span>` : nothing}</span>
    ${note === nothing ? nothing : html`<span class="note">${note}</span>`}
    ${bar === null ? nothing : meter(bar, label)}
  </div>`;

export const meter = (share, label, tone = "") => {
  const percent = Math.round(Math.min(Math.max(share || 0, 0), 1) * 100);
  return html`<span class="meter ${tone}" role="meter" aria-label=${label} aria-valuemin="0" aria-valuemax="100"
    aria-valuenow=${percent}><span .style=${`width:${percent}%`}></span></span>`;
};

// Tokens, added up. Some APIs tell none, as OpenAI's streams do where nobody asks: then the sum is not zero but not known.
export const tokenSum = (one, sum) =>
  sum === 0 && one.requests > 0 ? html`<span class="dim" title="no answer told of any">${NONE}</span>` : count(sum);

// How a number stands against that of the stretch before.
export function change(now, before, { better = "", title = "compared with the previous period" } = {}) {
  if (typeof now !== "number" || typeof before !== "number" || before === 0) return nothing;
  const share = (now - before) / before;
  if (Math.abs(share) < 0.005) return html`<span class="change" title=${title}>± 0 %</span>`;
  const good = better && (share > 0) === (better === "more");
  const text = `${share > 0 ? "▲" : "▼"} ${Math.abs(share) >= 10 ? "> 999" : Math.round(Math.abs(share) * 100)} %`;
  return html`<span class="change ${better ? (good ? "good" : "bad") : ""}" title=${title}>${text}</span>`;
}

export const empty = (title, text = nothing) => html`<div class="state"><strong>${title}</strong><span>${text}</span></div>`;

export const skeleton = (rows = 3) =>
  html`<div class="skeleton" aria-busy="true" aria-label="loading">${Array.from({ length: rows }, () => html`<span></span>`)}</div>`;

export const errorBox = (error, again) => html`<div class="state bad" role="alert">
  <strong>${error.missing ? `This herd cannot do that: its API has no such part (${error.message}).` : error.message}</strong>
  ${error.advice ? html`<span>${error.advice}</span>` : nothing}
  ${again ? html`<button @click=${again}>Try again</button>` : nothing}
</div>`;

export const missing = (what) => html`<div class="state">
  <strong>${what}: not available in this version of herd</strong>
  <span>This herd does not have that part of its API.</span>
</div>`;

// One resource in each of its states. `view` gets the data.
export function shown(resource, what, view, { rows = 3 } = {}) {
  if (resource.missing) return missing(what);
  if (resource.data === undefined) return resource.error ? errorBox(resource.error, () => retry(resource)) : skeleton(rows);
  const failed = resource.error ? errorBox(resource.error, () => retry(resource)) : nothing;
  return html`<div class="shown ${resource.stale && resource.loading ? "stale" : ""}">${failed}${view(resource.data)}</div>`;
}

export const csv = (path) => html`<a class="quiet" download href=${`${path}${path.includes("?") ? "&" : "?"}format=csv`}>CSV</a>`;

export function copyButton(text) {
  const copy = async (event) => {
    const button = event.currentTarget;
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      // Browsers give the clipboard to secure pages only; then the text is marked for the person's own copy.
      const code = button.parentElement?.querySelector("code, pre");
      if (code) getSelection()?.selectAllChildren(code);
      button.textContent = "Marked";
    }
    setTimeout(() => (button.textContent = "Copy"), 1_500);
  };
  return html`<button class="quiet" @click=${copy}>Copy</button>`;
}

const BYTES = /_bytes$/;
const DURATION = /_ms$/;
const SECONDS = /^seconds_/;

function measured(name, value) {
  if (typeof value !== "number") return String(value);
  return BYTES.test(name) ? decimalBytes(value) : DURATION.test(name) ? duration(value) : SECONDS.test(name) ? age(value * 1_000) : exact(value);
}

// Names with their values, as a list of { name, value } or an object; or a sentence.
export function evidence(told) {
  if (told == null || typeof told === "string") return told ? html`<p>${told}</p>` : nothing;
  const pairs = Array.isArray(told) ? told.map((one) => [one.name, one.value]) : Object.entries(told);
  const known = pairs.filter(([, value]) => value != null);
  return known.length
    ? html`<dl class="evidence">${known.map(([name, value]) => html`<div><dt class="dim">${words(String(name).replace(/_(bytes|ms)$|^seconds_/, ""))}</dt><dd class="number">${measured(String(name), value)}</dd></div>`)}</dl>`
    : nothing;
}

// A choice from a list, kept in the URL by its caller.
export const pick = (label, value, options, onPick) => html`<label class="pick"><span>${label}</span>
  <select aria-label=${label} .value=${value} @change=${(event) => onPick(event.target.value)}>
    <option value="" ?selected=${!value}>all</option>
    ${value && !options.includes(value) ? html`<option value=${value} selected>${value}</option>` : nothing}
    ${options.map((one) => html`<option value=${one} ?selected=${one === value}>${one}</option>`)}
  </select></label>`;
