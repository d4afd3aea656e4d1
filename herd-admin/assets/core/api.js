// Requests to this herd, and what their failures mean for the person at the page.

const ADMIN_KEY = "herd key add NAME --scope admin";

export class ApiError extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }

  // This herd has no such endpoint, as against an endpoint that knows no such thing.
  get missing() {
    return (this.status === 404 && this.code === "not_found") || this.status === 405 || this.status === 501;
  }

  // What to do about it; empty = the message says it all.
  get advice() {
    if (this.status === 0) return "Is herd running, and is this machine connected to it?";
    if (this.status === 401) return "herd asks for an API key: reload the page, and give the key as the password of any user name.";
    if (this.code === "not_local")
      return `Changes are free on the machine that runs herd. From others they need an admin key (${ADMIN_KEY}): reload the page, and give it as the password of any user name.`;
    if (this.code === "key_scope") return `The key of this page may not do that; one of the scope admin may (${ADMIN_KEY}).`;
    if (this.code === "foreign_host") return "Open the dashboard by one of herd's own names or addresses (admin.hosts).";
    return "";
  }
}

// Longest wait for an answer; the API answers from memory or one query.
const PATIENCE_MS = 20_000;

export async function ask(method, path, { body, signal, patience = PATIENCE_MS } = {}) {
  const options = { method, signal: AbortSignal.any([AbortSignal.timeout(patience), ...(signal ? [signal] : [])]) };
  if (method !== "GET") {
    options.headers = { "Content-Type": "application/json" };
    if (body !== undefined) options.body = JSON.stringify(body);
  }
  let response;
  try {
    response = await fetch(at(path), options);
    if (response.status === 401 && !path.startsWith("/dashboard") && (await askedForKey())) response = await fetch(at(path), options);
  } catch (error) {
    if (signal?.aborted) throw error;
    const slow = error?.name === "TimeoutError";
    throw new ApiError(0, "unreachable", slow ? "herd did not answer in time." : "herd does not answer.");
  }
  const text = await response.text();
  if (response.ok) return parsed(text) ?? {};
  const told = parsed(text)?.error;
  const message = (typeof told === "string" ? told : told?.message) || text.slice(0, 500) || `status ${response.status}`;
  throw new ApiError(response.status, told?.code ?? "", message);
}

// Whoever opens the page as http://NAME:KEY@HOST/ has the key in its URL, and browsers refuse requests relative to that.
export const at = (path) => `${location.origin}${path}`;

let asking = null;

// Browsers show a key below the path where it was asked for. A page that was opened further down shows it everywhere
// after one request to the upper path; that happens once.
function askedForKey() {
  asking ??= fetch(at("/dashboard"), { cache: "reload" }).then((response) => response.ok);
  return asking;
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

export const get = (path, options) => ask("GET", path, options);
export const post = (path, body, options) => ask("POST", path, { ...options, body });
export const remove = (path, body) => ask("DELETE", path, { body });

export function query(path, params) {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(params)) {
    if (value !== undefined && value !== null && value !== "") search.set(name, value);
  }
  const text = search.toString();
  return text ? `${path}?${text}` : path;
}

export const segment = encodeURIComponent;
