// Every key of the configuration, with its default, its source and its meaning; and the bounds in force.
import { html, nothing, repeat } from "../core/view.js";
import { post } from "../core/api.js";
import { refresh } from "../core/schedule.js";
import { reload, use } from "../core/resource.js";
import { param, setParams } from "../core/route.js";
import { live, nodes } from "../core/live.js";
import { age, bytes, count, decimal } from "../core/format.js";
import { badge, empty, errorBox, section, shown } from "../parts/bits.js";
import { table } from "../parts/table.js";

// The key under edit: { key, text, error, busy, note }.
let edit = null;

const text = (value) => (typeof value === "string" ? value : JSON.stringify(value));

const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);

// What was typed, in the type that the key has now. The service checks it; this only spares it nonsense.
function typed(setting, input) {
  const like = setting.value ?? setting.default;
  if (typeof like === "string") return input;
  if (typeof like === "boolean") return input === "true";
  try {
    return JSON.parse(input);
  } catch {
    throw new Error(typeof like === "number" ? "A number is wanted." : "JSON is wanted, as the default is written.");
  }
}

async function save(setting, value) {
  if (edit.busy) return;
  edit.busy = true;
  edit.error = null;
  refresh();
  try {
    const made = await post("/dashboard/api/settings", { [setting.key]: value });
    const note = made.persisted === false ? `In force, but not kept over a restart: ${made.error ?? "unknown why"}` : "";
    edit = note ? { key: setting.key, note } : null;
    reload("/dashboard/api/settings");
  } catch (error) {
    if (edit) edit.error = error;
  }
  if (edit) edit.busy = false;
  refresh();
}

function submit(event, setting) {
  event.preventDefault();
  try {
    save(setting, typed(setting, edit.text));
  } catch (error) {
    edit.error = error;
    refresh();
  }
}

function editor(setting) {
  const like = setting.value ?? setting.default;
  const set = (event) => {
    edit.text = event.target.value;
  };
  const cancel = () => {
    edit = null;
    refresh();
  };
  const input =
    typeof like === "boolean"
      ? html`<select aria-label=${setting.key} @change=${set}>${["true", "false"].map((one) => html`<option ?selected=${one === edit.text}>${one}</option>`)}</select>`
      : html`<input aria-label=${setting.key} .value=${text(setting.value)} @input=${set} spellcheck="false" autocomplete="off"
          inputmode=${typeof like === "number" ? "decimal" : "text"}>`;
  return html`<form class="edit" @submit=${(event) => submit(event, setting)} @keydown=${(event) => event.key === "Escape" && cancel()}>
    ${input}
    <button class="primary" ?disabled=${edit.busy}>Save</button>
    <button type="button" @click=${cancel}>Cancel</button>
    ${same(setting.value, setting.default) ? nothing : html`<button type="button" @click=${() => save(setting, null)}>Default</button>`}
    ${edit.error ? errorBox(edit.error) : nothing}
  </form>`;
}

function begin(setting) {
  edit = { key: setting.key, text: text(setting.value), error: null, busy: false };
  refresh();
  requestAnimationFrame(() => requestAnimationFrame(() => document.querySelector("form.edit input, form.edit select")?.focus()));
}

function value(setting) {
  // Of a secret the service tells only whether there is one.
  const isSecret = typeof setting.value === "boolean" && /(token|secret|password)$/.test(setting.key);
  const own = isSecret ? (setting.value ? "set" : "not set") : text(setting.value);
  return html`<span class="mono value ${same(setting.value, setting.default) ? "" : "changed"}">${own === "" ? '""' : own}</span>
    ${unit(setting)}`;
}

// What the number means in the units that people think in.
function unit({ key, value }) {
  if (typeof value !== "number" || value === 0) return nothing;
  if (key.endsWith("_ms") && value >= 1_000) return html`<span class="dim">= ${age(value)}</span>`;
  if (/_bytes(_per_s)?$/.test(key) && value >= 1_024) return html`<span class="dim">= ${bytes(value)}</span>`;
  return nothing;
}

const why = (setting) =>
  ({ env: `Set by ${setting.variable}`, flag: "Set by a flag" })[setting.source] ?? "Cannot be changed here";

function row(setting, help) {
  const editing = edit?.key === setting.key && !edit.note;
  return html`<li class="setting" data-key=${setting.key}>
    <div class="key"><span class="mono">${setting.key}</span>${help ? html`<p class="dim">${help}</p>` : nothing}</div>
    <div class="now">
      ${editing ? editor(setting) : html`${value(setting)}`}
      ${edit?.key === setting.key && edit.note ? html`<p class="warn-text">${edit.note}</p>` : nothing}
      ${setting.source === "default" ? nothing : html`<p class="dim">default <span class="mono">${text(setting.default) || '""'}</span></p>`}
    </div>
    <div class="from">
      <span class="badge ${setting.source === "default" ? "plain" : "info"}" title=${setting.variable}>${setting.source}</span>
      ${setting.needs_restart ? html`<span class="badge plain" title="a change is in force after a restart only">restart</span>` : nothing}
    </div>
    <div class="do">${editing
      ? nothing
      : setting.changeable
        ? html`<button class="quiet" aria-label=${`edit ${setting.key}`} @click=${() => begin(setting)}>Edit</button>`
        : html`<span class="dim" title=${why(setting)}>${setting.source === "env" || setting.source === "flag" ? "fixed" : "file only"}</span>`}</div>
  </li>`;
}

function groups(settings) {
  const needle = param("q").toLowerCase();
  const only = param("only");
  const fits = (one) =>
    (!needle || `${one.key} ${one.help} ${one.variable}`.toLowerCase().includes(needle)) &&
    (only !== "changed" || one.source !== "default");
  const found = new Map();
  for (const setting of settings.filter(fits)) {
    const group = setting.key.includes(".") ? setting.key.split(".")[0] : "general";
    found.set(group, [...(found.get(group) ?? []), setting]);
  }
  if (!found.size) return empty("No key fits", "Another word, or all keys.");
  return [...found].map(([group, list]) => {
    let before = "";
    return section(group, html`<ul class="settings">${repeat(list, (one) => one.key, (one) => {
      const help = one.help === before ? "" : one.help;
      before = one.help;
      return row(one, help);
    })}</ul>`);
  });
}

const NODE_COLUMNS = [
  { id: "node", title: "Node", value: (one) => one.node_id, cell: (one) => html`<b>${one.node_id}</b>` },
  { id: "state", title: "State", value: (one) => one.state, cell: (one) => badge(one.state) },
  { id: "agent", title: "Agent", value: (one) => one.agent_version, cell: (one) => one.agent_version || "–" },
  { id: "ollama", title: "Ollama", value: (one) => one.ollama.version, cell: (one) => one.ollama.version || "–" },
  { id: "address", title: "Address", value: (one) => one.address, cell: (one) => html`<span class="mono">${one.address}</span>` },
  { id: "parallel", title: "Slots per model", number: true, value: (one) => one.env.num_parallel, cell: (one) => count(one.env.num_parallel) },
  { id: "known", title: "Known for", number: true, value: (one) => one.known_for_ms, cell: (one) => age(one.known_for_ms) },
];

const bound = ({ name }, value) => html`<span title=${value}>${/_bytes$/.test(name) ? bytes(value) : /_ms$/.test(name) ? age(value) : decimal(value, 0)}</span>`;

const LIMIT_COLUMNS = [
  { id: "name", title: "Bound", value: (one) => one.name, cell: (one) => html`<span class="mono">${one.name}</span>` },
  { id: "used", title: "Used", number: true, value: (one) => one.used, cell: (one) => (one.used == null ? "–" : bound(one, one.used)) },
  { id: "limit", title: "Limit", number: true, value: (one) => one.limit, cell: (one) => bound(one, one.limit) },
  { id: "share", title: "", cell: (one) => (one.used == null ? nothing : html`<span class="meter"><span .style=${`width:${Math.min((one.used / (one.limit || 1)) * 100, 100)}%`}></span></span>`) },
];

export function view() {
  const settings = use("/dashboard/api/settings", { every: edit ? 0 : 15_000 });
  const limits = use("/fleet/limits", { every: 5_000 });
  return html`
    <div class="filters">
      <input type="search" class="wide" placeholder="Find a key (/)" aria-label="find a key" .value=${param("q")} @input=${(event) => setParams({ q: event.target.value })}>
      <label class="check"><input type="checkbox" .checked=${param("only") === "changed"} @change=${(event) => setParams({ only: event.target.checked ? "changed" : "" })}> not at their default</label>
    </div>
    ${shown(settings, "Settings", (data) => groups(data.settings), { rows: 8 })}
    ${settings.data || settings.error ? below(limits) : nothing}`;
}

// Only after the keys, which would push it down as they come.
const below = (limits) => html`
    ${section("Nodes and versions", nodes().length ? table("nodes", NODE_COLUMNS, nodes(), { key: (one) => one.node_id }) : empty("No node has joined yet"), {
      note: live.status ? `herd ${live.status.edge.version}, up ${age(live.status.edge.uptime_ms)}` : nothing })}
    ${section("Bounds", shown(limits, "Bounds", (data) => table("limits", LIMIT_COLUMNS, data.limits, { key: (one) => one.name })))}`;
