// One dialog at a time: a question with fields, carried out in place, or a text.
import { html, nothing } from "../core/view.js";
import { refresh } from "../core/schedule.js";
import { errorBox } from "./bits.js";

let open = null;

// `fields`: [{ name, label, value, type, options, help, required }]; `run(values)` may fail, and is then told in place.
export function dialog(spec) {
  const values = Object.fromEntries((spec.fields ?? []).map((field) => [field.name, field.value ?? ""]));
  open = { ...spec, values, busy: false, error: null, back: document.activeElement };
  refresh();
}

export function closeDialog() {
  const back = open?.back;
  open = null;
  document.querySelector("dialog")?.close();
  refresh();
  back?.focus?.();
}

async function run(event) {
  event.preventDefault();
  const mine = open;
  if (!mine || mine.busy) return;
  if (!mine.run) return closeDialog();
  mine.busy = true;
  mine.error = null;
  refresh();
  try {
    await mine.run(mine.values);
    if (open === mine) closeDialog();
  } catch (error) {
    mine.error = error;
  }
  mine.busy = false;
  refresh();
}

function field(one) {
  const set = (event) => {
    open.values[one.name] = event.target.type === "checkbox" ? event.target.checked : event.target.value;
  };
  const id = `field-${one.name}`;
  const input = one.options
    ? html`<select id=${id} @change=${set}>${one.options.map(
        (option) => html`<option value=${option.value ?? option} ?selected=${(option.value ?? option) === one.value}>${option.label ?? option}</option>`,
      )}</select>`
    : html`<input id=${id} type=${one.type ?? "text"} .value=${one.value ?? ""} ?required=${one.required} min=${one.min ?? nothing}
        max=${one.max ?? nothing} step=${one.step ?? nothing} autocomplete="off" spellcheck="false" @input=${set}>`;
  return html`<label class="field" for=${id}><span>${one.label}</span>${input}${one.help ? html`<small>${one.help}</small>` : nothing}</label>`;
}

export function dialogView() {
  if (!open) return html`<dialog></dialog>`;
  return html`<dialog aria-labelledby="dialog-title" @cancel=${(event) => (event.preventDefault(), closeDialog())}
    @click=${(event) => event.target.tagName === "DIALOG" && closeDialog()}>
    <form @submit=${run}>
      <h2 id="dialog-title">${open.title}</h2>
      <div class="text">${open.text ?? nothing}</div>
      ${(open.fields ?? []).map(field)}
      ${open.error ? errorBox(open.error) : nothing}
      <footer>
        ${open.run ? html`<button type="button" @click=${closeDialog}>Cancel</button>` : nothing}
        <button type="submit" class=${open.danger ? "danger" : "primary"} ?disabled=${open.busy}>
          ${open.busy ? "Working…" : open.run ? open.action : "Close"}</button>
      </footer>
    </form>
  </dialog>`;
}

// After a drawing: a dialog with a question is modal, so that focus stays in it.
export function syncDialog() {
  const element = document.querySelector("dialog");
  if (!element) return;
  if (open && !element.open) {
    element.showModal();
    (element.querySelector("input, select") ?? element.querySelector("button[type=submit]"))?.focus();
  } else if (!open && element.open) {
    element.close();
  }
}
