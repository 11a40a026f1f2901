// The points of the charts that this page has got so far: columns of equal length, the oldest first.

export class Series {
  constructor() {
    this.clear();
  }

  clear() {
    this.last = 0;
    this.columns = {};
    this.gpus = [];
  }

  get length() {
    return this.columns.times?.length ?? 0;
  }

  /** Appends what the server has sent, and forgets points that are older than `keptS`. */
  add(history, keptS) {
    const { last, gpus = [], model, ...columns } = history;
    if (!columns.times?.length) return;
    // A server that was restarted counts from the beginning.
    if (last < this.last) this.clear();
    this.last = last;
    const kept = this.length;
    for (const [name, values] of Object.entries(columns)) {
      this.columns[name] = [...(this.columns[name] ?? Array(kept).fill(null)), ...values];
    }
    this.gpus = gpus.map((gpu) => this.#joined(gpu, kept));
    const oldest = this.columns.times.at(-1) - keptS;
    this.#cut(this.columns.times.findIndex((time) => time >= oldest));
  }

  /** The latest value of a column, null if there is none. */
  latest(name) {
    return this.columns[name]?.at(-1) ?? null;
  }

  #joined(gpu, kept) {
    const before = this.gpus.find((other) => other.index === gpu.index);
    const join = (name) => [...(before?.[name] ?? Array(kept).fill(null)), ...gpu[name]];
    return { ...gpu, utilization: join("utilization"), used_bytes: join("used_bytes") };
  }

  #cut(count) {
    if (count <= 0) return;
    for (const name of Object.keys(this.columns)) this.columns[name] = this.columns[name].slice(count);
    for (const gpu of this.gpus) {
      gpu.utilization = gpu.utilization.slice(count);
      gpu.used_bytes = gpu.used_bytes.slice(count);
    }
  }
}
