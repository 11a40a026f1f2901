// Inputs that are pictures: which ones are, and a canvas that shows one and can be painted on.

import { element } from "./dom.js";

const MOST_PIXELS = 512 * 512;
const MOST_PAINTABLE = 64 * 64;
const SIDE = 192;

/**
 * Returns height, width and channels of one row of an input, or null if it hardly is a picture.
 * A flat row is one if its length is a square and no value is negative.
 */
export function pictureOf(tensor, batchAxis) {
  if (!["FP32", "FP16", "BF16", "FP64", "UINT8"].includes(tensor.datatype)) return null;
  const sizes = tensor.shape.filter((_, axis) => axis !== batchAxis);
  const form = formOf(sizes, tensor.data);
  return form &&
    form.height * form.width <= MOST_PIXELS &&
    tensor.data.length >= form.height * form.width * form.channels
    ? form
    : null;
}

function formOf(sizes, values) {
  const isSide = (size) => size >= 4;
  if (sizes.length === 1) {
    const side = Math.sqrt(sizes[0]);
    const isSquare = Number.isInteger(side) && side >= 7 && values.every((value) => value >= 0);
    return isSquare ? { height: side, width: side, channels: 1, first: true } : null;
  }
  if (sizes.length === 2 && sizes.every(isSide)) return { height: sizes[0], width: sizes[1], channels: 1, first: true };
  if (sizes.length !== 3) return null;
  const [a, b, c] = sizes;
  if ((a === 1 || a === 3) && isSide(b) && isSide(c)) return { height: b, width: c, channels: a, first: true };
  if ((c === 1 || c === 3) && isSide(a) && isSide(b)) return { height: a, width: b, channels: c, first: false };
  return null;
}

/** Shows the first row of `values`, which are changed in place by painting; `onPaint` is called then. */
export class Picture {
  constructor(form, values, label, onPaint) {
    this.form = form;
    this.values = values;
    this.onPaint = onPaint;
    const scale = Math.max(1, Math.floor(SIDE / Math.max(form.height, form.width)));
    this.scale = scale;
    this.canvas = element("canvas", {
      width: form.width * scale,
      height: form.height * scale,
      role: "img",
      "aria-label": `${label} as a picture of ${form.width} × ${form.height} pixels`,
    });
    this.high = this.#highest();
    this.paintable = form.channels === 1 && form.height * form.width <= MOST_PAINTABLE;
    if (this.paintable) this.#listen();
    this.draw();
  }

  clear() {
    this.values.fill(0, 0, this.#pixels());
    this.draw();
    this.onPaint();
  }

  draw() {
    const { height, width, channels, first } = this.form;
    const context = this.canvas.getContext("2d");
    const low = Math.min(0, ...this.#extremes());
    const range = Math.max(this.high - low, 1e-12);
    context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    for (let y = 0; y < height; y += 1) {
      for (let x = 0; x < width; x += 1) {
        const at = (channel) => {
          const index = first ? (channel * height + y) * width + x : (y * width + x) * channels + channel;
          return Math.min(1, Math.max(0, (this.values[index] - low) / range));
        };
        context.fillStyle = channels === 3 ? `rgb(${[0, 1, 2].map((each) => 255 * at(each)).join(" ")})` : ink(at(0));
        context.fillRect(x * this.scale, y * this.scale, this.scale, this.scale);
      }
    }
  }

  #pixels() {
    return this.form.height * this.form.width * this.form.channels;
  }

  #extremes() {
    let [low, high] = [Infinity, -Infinity];
    for (let index = 0; index < this.#pixels(); index += 1) {
      low = Math.min(low, this.values[index]);
      high = Math.max(high, this.values[index]);
    }
    return [low, high];
  }

  #highest() {
    const high = this.#extremes()[1];
    return high > 0 ? high : 1;
  }

  #listen() {
    this.canvas.classList.add("paintable");
    const paint = (event) => {
      if (event.buttons !== 1) return;
      event.preventDefault();
      const box = this.canvas.getBoundingClientRect();
      const x = Math.floor(((event.clientX - box.left) / box.width) * this.form.width);
      const y = Math.floor(((event.clientY - box.top) / box.height) * this.form.height);
      this.#dot(x, y);
    };
    this.canvas.addEventListener("pointerdown", (event) => {
      this.canvas.setPointerCapture(event.pointerId);
      paint(event);
    });
    this.canvas.addEventListener("pointermove", paint);
  }

  /** Paints a pixel, and those beside it more lightly, as a pen does. */
  #dot(x, y) {
    for (const [dx, dy, strength] of [
      [0, 0, 1],
      [1, 0, 0.4],
      [-1, 0, 0.4],
      [0, 1, 0.4],
      [0, -1, 0.4],
    ]) {
      const [column, row] = [x + dx, y + dy];
      if (column < 0 || row < 0 || column >= this.form.width || row >= this.form.height) continue;
      const index = row * this.form.width + column;
      this.values[index] = Math.max(this.values[index], Math.round(strength * this.high * 100) / 100);
    }
    this.draw();
    this.onPaint();
  }
}

/** Returns the colour of a value from 0 to 1: black on white in every theme, as the numbers mean it. */
function ink(share) {
  const level = Math.round(255 * (1 - share));
  return `rgb(${level} ${level} ${level})`;
}
