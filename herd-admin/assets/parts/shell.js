// What is around every tab: where one is, how the fleet is, whether the numbers are fresh.
import { html, nothing } from "../core/view.js";
import { help, onNavKey } from "../core/keys.js";
import { live, nodes, since } from "../core/live.js";
import { refresh } from "../core/schedule.js";
import { RANGES, TABS, href, range, route, setParams, stretch } from "../core/route.js";
import { age, count, moment } from "../core/format.js";

const VERSION = document.querySelector("meta[name=herd-version]")?.content ?? "";
const THEMES = { "": "system", light: "light", dark: "dark" };

function theme() {
  return document.documentElement.dataset.theme ?? "";
}

function nextTheme() {
  const names = Object.keys(THEMES);
  const next = names[(names.indexOf(theme()) + 1) % names.length];
  if (next) document.documentElement.dataset.theme = next;
  else delete document.documentElement.dataset.theme;
  try {
    localStorage.setItem("herd-theme", next);
  } catch {
    // Storage may be off; then the choice lasts as long as the page.
  }
  dispatchEvent(new Event("themechange"));
  refresh();
}

const ICONS = {
  "": html`<svg viewBox="0 0 16 16" aria-hidden="true"><circle cx="8" cy="8" r="5.5" fill="none" stroke="currentColor" stroke-width="1.5"></circle><path d="M8 2.5a5.5 5.5 0 0 1 0 11z" fill="currentColor"></path></svg>`,
  light: html`<svg viewBox="0 0 16 16" aria-hidden="true"><circle cx="8" cy="8" r="3.2" fill="currentColor"></circle><path d="M8 1v2M8 13v2M1 8h2M13 8h2M3 3l1.4 1.4M11.6 11.6 13 13M13 3l-1.4 1.4M4.4 11.6 3 13" stroke="currentColor" stroke-width="1.5" stroke-linecap="round"></path></svg>`,
  dark: html`<svg viewBox="0 0 16 16" aria-hidden="true"><path d="M13.5 9.6A5.8 5.8 0 0 1 6.4 2.5a5.8 5.8 0 1 0 7.1 7.1z" fill="currentColor"></path></svg>`,
};

const LINKS = {
  connecting: ["", "connecting"],
  stream: ["good", "live"],
  poll: ["good", "live"],
  off: ["bad", "offline"],
};

function link() {
  const [tone, text] = live.link === "off" && live.error?.status ? ["bad", "refused"] : LINKS[live.link];
  const how = live.link === "poll" ? "asked every 2 s" : live.link === "stream" ? "told by events" : (live.error?.message ?? "");
  return html`<span class="link ${tone}" title=${how} role="status"><i></i>${text}</span>`;
}

function picker() {
  if (!route.tab.ranged && route.tab.id !== "overview") return nothing;
  const marked = stretch();
  const choose = (one) => setParams({ range: one, from: "", to: "" }, { replace: false });
  return html`<div class="range" role="group" aria-label="range">
    ${marked
      ? html`<button class="marked" aria-pressed="true" title="back to the range" @click=${() => choose(range())}>${moment(marked.from)} – ${moment(marked.to)} ✕</button>`
      : nothing}
    <span class="segments">${RANGES.map(
      (one) => html`<button aria-pressed=${!marked && one === range() ? "true" : "false"} @click=${() => choose(one)}>${one}</button>`,
    )}</span>
    <select aria-label="range" @change=${(event) => choose(event.target.value)}>${RANGES.map(
      (one) => html`<option value=${one} ?selected=${one === range()}>${one}</option>`,
    )}</select>
  </div>`;
}

function summary() {
  if (!live.status) return nothing;
  const { fleet } = live.status;
  const away = fleet.nodes_total - fleet.nodes_ready;
  return html`<span class="summary">
    <span title="nodes that take requests"><b class=${away ? "warn-text" : ""}>${fleet.nodes_ready}/${fleet.nodes_total}</b> nodes</span>
    <span title="requests that nodes work on"><b>${count(live.requests?.total ?? fleet.requests_active)}</b> under way</span>
    <span title="requests that wait at the edge"><b class=${live.queue?.waiting ? "warn-text" : ""}>${count(live.queue?.waiting ?? 0)}</b> waiting</span>
  </span>`;
}

function nav() {
  const item = (tab) => html`<a href=${href(tab.id)} aria-current=${tab === route.tab ? "page" : nothing} title=${`g ${tab.key}`}>
    ${tab.short ?? tab.title}${tab.id === "health" && live.health?.score != null ? html`<span class="score">${Math.round(live.health.score)}</span>` : nothing}</a>`;
  return html`<nav class="side" aria-label="tabs" @keydown=${onNavKey}>
    ${TABS.slice(0, 8).map(item)}<hr>${TABS.slice(8).map(item)}
    <span class="about">herd ${live.status?.edge.version ?? VERSION}<br>
      ${live.status ? html`up ${age(live.status.edge.uptime_ms + since())}` : nothing}</span>
  </nav>`;
}

function banners() {
  const newer = live.status && VERSION && live.status.edge.version !== VERSION;
  return html`
    ${live.link === "off"
      ? html`<p class="banner bad" role="alert"><strong>${live.error?.message ?? "herd does not answer."}</strong>
          ${live.at ? ` What is shown is ${age(since())} old.` : ""} ${live.error?.advice ?? ""} Trying again by itself.</p>`
      : nothing}
    ${newer ? html`<p class="banner">herd is now ${live.status.edge.version}. <button class="quiet" @click=${() => location.reload()}>Load its page</button></p>` : nothing}
    ${live.status?.edge.draining ? html`<p class="banner warn">This edge is stopping: running requests finish, new ones are refused.</p>` : nothing}`;
}

export const shell = (content) => html`
  <a class="skip" href="#main">To the content</a>
  <header class="top">
    <a class="brand" href=${href("overview")}><span class="mark" aria-hidden="true"></span>herd</a>
    ${summary()}<span class="space"></span>${picker()}${link()}
    <button class="icon" @click=${nextTheme} aria-label=${`theme: ${THEMES[theme()]}`} title=${`theme: ${THEMES[theme()]}`}>${ICONS[theme()]}</button>
    <button class="icon wide" @click=${help} aria-label="keys" title="keys (?)">?</button>
  </header>
  <div class="body">
    ${nav()}
    <main class="main" id="main" tabindex="-1" data-tab=${route.tab.id}>
      ${banners()}
      <h1>${route.tab.title}</h1>
      ${content}
    </main>
  </div>`;

export const nodeIds = () => nodes().map((node) => node.node_id).sort();
