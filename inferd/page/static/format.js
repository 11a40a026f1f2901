// Numbers with units, as people read them. Null is unknown.

export const NONE = "–";

const decimals = [0, 1, 2, 3].map(
  (digits) => new Intl.NumberFormat("en", { minimumFractionDigits: 0, maximumFractionDigits: digits }),
);

/** About three significant digits. */
export function number(value) {
  if (value === null || value === undefined) return NONE;
  const size = Math.abs(value);
  return decimals[size >= 100 ? 0 : size >= 10 ? 1 : size >= 1 || size === 0 ? 2 : 3].format(value);
}

export const whole = (value) => decimals[0].format(value);

export function milliseconds(value) {
  if (value === null || value === undefined) return NONE;
  return value >= 1000 ? `${number(value / 1000)} s` : `${number(value)} ms`;
}

const SIZES = ["B", "KiB", "MiB", "GiB", "TiB"];

export function bytes(value) {
  if (value === null || value === undefined) return NONE;
  let unit = 0;
  while (value >= 1000 && unit < SIZES.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit ? number(value) : whole(value)} ${SIZES[unit]}`;
}

export const percent = (share) => (share === null || share === undefined ? NONE : `${number(100 * share)} %`);

export const time = (seconds) => new Date(1000 * seconds).toLocaleTimeString("en-GB");

/** A shape such as [rows, 64]: open dimensions by their name, or as "any". */
export function shape(sizes, batchAxis = null) {
  const shown = sizes.map((size, axis) => size ?? (axis === batchAxis ? "rows" : "any"));
  return `[${shown.join(", ")}]`;
}

export const plural = (count, one, many = `${one}s`) => `${whole(count)} ${count === 1 ? one : many}`;
