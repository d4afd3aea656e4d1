// A button with a short list of actions.
import { html } from "../core/view.js";

let nextId = 0;
const ids = new Map();

// `items`: [{ label, run, danger }]. The list is a popover: Escape and a click elsewhere close it.
export function menu(name, label, items) {
  if (!ids.has(name)) ids.set(name, `menu-${(nextId += 1)}`);
  const id = ids.get(name);
  const place = (event) => {
    const list = document.getElementById(id);
    const at = event.currentTarget.getBoundingClientRect();
    list.style.top = `${Math.round(at.bottom + 4)}px`;
    list.style.right = `${Math.round(document.documentElement.clientWidth - at.right)}px`;
  };
  const move = (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const buttons = [...event.currentTarget.querySelectorAll("button")];
    const at = buttons.indexOf(document.activeElement);
    buttons[(at + step + buttons.length) % buttons.length].focus();
  };
  const act = (item) => {
    document.getElementById(id).hidePopover();
    item.run();
  };
  return html`<button class="icon" aria-label=${label} title=${label} aria-haspopup="menu" popovertarget=${id} @click=${place}>⋯</button>
    <div class="menu" id=${id} popover role="menu" @keydown=${move}>
      ${items.map((item) => html`<button role="menuitem" class=${item.danger ? "danger" : ""} @click=${() => act(item)}>${item.label}</button>`)}
    </div>`;
}
