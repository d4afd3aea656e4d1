// Tables that sort: columns are { id, title, value(row), cell(row), number, title }.
import { html, nothing, repeat } from "../core/view.js";
import { refresh } from "../core/schedule.js";

const orders = new Map();

export function table(name, columns, rows, { key, first, selected, onRow, caption } = {}) {
  const order = orders.get(name) ?? first ?? null;
  const column = order && columns.find((one) => one.id === order.id && one.value);
  const sorted = column ? [...rows].sort(by(column, order.up)) : rows;
  const sort = (one) => {
    const same = order?.id === one.id;
    orders.set(name, { id: one.id, up: same ? !order.up : !one.number });
    refresh();
  };
  const head = (one) => {
    const state = order?.id === one.id ? (order.up ? "ascending" : "descending") : nothing;
    const label = one.value ? html`<button class="sort" @click=${() => sort(one)}>${one.title}</button>` : one.title;
    return html`<th scope="col" class=${one.number ? "number" : ""} aria-sort=${state} title=${one.help ?? nothing}>${label}</th>`;
  };
  const row = (one) => html`<tr class=${onRow ? "pickable" : ""} aria-selected=${selected?.(one) ? "true" : nothing}
    @click=${onRow ? (event) => !event.target.closest("a, button") && onRow(one) : nothing}>
    ${columns.map((cell) => html`<td class=${cell.number ? "number" : ""} data-title=${cell.title}>${cell.cell(one)}</td>`)}
  </tr>`;
  return html`<div class="scroll" tabindex="0" role="region" aria-label=${caption ?? name}><table>
    <thead><tr>${columns.map(head)}</tr></thead>
    <tbody>${repeat(sorted, key ?? ((_, index) => index), row)}</tbody>
  </table></div>`;
}

const by = (column, up) => (a, b) => {
  const [left, right] = [column.value(a), column.value(b)];
  // What is not known stands last either way.
  if (left == null || right == null) return (left == null) - (right == null);
  const order = typeof left === "number" ? left - right : String(left).localeCompare(String(right));
  return up ? order : -order;
};
