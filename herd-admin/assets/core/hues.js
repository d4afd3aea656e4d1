// One colour for each model, the same in bars, lists and charts while the page is open.
const HUES = 9;
const given = new Map();

export function hue(name) {
  if (!given.has(name)) given.set(name, given.size % HUES);
  return `var(--series-${given.get(name) + 1})`;
}

// In the order of their names, so that the next opening gives the same colours to the same fleet.
export function introduce(names) {
  for (const name of [...names].sort()) hue(name);
}
