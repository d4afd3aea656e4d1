// What ails the fleet, with the evidence and the fix.
import { html, nothing, repeat, svg } from "../core/view.js";
import { post, query } from "../core/api.js";
import { live } from "../core/live.js";
import { reload, use } from "../core/resource.js";
import { href, param, rangeMs, rangeParams, setParams, stretch } from "../core/route.js";
import { count, moment } from "../core/format.js";
import { badge, copyButton, csv, empty, evidence, section, shown } from "../parts/bits.js";
import { chart } from "../parts/chart.js";
import { dialog } from "../parts/dialog.js";

const HOUR_MS = 3_600_000;
const SEVERITIES = ["critical", "warning", "info"];
const AROUND = 2 * Math.PI * 40;

function ring(score) {
  const tone = score >= 80 ? "" : score >= 50 ? "warn" : "bad";
  return html`<svg class="ring ${tone}" viewBox="0 0 100 100" role="img" aria-label=${`health score ${Math.round(score)} of 100`}>
    <circle cx="50" cy="50" r="40"></circle>
    ${svg`<circle class="arc" cx="50" cy="50" r="40" transform="rotate(-90 50 50)" stroke-dasharray=${`${(score / 100) * AROUND} ${AROUND}`}></circle>`}
    <text x="50" y="51">${Math.round(score)}</text></svg>`;
}

const act = async (path, body) => {
  await post(`/dashboard/api/health/${path}`, body);
  reload("/dashboard/api/health");
};

function acknowledge(finding) {
  dialog({
    title: "Acknowledge this finding?",
    text: html`<p><b>${finding.title}</b></p><p>It goes below the open ones and still counts, until it is gone or grows worse.</p>`,
    action: "Acknowledge",
    run: () => act("acknowledge", { finding: finding.id }),
  });
}

function mute(finding) {
  const hours = [["1", "an hour"], ["8", "eight hours"], ["24", "a day"], ["168", "a week"]];
  dialog({
    title: "Mute this finding?",
    text: html`<p><b>${finding.title}</b></p>`,
    fields: [{ name: "hours", label: "For", value: "24", options: hours.map(([value, label]) => ({ value, label })) }],
    action: "Mute",
    run: (values) => act("mute", { finding: finding.id, until_unix_ms: Date.now() + Number(values.hours) * HOUR_MS }),
  });
}

function unmute(finding) {
  dialog({
    title: "Show this finding again?",
    text: html`<p><b>${finding.title}</b></p>`,
    action: "Show",
    run: () => act("unmute", { finding: finding.id }),
  });
}

// Who has just changed something need not wait for the next look.
export async function lookAgain(event) {
  const button = event?.currentTarget;
  if (button) button.disabled = true;
  try {
    await post("/dashboard/api/health/check", {});
  } catch (error) {
    dialog({ title: "Not looked at", text: html`<p>${error.message}</p><p>${error.advice}</p>` });
  }
  if (button) button.disabled = false;
  reload("/dashboard/api/health");
  reload("/dashboard/api/recommendations");
}

// A command or a line of configuration, to be pasted.
const fix = (text) => (text ? html`<div class="fix"><pre>${text}</pre>${copyButton(text)}</div>` : nothing);

const age = (finding) => html`<span class="dim" title=${`last seen ${moment(finding.last_seen_unix_ms)}`}>since ${moment(finding.first_seen_unix_ms)}</span>`;

function card(finding) {
  const quiet = finding.state !== "open";
  return html`<article class="finding ${finding.severity} ${quiet ? "quieted" : ""}" data-finding=${finding.id}>
    <header>${badge(finding.severity)}<h3>${finding.title}</h3>
      ${finding.node_id ? html`<a class="tag" href=${href("traces", { node: finding.node_id })}>${finding.node_id}</a>` : nothing}
      ${finding.model ? html`<a class="tag" href=${href("models", { model: finding.model })}>${finding.model}</a>` : nothing}
      ${quiet ? html`<span class="badge plain">${finding.state}${finding.muted_until_unix_ms ? ` until ${moment(finding.muted_until_unix_ms)}` : ""}</span>` : nothing}
      ${age(finding)}
      <span class="tools">${finding.node_id || finding.model ? html`<a class="quiet" href=${href("traces", { node: finding.node_id, model: finding.model })}>Traces</a>` : nothing}${quiet ? html`<button class="quiet" @click=${() => unmute(finding)}>Show again</button>` : html`
        <button class="quiet" @click=${() => acknowledge(finding)}>Acknowledge</button><button class="quiet" @click=${() => mute(finding)}>Mute…</button>`}</span></header>
    ${finding.detail ? html`<p>${finding.detail}</p>` : nothing}${evidence(finding.evidence)}${fix(finding.fix)}
  </article>`;
}

function findings(data) {
  const only = param("severity");
  const quiet = param("quiet") === "1";
  const all = data.findings.filter((one) => (!only || one.severity === only) && (quiet || one.state === "open"));
  const hidden = data.findings.filter((one) => one.state !== "open").length;
  const sorted = [...all].sort((a, b) => SEVERITIES.indexOf(a.severity) - SEVERITIES.indexOf(b.severity));
  const number = (severity) => data.findings.filter((one) => one.severity === severity && one.state === "open").length;
  return html`
    <div class="panel health-head">${ring(data.score)}
      <div><p class="verdict">${typeof data.summary === "string" ? data.summary : `${number("critical")} critical, ${number("warning")} warnings, ${number("info")} hints`}</p>
        <p class="filters">${SEVERITIES.map((one) => html`<button class="quiet" aria-pressed=${one === only ? "true" : "false"} @click=${() => setParams({ severity: one === only ? "" : one })}>${badge(one)} ${number(one)}</button>`)}
          <label class="check"><input type="checkbox" .checked=${quiet} @change=${(event) => setParams({ quiet: event.target.checked ? "1" : "" })}> acknowledged and muted (${hidden})</label></p></div>
      <span class="tools"><button @click=${lookAgain}>Look again</button>${csv("/dashboard/api/health")}</span></div>
    ${sorted.length ? html`<div class="list">${repeat(sorted, (one) => one.id, card)}</div>` : empty("Nothing to do", only || hidden ? "All that is left is filtered out." : "No finding is open.")}`;
}

function history(data) {
  if (data.points.length < 2) return empty("No history yet", "It grows while herd runs.");
  const marked = stretch();
  const to = marked?.to ?? Date.now();
  return chart({ title: "Score", most: 105, times: data.points.map((one) => one.at_unix_ms), from: marked?.from ?? to - rangeMs(), to, show: (value) => count(value), series: [
    { label: "score", values: data.points.map((one) => one.score), colour: "var(--series-2)", fill: true },
    { label: "critical", values: data.points.map((one) => one.critical), colour: "var(--bad)" },
    { label: "warnings", values: data.points.map((one) => one.warning), colour: "var(--warn)" },
  ] });
}

// Where this herd has no findings of its own, what its nodes say of themselves.
function byNodes() {
  const ill = (live.status?.nodes ?? []).filter((node) => node.why || node.condition !== "well");
  return section("What nodes say", ill.length
    ? html`<ul class="out">${ill.map((node) => html`<li><b>${node.node_id}</b> ${badge(node.state)} ${node.why?.message ?? node.condition.replaceAll("_", " ")}</li>`)}</ul>`
    : empty("All nodes are well"));
}

export function view() {
  const health = use("/dashboard/api/health", { every: 10_000 });
  if (health.missing) return html`${shown(health, "Findings", () => nothing)}${byNodes()}`;
  const past = use(query("/dashboard/api/health/history", rangeParams()), { every: 60_000 });
  return html`${shown(health, "Health", findings, { rows: 5 })}${shown(past, "History", history)}`;
}
