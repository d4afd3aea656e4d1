// What is shown stands in the URL: /dashboard/{tab}?range=24h&model=...
import { refresh } from "./schedule.js";

export const TABS = [
  { id: "overview", title: "Fleet Overview", short: "Overview", key: "o" },
  { id: "trends", title: "Trends", key: "t", ranged: true },
  { id: "models", title: "Model Insights", short: "Models", key: "m", ranged: true },
  { id: "apps", title: "Apps", key: "a", ranged: true },
  { id: "benchmarks", title: "Benchmarks", key: "b" },
  { id: "health", title: "Health", key: "h", ranged: true },
  { id: "recommendations", title: "Recommendations", key: "r" },
  { id: "settings", title: "Settings", key: "s" },
  { id: "traces", title: "Traces", key: "x", ranged: true },
  { id: "explain", title: "Explain", key: "e" },
];

export const RANGES = ["15m", "1h", "6h", "24h", "7d", "30d", "90d"];
const DEFAULT_RANGE = "1h";
const MINUTE = 60_000;
const RANGE_MS = { "15m": 15, "1h": 60, "6h": 360, "24h": 1_440, "7d": 10_080, "30d": 43_200, "90d": 129_600 };

export const route = { tab: TABS[0], id: null, params: new URLSearchParams() };

function read() {
  const [, , tab, id] = location.pathname.split("/");
  route.params = new URLSearchParams(location.search);
  const wanted = tab || route.params.get("tab");
  route.tab = TABS.find((one) => one.id === wanted) ?? TABS[0];
  route.id = null;
  try {
    route.id = id ? decodeURIComponent(id) : null;
  } catch {
    // Not an id that anybody made.
  }
}

export function href(tab, params = {}, id = null) {
  const search = new URLSearchParams();
  for (const name of ["range", "from", "to"]) {
    const value = route.params.get(name);
    if (value) search.set(name, value);
  }
  for (const [name, value] of Object.entries(params)) {
    if (value) search.set(name, value);
  }
  const path = tab === "overview" ? "/dashboard" : `/dashboard/${tab}${id ? `/${encodeURIComponent(id)}` : ""}`;
  const text = search.toString();
  return text ? `${path}?${text}` : path;
}

export function go(url, { replace = false } = {}) {
  history[replace ? "replaceState" : "pushState"](null, "", url);
  const before = route.tab;
  read();
  if (before !== route.tab) scrollTo(0, 0);
  refresh();
}

export const param = (name) => route.params.get(name) ?? "";

export function setParams(changes, options = { replace: true }) {
  const search = new URLSearchParams(location.search);
  for (const [name, value] of Object.entries(changes)) {
    if (value) search.set(name, value);
    else search.delete(name);
  }
  const text = search.toString();
  go(text ? `${location.pathname}?${text}` : location.pathname, options);
}

export function range() {
  const name = param("range");
  return RANGES.includes(name) ? name : DEFAULT_RANGE;
}

const bound = (name) => (/^\d{12,14}$/.test(param(name)) ? Number(param(name)) : null);

// A stretch that was marked in a chart; null = the range of the picker.
export function stretch() {
  const [from, to] = [bound("from"), bound("to")];
  return from !== null && to !== null && from < to ? { from, to } : null;
}

export function rangeParams() {
  const marked = stretch();
  return marked ? { from_unix_ms: marked.from, to_unix_ms: marked.to } : { range: range() };
}

export function rangeMs() {
  const marked = stretch();
  return marked ? marked.to - marked.from : RANGE_MS[range()] * MINUTE;
}

export function startRouting() {
  read();
  addEventListener("popstate", () => {
    read();
    refresh();
  });
  document.addEventListener("click", (event) => {
    const link = event.target.closest?.("a[href]");
    const plain = event.button === 0 && !event.metaKey && !event.ctrlKey && !event.shiftKey && !event.altKey;
    if (!link || !plain || link.target || link.hasAttribute("download") || event.defaultPrevented) return;
    const url = new URL(link.href);
    const ours = url.origin === location.origin && /^\/dashboard(\/[a-z]+(\/[^/]+)?)?$/.test(url.pathname);
    if (!ours || /^\/dashboard\/(api|assets)\//.test(url.pathname) || /\/(openapi\.json|events)$/.test(url.pathname)) return;
    event.preventDefault();
    go(url.pathname + url.search);
  });
}
