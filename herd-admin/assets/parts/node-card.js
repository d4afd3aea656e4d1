// One node: how it is and why, and its memory with models to scale.
import { html, nothing, repeat } from "../core/view.js";
import { ageNow } from "../core/live.js";
import { hue } from "../core/hues.js";
import { NONE, age, bytes, count, percent, rate, tokens } from "../core/format.js";
import { href } from "../core/route.js";
import { badge, meter } from "./bits.js";
import { menu } from "./menu.js";
import { nodeActions } from "./node-actions.js";

const GIB = 1_073_741_824;
const HOT_C = 85;

export const sizeInMemory = (model, discrete) => {
  const { size_vram_bytes: vram, size_bytes: all } = model.resident;
  return (discrete ? (vram ?? all) : (all ?? vram)) ?? 0;
};

export const busySlots = (node) => Math.min(node.in_flight + node.busy_by_others, Math.max(node.slots, node.in_flight));

export const freeSlots = (node) => (node.state === "online" && !node.why ? Math.max(node.slots - busySlots(node), 0) : 0);

const machine = (node) => node.gpus.find((gpu) => !gpu.unified)?.name || node.hardware.chip || node.gpus[0]?.name || "unknown machine";

function temperature(node) {
  const known = [...node.gpus.map((gpu) => gpu.temperature_c), node.thermal?.temperature_c].filter((one) => one != null);
  return known.length ? Math.max(...known) : null;
}

function memoryBar(node) {
  const { total_bytes: total, free_bytes: free, discrete } = node.device;
  const loaded = node.models.filter((model) => model.resident);
  const sizes = loaded.map((model) => ({ model, size: sizeInMemory(model, discrete) }));
  const ours = sizes.reduce((sum, one) => sum + one.size, 0);
  const room = Math.max(total ?? 0, ours) || 1;
  const others = total == null || free == null ? 0 : Math.max(total - free - ours, 0);
  const share = (size) => `width:${((size / room) * 100).toFixed(3)}%`;
  const kind = discrete ? "VRAM" : "Memory";
  const used = total == null ? NONE : free == null ? bytes(ours) : bytes(total - free);
  return html`<div class="memory">
    <div class="line"><span>${kind}</span><span class="number">${used} of ${bytes(total)}${free == null ? nothing : html`<span class="dim"> · ${bytes(free)} free</span>`}</span></div>
    <div class="bar" role="img" aria-label=${`${kind}: ${used} of ${bytes(total)} used; ${loaded.map((one) => one.name).join(", ") || "no model"}`}>
      ${repeat(sizes, (one) => one.model.name, (one) => html`<span class="part" title=${`${one.model.name}: ${bytes(one.size)}`}
        .style=${`${share(one.size)};background:${hue(one.model.name)}`}><span>${one.model.name}</span></span>`)}
      ${others > 0 ? html`<span class="part others" title=${`others: ${bytes(others)}`} .style=${share(others)}></span>` : nothing}
    </div>
  </div>`;
}

// The machine's own memory, beside that of its graphics cards.
function systemBar({ memory, device }) {
  if (!device.discrete || !(memory?.total_gb > 0)) return nothing;
  const used = memory.total_gb - memory.available_gb;
  const tight = memory.pressure && memory.pressure !== "normal" && memory.pressure !== "unknown";
  return html`<div class="memory">
    <div class="line"><span>Memory</span><span class="number">${bytes(used * GIB)} of ${bytes(memory.total_gb * GIB)}${memory.swap_used_gb > 0.05 ? html`<span class="warn-text"> · ${bytes(memory.swap_used_gb * GIB)} swapped</span>` : nothing}</span></div>
    ${meter(used / memory.total_gb, "memory of the machine", tight ? "warn" : "")}
  </div>`;
}

const MOST_PIPS = 16;

export function pips(busy, others, all) {
  if (!all) return html`<span class="dim">–</span>`;
  const label = `${busy + others} of ${all} slots busy`;
  if (all > MOST_PIPS) return html`<span class="number" title=${label}>${busy + others}/${all}</span>`;
  return html`<span class="pips" role="img" aria-label=${label} title=${label}>${Array.from({ length: all }, (_, index) =>
    html`<i class=${index < busy ? "ours" : index < busy + others ? "others" : ""}></i>`)}</span>`;
}

function modelRow(model, discrete) {
  const { resident } = model;
  return html`<li>
    <span class="dot" .style=${`background:${hue(model.name)}`}></span>
    <a class="name" href=${href("models", { model: model.name })}>${model.name}</a>
    <span class="dim number" title="memory · context per slot">${bytes(sizeInMemory(model, discrete))} · ${tokens(resident.context_length)} ctx</span>
    ${pips(Math.min(model.in_flight, model.slots), resident.busy_by_others, model.slots)}
    ${model.queue_depth ? html`<span class="queue" title="wait at the node for a slot">+${model.queue_depth}</span>` : nothing}
  </li>`;
}

const CALM = ["well", ""];

function reasons(node) {
  const told = [];
  if (node.why) told.push(node.why.message);
  if (node.condition && !CALM.includes(node.condition)) told.push(node.condition.replaceAll("_", " "));
  if (node.paused) told.push(`paused: ${node.paused}`);
  if (node.ejected_for_ms > 0) told.push(`out after failures, tried again in ${age(node.ejected_for_ms)}`);
  return [...new Set(told)];
}

const fact = (label, value, title = "") =>
  html`<span class="fact" title=${title || nothing}><span class="dim">${label}</span> <span class="number">${value}</span></span>`;

export function nodeCard(node, tokensPerSecond) {
  const loaded = node.models.filter((model) => model.resident);
  const why = reasons(node);
  const hottest = temperature(node);
  const discrete = node.device.discrete;
  const diskFree = node.disk ? bytes(node.disk.available_gb * GIB) : NONE;
  const queued = node.queue_depth;
  return html`<article class="card node ${node.state}" data-node=${node.node_id} aria-label=${`node ${node.node_id}`}>
    <header>
      <h3>${node.node_id}</h3>${badge(node.cordoned && node.state === "online" ? "draining" : node.state)}
      <span class="dim machine" title=${node.address}>${machine(node)}</span>
      ${menu(`node ${node.node_id}`, `actions on ${node.node_id}`, nodeActions(node))}
    </header>
    ${why.length ? html`<p class="why">${why.join(" · ")}</p>` : nothing}
    ${memoryBar(node)}${systemBar(node)}
    <ul class="hot">
      ${loaded.length ? repeat(loaded, (model) => model.name, (model) => modelRow(model, discrete)) : html`<li class="dim">no model in memory</li>`}
    </ul>
    <footer>
      ${fact("slots", html`${freeSlots(node)} free of ${node.slots}`, `${node.in_flight} of ours, ${node.busy_by_others} of others`)}
      ${fact("queue", html`<span class=${queued ? "warn-text" : ""}>${count(queued)}</span>`, "requests that wait at the node")}
      ${tokensPerSecond == null ? nothing : fact("tok/s", rate(tokensPerSecond), "tokens written per second, last 5 minutes")}
      ${fact("cpu", node.cpu ? percent(node.cpu.utilization_pct, 100) : NONE)}
      ${hottest == null ? nothing : fact("temp", html`<span class=${hottest >= HOT_C ? "warn-text" : ""}>${Math.round(hottest)} °C</span>`)}
      ${fact("disk", `${diskFree} free`, `${count(node.models.length)} models on disk`)}
      ${fact("heartbeat", age(ageNow(node, node.heartbeat_age_ms)), "since its agent's last report")}
    </footer>
  </article>`;
}
