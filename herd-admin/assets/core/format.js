// Numbers and times for people. What is not known is a dash, never a zero.
export const NONE = "–";

const plain = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const precise = new Intl.NumberFormat("en", { maximumFractionDigits: 2 });
const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

const known = (value) => typeof value === "number" && Number.isFinite(value);

export function count(value) {
  if (!known(value)) return NONE;
  return Math.abs(value) < 10_000 ? whole.format(value) : short.format(value);
}

// As it is, for evidence.
export const exact = (value) => (known(value) ? precise.format(value) : NONE);

export function decimal(value, digits = 1) {
  return known(value) ? value.toFixed(digits) : NONE;
}

export function rate(value) {
  if (!known(value)) return NONE;
  return value < 100 ? plain.format(value) : count(Math.round(value));
}

export function percent(part, of = 1) {
  if (!known(part) || !known(of) || of === 0) return NONE;
  const value = (part / of) * 100;
  if (value > 0 && value < 0.1) return "< 0.1 %";
  return `${value > 0 && value < 10 ? value.toFixed(1) : Math.round(value)} %`;
}

export function duration(ms) {
  if (!known(ms)) return NONE;
  if (ms < 1) return ms === 0 ? "0 ms" : "< 1 ms";
  if (ms < 1_000) return `${Math.round(ms)} ms`;
  if (ms < 10_000) return `${(ms / 1_000).toFixed(2)} s`;
  if (ms < 60_000) return `${(ms / 1_000).toFixed(1)} s`;
  return age(ms);
}

export function age(ms) {
  if (!known(ms)) return NONE;
  const seconds = Math.floor(ms / 1_000);
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return seconds % 60 ? `${minutes} min ${seconds % 60} s` : `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return minutes % 60 ? `${hours} h ${minutes % 60} min` : `${hours} h`;
  return hours % 24 ? `${Math.floor(hours / 24)} d ${hours % 24} h` : `${hours / 24} d`;
}

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];

export function bytes(value) {
  if (!known(value)) return NONE;
  let unit = 0;
  while (Math.abs(value) >= 1_024 && unit < UNITS.length - 1) {
    value /= 1_024;
    unit += 1;
  }
  return `${unit < 2 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${UNITS[unit]}`;
}

const TENS = ["B", "kB", "MB", "GB", "TB"];

// As models' sizes are told, and as the sentences of findings and recommendations tell them.
export function decimalBytes(value) {
  if (!known(value)) return NONE;
  let unit = 0;
  while (Math.abs(value) >= 1_000 && unit < TENS.length - 1) {
    value /= 1_000;
    unit += 1;
  }
  return `${unit < 2 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${TENS[unit]}`;
}

export function tokens(value) {
  if (!known(value)) return NONE;
  return value >= 1_024 && value % 1_024 === 0 ? `${value / 1_024}k` : count(value);
}

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
const day = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric" });

export function moment(unixMs) {
  if (!known(unixMs)) return NONE;
  const date = new Date(unixMs);
  const today = new Date().toDateString() === date.toDateString();
  return today ? clock.format(date) : `${day.format(date)} ${clock.format(date)}`;
}

const minute = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hour12: false });
const DAY_MS = 86_400_000;

// Marks of an axis of time: as fine as their distance.
export function marks(unixMs) {
  const step = unixMs.length > 1 ? unixMs[1] - unixMs[0] : 0;
  const show = step >= DAY_MS ? day : step < 60_000 ? clock : minute;
  const midnight = (date) => date.getHours() === 0 && date.getMinutes() === 0 && date.getSeconds() === 0;
  return unixMs.map((ms) => {
    const date = new Date(ms);
    return midnight(date) ? day.format(date) : show.format(date);
  });
}

export const nodesOf = (number) => `${count(number)} ${number === 1 ? "node" : "nodes"}`;

export const words = (name) => String(name ?? "").replaceAll("_", " ");
