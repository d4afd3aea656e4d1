// One colour for each model and each application, the same in bars, lists and charts.
const HUES = 12;
// Clients can invent names.
const NAMES = 4_096;
const kinds = { model: new Map(), app: new Map() };
const isKnown = { model: false, app: false };

// Until the names are known, none has a colour that it would lose to another.
export function hue(name, kind = "model") {
  const given = kinds[kind];
  if (!given.has(name)) {
    if (!isKnown[kind] || given.size >= NAMES) return "var(--strong-line)";
    given.set(name, given.size % HUES);
  }
  return `var(--series-${given.get(name) + 1})`;
}

// In the order of their names, so that the next opening gives the same colours to the same fleet.
export function introduce(names, kind = "model") {
  isKnown[kind] = true;
  for (const name of [...names].sort()) hue(name, kind);
}
