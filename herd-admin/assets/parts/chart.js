// Charts of time series: a thin element around uPlot, which is loaded when the first is shown.
import { html } from "../core/view.js";
import { setParams } from "../core/route.js";
import { NONE, marks, moment } from "../core/format.js";

const HEIGHT = 190;
const WHOLE = [1, 2, 5].flatMap((one) => Array.from({ length: 9 }, (_, power) => one * 10 ** power)).sort((a, b) => a - b);
let library = null;

const load = () => (library ??= import("../vendor/uplot/uPlot.esm.js").then((module) => module.default));

// A colour as the canvas wants it: variables and themes resolved.
function resolved(element, colour) {
  const probe = document.createElement("i");
  probe.style.color = colour;
  element.append(probe);
  const value = getComputedStyle(probe).color;
  probe.remove();
  return value;
}

const faint = (rgb, alpha) => rgb.replace(/^rgb\((.*)\)$/, (_, parts) => `rgba(${parts}, ${alpha})`);

// What has no neighbour makes no line, and would not be seen.
function alone(plot, series) {
  const values = plot.data[series];
  const [from, to] = plot.series[0].idxs;
  const places = [];
  for (let at = from; at <= to; at += 1) {
    if (values[at] != null && values[at - 1] == null && values[at + 1] == null) places.push(at);
  }
  return places.length ? places : null;
}

class HerdChart extends HTMLElement {
  #spec = null;
  #plot = null;
  #shape = "";
  #theme = () => this.#rebuild();
  #resize = new ResizeObserver(() => this.#plot?.setSize({ width: this.clientWidth, height: HEIGHT }));
  #dark = matchMedia("(prefers-color-scheme: dark)");

  set spec(spec) {
    this.#spec = spec;
    this.#update();
  }

  connectedCallback() {
    this.setAttribute("role", "img");
    this.#resize.observe(this);
    addEventListener("themechange", this.#theme);
    this.#dark.addEventListener("change", this.#theme);
    this.#update();
  }

  disconnectedCallback() {
    this.#resize.disconnect();
    removeEventListener("themechange", this.#theme);
    this.#dark.removeEventListener("change", this.#theme);
    this.#drop();
  }

  #drop() {
    this.#plot?.destroy();
    this.#plot = null;
    this.#shape = "";
  }

  #rebuild() {
    this.#drop();
    this.#update();
  }

  async #update() {
    const spec = this.#spec;
    if (!spec || !this.isConnected) return;
    this.setAttribute("aria-label", spec.summary ?? spec.title);
    const UPlot = await load();
    if (spec !== this.#spec || !this.isConnected) return;
    const data = [spec.times.map((ms) => ms / 1_000), ...spec.series.map((one) => one.values.map((value) => value ?? null))];
    // The same lines with other numbers need no other chart.
    const shape = JSON.stringify([spec.title, spec.series.map((one) => [one.label, one.colour, one.dash, one.bars])]);
    if (this.#plot && shape === this.#shape) {
      this.#plot.setData(data);
      this.#plot.setScale("x", this.#span());
      return;
    }
    this.#drop();
    this.#shape = shape;
    this.#plot = new UPlot(this.#options(UPlot), data, this);
  }

  #span() {
    return { min: this.#spec.from / 1_000, max: this.#spec.to / 1_000 };
  }

  #options(UPlot) {
    const spec = this.#spec;
    const text = resolved(this, "var(--muted)");
    const grid = { stroke: resolved(this, "var(--line)"), width: 1 };
    const axis = { stroke: text, grid, ticks: { show: false }, font: "11px system-ui, sans-serif", gap: 6 };
    return {
      width: this.clientWidth || 600,
      height: HEIGHT,
      padding: [8, 20, 0, 0],
      legend: { live: true },
      cursor: { sync: { key: "herd" }, points: { size: 6 }, drag: { x: true, y: false, setScale: false } },
      select: { show: true },
      scales: { x: { time: true, ...this.#span() }, y: { range: (_, __, most) => [0, spec.most ?? (most > 0 ? most * 1.08 : 1)] } },
      axes: [
        { ...axis, size: 28, space: 64, values: (_, ticks) => marks(ticks.map((tick) => tick * 1_000)) },
        { ...axis, size: 58, ...(spec.whole ? { incrs: WHOLE } : {}), values: (_, ticks) => ticks.map((tick) => spec.show(tick)) },
      ],
      series: [{ value: (_, at) => (at == null ? NONE : moment(at * 1_000)) }, ...spec.series.map((one) => this.#series(UPlot, one))],
      hooks: { setSelect: [(plot) => this.#mark(plot)] },
    };
  }

  #series(UPlot, one) {
    const colour = resolved(this, one.colour);
    const bars = one.bars ? { paths: UPlot.paths.bars({ size: [0.8, 40], align: 1 }), fill: faint(colour, one.faint ? 0.35 : 0.85) } : {};
    const fill = one.fill ? { fill: faint(colour, 0.12) } : {};
    return {
      label: one.label,
      stroke: colour,
      width: one.bars ? 0 : one.dash ? 1 : 1.5,
      dash: one.dash ? [4, 4] : undefined,
      points: one.bars ? { show: false } : { show: false, size: 4, fill: colour, filter: alone },
      spanGaps: false,
      // The value under the pointer; without one the last.
      value: (plot, value, series, at) => this.#shown(at == null ? plot.data[series]?.findLast((one) => one != null) : value),
      ...bars,
      ...fill,
    };
  }

  #shown(value) {
    return value == null ? NONE : this.#spec.show(value);
  }

  // A stretch marked with the pointer becomes the range of the page.
  #mark(plot) {
    const { left, width } = plot.select;
    if (width < 8) return;
    const at = (x) => Math.round(plot.posToVal(x, "x") * 1_000);
    const [from, to] = [at(left), at(left + width)];
    plot.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
    if (to - from > 1_000) setParams({ from: String(from), to: String(to) }, { replace: false });
  }
}

customElements.define("herd-chart", HerdChart);

// `series`: [{ label, values, colour, bars, dash, fill }]; `times`, `from` and `to` in Unix milliseconds; `show(value)`;
// `most`: what the axis ends with, where that is known.
export const chart = (spec) => html`<figure class="chart" data-chart=${spec.title}>
  <figcaption><span>${spec.title}</span>${spec.unit ? html`<span class="dim">${spec.unit}</span>` : ""}</figcaption>
  <herd-chart .spec=${spec}></herd-chart>
</figure>`;

