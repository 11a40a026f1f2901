// Small charts of the last minutes, each with its latest values as text.

import { element, setText } from "./dom.js";
import { bytes, milliseconds, number, percent, time } from "./format.js";

const HEIGHT = 150;

/** Steps of an axis of bytes. */
const BINARY = Array.from({ length: 44 }, (_, power) => 2 ** power);

const TRAFFIC = [
  {
    title: "Requests",
    unit: "per second",
    format: number,
    lines: [
      { name: "answered", column: "answered", color: 1 },
      { name: "rejected", column: "rejected", color: 2 },
      { name: "failed", column: "failed", color: 3 },
    ],
  },
  {
    title: "Latency",
    unit: "of answered unary calls",
    format: milliseconds,
    lines: [
      { name: "p50", column: "p50_ms", color: 1 },
      { name: "p90", column: "p90_ms", color: 2 },
      { name: "p99", column: "p99_ms", color: 3 },
    ],
  },
  {
    title: "Batch size",
    unit: "rows per run",
    format: number,
    lines: [{ name: "mean", column: "batch_rows", color: 1 }],
  },
  {
    title: "Queue",
    unit: "rows waiting",
    format: number,
    lines: [{ name: "waiting", column: "waiting_rows", color: 1 }],
  },
];

const SERVER = [
  {
    title: "Processor",
    unit: "cores in use",
    least: 0.1,
    format: number,
    lines: [{ name: "cores", column: "cores", color: 1 }],
  },
  {
    title: "Memory",
    unit: "of the process",
    least: 2 ** 20,
    format: bytes,
    lines: [
      { name: "all", column: "resident_bytes", color: 1 },
      { name: "models", column: "model_bytes", color: 2 },
      { name: "requests", column: "request_bytes", color: 3 },
    ],
  },
];

const gpuCharts = (gpu) => [
  {
    title: `GPU ${gpu.index}`,
    unit: "time busy",
    format: percent,
    top: 1,
    lines: [{ name: "busy", column: "utilization", color: 1 }],
  },
  {
    title: `GPU ${gpu.index} memory`,
    unit: `of ${bytes(gpu.total_bytes)}`,
    format: bytes,
    top: gpu.total_bytes,
    lines: [{ name: "used", column: "used_bytes", color: 1 }],
  },
];

const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** One chart: a figure with a canvas, and a legend that has the latest values or those below the pointer. */
class Chart {
  constructor(form, parent, keptS) {
    this.form = form;
    this.keptS = keptS;
    this.values = form.lines.map(() => element("b"));
    this.plot = element("div", { class: "plot", role: "img" });
    const keys = form.lines.map((line, index) =>
      element("span", { class: `key c${line.color}` }, `${line.name} `, this.values[index]),
    );
    this.at = element("small", { class: "at" });
    this.figure = element(
      "figure",
      {},
      element("figcaption", {}, `${form.title} `, element("small", {}, form.unit), this.at),
      this.plot,
      element("div", { class: "legend" }, ...keys),
    );
    parent.append(this.figure);
    this.draw();
    this.observer = new ResizeObserver(() => this.#resize());
    this.observer.observe(this.plot);
  }

  draw() {
    this.uplot?.destroy();
    this.uplot = new uPlot(this.#options(), this.data ?? [[], ...this.form.lines.map(() => [])], this.plot);
    // The plot has a text in its place.
    this.uplot.root.setAttribute("aria-hidden", "true");
    if (this.data) this.#show();
  }

  set(columns) {
    const times = columns.times ?? [];
    this.data = [times, ...this.form.lines.map((line) => columns[line.column] ?? Array(times.length).fill(null))];
    this.#show();
  }

  remove() {
    this.observer.disconnect();
    this.uplot.destroy();
    this.figure.remove();
  }

  #options() {
    const { format, lines, top, least = 1 } = this.form;
    const axis = {
      stroke: color("--soft"),
      grid: { stroke: color("--line"), width: 1 },
      ticks: { show: false },
      font: "12px system-ui, sans-serif",
    };
    const range = (_, low, high) => [0, top ?? Math.max(1.1 * (high ?? 0), least)];
    return {
      width: Math.max(this.plot.clientWidth, 50),
      height: HEIGHT,
      legend: { show: false },
      cursor: { sync: { key: "inferd" }, drag: { setScale: false, x: false, y: false }, y: false },
      scales: { x: { time: true }, y: { range } },
      axes: [
        { ...axis, size: 24, incrs: [60, 120], values: (_, ticks) => ticks.map((tick) => time(tick).slice(0, 5)) },
        {
          ...axis,
          space: 34,
          incrs: format === bytes ? BINARY : undefined,
          size: (_, texts) => 14 + 6.5 * Math.max(2, ...(texts ?? []).map((text) => text.length)),
          values: (_, ticks) => ticks.map(format),
        },
      ],
      series: [
        {},
        ...lines.map((line) => ({
          stroke: color(`--c${line.color}`),
          width: 1.75,
          points: { show: false },
          fill: lines.length === 1 ? `${color(`--c${line.color}`)}1f` : undefined,
        })),
      ],
      hooks: { setCursor: [(plot) => this.#legend(plot.cursor.idx)] },
    };
  }

  #show() {
    const now = this.data[0].at(-1) ?? Date.now() / 1000;
    this.uplot.batch(() => {
      this.uplot.setData(this.data, false);
      this.uplot.setScale("x", { min: now - this.keptS, max: now });
    });
    this.#legend(this.uplot.cursor.idx);
    this.plot.setAttribute("aria-label", `${this.form.title} ${this.form.unit}, ${this.#summary()}`);
  }

  #legend(index) {
    if (!this.data) return;
    const pointed = index !== null && index !== undefined && this.uplot.cursor.left >= 0;
    this.values.forEach((node, line) => {
      const values = this.data[line + 1];
      setText(node, this.form.format(pointed ? values[index] : (values.at(-1) ?? null)));
    });
    setText(this.at, pointed ? time(this.data[0][index]) : "");
  }

  /** Describes the lines in words, for those who do not see them. */
  #summary() {
    return this.form.lines
      .map(({ name }, index) => {
        const values = this.data[index + 1].filter((value) => value !== null);
        const format = this.form.format;
        if (!values.length) return `${name}: none`;
        return `${name}: now ${format(this.data[index + 1].at(-1))}, at most ${format(Math.max(...values))}`;
      })
      .join("; ");
  }

  #resize() {
    const width = this.plot.clientWidth;
    if (width && width !== this.uplot.width) this.uplot.setSize({ width, height: HEIGHT });
  }
}

/** All charts: those of the traffic, which may be one model's, and those of the server. */
export class Charts {
  constructor(parent, keptS) {
    this.parent = parent;
    this.keptS = keptS;
    this.traffic = TRAFFIC.map((form) => new Chart(form, parent, keptS));
    this.server = SERVER.map((form) => new Chart(form, parent, keptS));
    this.gpus = [];
    const dark = matchMedia("(prefers-color-scheme: dark)");
    dark.addEventListener("change", () => this.#all().forEach((chart) => chart.draw()));
  }

  show(traffic, server) {
    this.traffic.forEach((chart) => chart.set(traffic.columns));
    this.server.forEach((chart) => chart.set(server.columns));
    if (server.gpus.length !== this.gpus.length / 2) {
      this.gpus.forEach((chart) => chart.remove());
      this.gpus = server.gpus.flatMap((gpu) => gpuCharts(gpu).map((form) => new Chart(form, this.parent, this.keptS)));
    }
    server.gpus.forEach((gpu, index) => {
      const columns = { ...gpu, times: server.columns.times };
      this.gpus[2 * index].set(columns);
      this.gpus[2 * index + 1].set(columns);
    });
  }

  /** Columns and rows of the numbers, the latest first, one row for each `stepS`. */
  rows(stepS) {
    const charts = this.#all();
    const columns = ["Time", ...charts.flatMap(({ form }) => form.lines.map((line) => `${form.title}: ${line.name}`))];
    const times = charts[0].data?.[0] ?? [];
    const rows = [];
    let before = Infinity;
    for (let index = times.length - 1; index >= 0; index -= 1) {
      if (before - times[index] < stepS) continue;
      before = times[index];
      const cells = charts.flatMap(({ data, form }) => data.slice(1).map((values) => form.format(values[index])));
      rows.push([time(before), ...cells]);
    }
    return { columns, rows };
  }

  #all() {
    return [...this.traffic, ...this.server, ...this.gpus];
  }
}
