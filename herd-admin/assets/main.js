// The page: draws the shell and the tab of the URL whenever something has changed.
import { html, render } from "./core/view.js";
import { drawWith, refresh } from "./core/schedule.js";
import { endPass, startPass } from "./core/resource.js";
import { route, startRouting } from "./core/route.js";
import { introduce } from "./core/hues.js";
import { live, nodes, startLive } from "./core/live.js";
import { startKeys } from "./core/keys.js";
import { dialogView, syncDialog } from "./parts/dialog.js";
import { shell } from "./parts/shell.js";
import { errorBox, skeleton } from "./parts/bits.js";

const root = document.getElementById("app");
// Modules of tabs, loaded when they are first shown.
const modules = new Map();

function tabView() {
  const { id } = route.tab;
  const module = modules.get(id);
  if (module instanceof Error) return errorBox(module, () => load(id));
  if (!module) {
    if (!modules.has(id)) load(id);
    return skeleton(4);
  }
  return module.view();
}

async function load(id) {
  modules.set(id, null);
  try {
    modules.set(id, await import(`./tabs/${id}.js`));
  } catch (error) {
    modules.set(id, error instanceof Error ? error : new Error(String(error)));
  }
  refresh();
}

let lastTab = null;
// The picture of the fleet whose models have their colours.
let introduced = null;

drawWith(() => {
  startPass();
  if (live.status !== introduced) {
    introduced = live.status;
    introduce(nodes().flatMap((node) => node.models.map((model) => model.name)));
  }
  render(html`${shell(tabView())}${dialogView()}`, root);
  endPass();
  syncDialog();
  if (lastTab !== route.tab) {
    lastTab = route.tab;
    document.querySelector("nav [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });
  }
  // Seen in a background tab, too.
  const { nodes_total: all = 0, nodes_ready: ready = 0 } = live.status?.fleet ?? {};
  document.title = `${all > ready ? `(${all - ready} away) ` : ""}${route.tab.title} · herd`;
});

root.replaceChildren();
startRouting();
load(route.tab.id);
startLive();
startKeys();
refresh();
