// Keys: g and a letter opens a tab, / goes to the filter, ? lists them.
import { TABS, go, href } from "./route.js";
import { dialog } from "../parts/dialog.js";
import { html } from "./view.js";

const AFTER_G_MS = 1_500;
let afterG = 0;

export function startKeys() {
  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest?.("input, select, textarea, dialog");
    if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "g") {
      afterG = performance.now();
    } else if (event.key === "?") {
      help();
    } else if (event.key === "/") {
      const filter = document.querySelector("main input[type=search], main input");
      if (!filter) return;
      event.preventDefault();
      filter.focus();
    } else if (performance.now() - afterG < AFTER_G_MS) {
      afterG = 0;
      const tab = TABS.find((one) => one.key === event.key);
      if (tab) go(href(tab.id));
    }
  });
}

export function help() {
  dialog({
    title: "Keys",
    text: html`<dl class="keys">
      ${TABS.map((tab) => html`<div><dt><kbd>g</kbd> <kbd>${tab.key}</kbd></dt><dd>${tab.title}</dd></div>`)}
      <div><dt><kbd>/</kbd></dt><dd>To the filter</dd></div>
      <div><dt><kbd>?</kbd></dt><dd>This list</dd></div>
    </dl>`,
  });
}

// Arrow keys move along the tabs.
export function onNavKey(event) {
  const step = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 }[event.key];
  if (!step) return;
  const links = [...event.currentTarget.querySelectorAll("a")];
  const at = links.indexOf(document.activeElement);
  if (at < 0) return;
  event.preventDefault();
  links[(at + step + links.length) % links.length].focus();
}
