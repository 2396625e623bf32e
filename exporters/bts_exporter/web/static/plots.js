// Plots of the last 15 minutes, drawn by uPlot.

import * as units from "./units.js";
import { element, setText } from "./units.js";

const HISTORY_SECONDS = 900;
const PLOTS = [
  ["CPU", units.share, { cpu_share: "busy" }],
  ["Memory", units.share, { memory_share: "used" }],
  ["Fullest file system", units.share, { filesystem_share: "used" }],
  ["Disk", units.bytesPerSecond, { disk_read_bytes: "read", disk_written_bytes: "written" }],
  ["Network", units.bytesPerSecond, { network_received_bytes: "received", network_sent_bytes: "sent" }],
  ["Pressure: tasks wait for", units.share,
    { cpu_pressure_share: "CPU", memory_pressure_share: "memory", io_pressure_share: "I/O" }],
];
// Steps of an axis with durations, in seconds.
const DURATIONS = [1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600, 86400, 604800];
const LINES = ["solid", "dashed", "dotted"];
const DASHES = [[], [6, 4], [2, 3]];

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

// A plot of some series over the last 15 minutes, with their current values in its caption.
export class Plot {
  constructor(title, format, names) {
    Object.assign(this, { title, format, names });
    this.values = names.map(() => element("span", { class: "value" }));
    const keys = names.map((name, i) =>
      element("span", { class: "key" }, element("span", { class: `swatch ${LINES[i]}`, "aria-hidden": "true" }),
        ` ${name} `, this.values[i]));
    this.heading = element("span", { class: "plot-title" }, title);
    this.canvas = element("div", { class: "canvas", role: "img", "aria-label": `${title}, last 15 minutes` });
    this.figure = element("figure", {}, element("figcaption", {}, this.heading, ...keys), this.canvas);
    new ResizeObserver(() => this.#resize()).observe(this.canvas);
  }

  // Takes Unix times, and the values of each series at these times.
  update(times, columns, now) {
    this.data = [times, ...columns];
    this.now = now;
    columns.forEach((column, i) => setText(this.values[i], this.format(column.at(-1) ?? null)));
    if (this.plot) this.plot.setData(this.data);
    else this.#resize();
  }

  // Draws it again, with the colours of now.
  redraw() {
    this.plot?.destroy();
    this.plot = null;
    this.#resize();
  }

  #resize() {
    const width = this.canvas.clientWidth;
    if (!width || !this.data) return;
    if (this.plot) this.plot.setSize({ width, height: this.canvas.clientHeight });
    else this.plot = new uPlot(this.#options(width), this.data, this.canvas);
  }

  #options(width) {
    const axis = { stroke: colour("quiet"), grid: { stroke: colour("line"), width: 1 }, ticks: { show: false },
      font: "11px system-ui, sans-serif" };
    const isDuration = this.format === units.duration;
    const isShare = this.format === units.share;
    return {
      width, height: this.canvas.clientHeight, legend: { show: false }, cursor: { show: false }, pxAlign: 0,
      padding: [6, 16, 0, 0],
      scales: {
        x: { range: () => [this.now - HISTORY_SECONDS, this.now] },
        y: { range: (_, low, high) => [0, isShare && high > 0.5 ? 1 : Math.max(high * 1.1, isShare ? 0.02 : 1)] },
      },
      axes: [
        { ...axis, size: 20, space: 60, values: (_, ticks) => ticks.map((tick) => units.moment(tick, tick).slice(0, 5)) },
        { ...axis, size: isDuration ? 78 : 54, space: 24, ...(isDuration && { incrs: DURATIONS }), values: (_, ticks) => ticks.map(units.tickOf(this.format)) },
      ],
      series: [{}, ...this.names.map((_, i) => ({
        stroke: colour(`plot-${i + 1}`), width: 1.5, dash: DASHES[i], points: { size: 4 }, spanGaps: true,
      }))],
    };
  }
}

// The plots of the host.
export class HostPlots {
  constructor(place) {
    this.place = place;
    this.times = [];
    this.columns = new Map();
    this.plots = null;
  }

  update(report) {
    this.#remember(report);
    if (!this.columns.size) return;
    if (!this.plots) this.#make();
    for (const [plot, names] of this.plots) {
      plot.update(this.times, names.map((name) => this.columns.get(name) ?? this.times.map(() => null)), report.time);
    }
    const fullest = report.host.fullest_filesystem;
    if (fullest) setText(this.plots[2][0].heading, `Fullest file system: ${units.printable(fullest)}`);
  }

  redraw() {
    for (const [plot] of this.plots ?? []) plot.redraw();
  }

  #make() {
    this.plots = PLOTS.map(([title, format, names]) =>
      [new Plot(title, format, Object.values(names)), Object.keys(names)]);
    this.place.replaceChildren(...this.plots.map(([plot]) => plot.figure));
  }

  #remember(report) {
    if (report.complete) {
      this.times = [];
      this.columns.clear();
    }
    const { times, figures } = report.host;
    for (const name of new Set([...this.columns.keys(), ...Object.keys(figures)])) {
      const known = this.columns.get(name) ?? this.times.map(() => null);
      this.columns.set(name, known.concat(figures[name] ?? times.map(() => null)));
    }
    this.times = this.times.concat(times);
    const old = this.times.filter((time) => time < report.time - HISTORY_SECONDS).length;
    this.times.splice(0, old);
    for (const column of this.columns.values()) column.splice(0, old);
  }
}
