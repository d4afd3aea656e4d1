// What tabs read: `use(path)` in a view asks for it, keeps it fresh while it is shown and forgets it after.
import { get } from "./api.js";
import { refresh } from "./schedule.js";

const held = new Map();
// The last answer under each key, so that another range or filter replaces numbers instead of blanking them.
const last = new Map();
let pass = 0;

// `key` ties paths that are the same thing under other filters; `every` in milliseconds, 0 = once.
export function use(path, { every = 0, key = path.split("?")[0] } = {}) {
  let resource = held.get(path);
  if (!resource) {
    resource = { path, key, data: last.get(key), stale: last.has(key), error: null, missing: false, loading: false, again: false, at: 0 };
    held.set(path, resource);
    load(resource);
  }
  resource.every = every;
  resource.used = pass;
  return resource;
}

async function load(resource) {
  if (resource.loading) return;
  resource.loading = true;
  resource.abort = new AbortController();
  try {
    resource.data = await get(resource.path, { signal: resource.abort.signal });
    resource.stale = false;
    resource.error = null;
    last.set(resource.key, resource.data);
  } catch (error) {
    if (resource.abort.signal.aborted) return;
    resource.error = error;
    resource.missing = error.missing === true;
    if (resource.missing) resource.data = undefined;
  } finally {
    resource.loading = false;
    resource.at = performance.now();
  }
  if (resource.again) {
    resource.again = false;
    load(resource);
  }
  refresh();
}

export function reload(prefix = "/") {
  for (const resource of held.values()) {
    if (!resource.path.startsWith(prefix) || resource.missing) continue;
    // The answer under way may have been written before what this call is to show.
    if (resource.loading) resource.again = true;
    else load(resource);
  }
}

export function retry(resource) {
  load(resource);
  refresh();
}

export const startPass = () => (pass += 1);

// Forgets what the last drawing did not use.
export function endPass() {
  const keys = new Set();
  for (const [path, resource] of held) {
    if (resource.used === pass) {
      keys.add(resource.key);
    } else {
      resource.abort?.abort();
      held.delete(path);
    }
  }
  for (const key of last.keys()) if (!keys.has(key)) last.delete(key);
}

setInterval(() => {
  if (document.hidden) return;
  const now = performance.now();
  for (const resource of held.values()) {
    const due = resource.every > 0 && !resource.missing && now - resource.at >= resource.every;
    if (due && !resource.loading) load(resource);
  }
}, 500);
