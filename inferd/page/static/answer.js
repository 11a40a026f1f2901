// The answer to a request of the form: its outputs and its timing.

import { element, table } from "./dom.js";
import { milliseconds, number, plural, shape } from "./format.js";

const MOST_BARS = 20;
const MOST_VALUES = 64;

/** Returns what shows `outputs`, and a sentence that says the same. */
export function answerOf({ content, headers }, elapsedMs, labels) {
  const outputs = content.outputs ?? [];
  return {
    node: element(
      "div",
      { class: "answer" },
      ...outputs.map((output) => outputNode(output, labels[output.name] ?? [])),
      timingNode(headers.get("inferd-timing"), elapsedMs),
    ),
    sentence: `Answer after ${milliseconds(elapsedMs)}. ${outputs.map(sentenceOf).join(" ")}`,
  };
}

function sentenceOf({ name, shape: sizes, data }) {
  return data.length === 1
    ? `${name} is ${text(data[0])}.`
    : `${name}: ${plural(data.length, "value")}, ${shape(sizes)}.`;
}

function outputNode(output, labels) {
  const heading = element(
    "h5",
    {},
    element("span", { class: "name" }, output.name),
    element("small", {}, ` ${output.datatype} ${shape(output.shape)}`),
  );
  return element("div", { class: "output" }, heading, valuesNode(output, labels));
}

function valuesNode({ data, datatype, shape: sizes }, labels) {
  if (data.length === 1) return element("p", { class: "single" }, labels[data[0]] ?? text(data[0]));
  const isRow = sizes.at(-1) === data.length && data.length <= MOST_BARS;
  if (isRow && /^(FP|BF)/.test(datatype) && data.every((value) => value !== null && value >= 0))
    return bars(data, labels);
  const shown = data.slice(0, MOST_VALUES).map(text).join(", ");
  const left = data.length - MOST_VALUES;
  return element(
    "p",
    { class: "values" },
    shown,
    left > 0 ? element("span", { class: "soft" }, ` … ${number(left)} more`) : null,
  );
}

/** Scores of classes, as bars beside their numbers. */
function bars(values, labels) {
  const highest = Math.max(...values);
  const rows = values.map((value, index) => {
    const name = labels[index] ?? String(index);
    const meter = element("meter", { min: 0, max: Math.max(highest, 1e-12), value, "aria-label": `score of ${name}` });
    return element(
      "li",
      { class: value === highest ? "best" : null },
      element("span", { class: "name" }, name),
      meter,
      element("span", { class: "value" }, highest > 1 ? number(value) : value.toFixed(4)),
    );
  });
  return element("ol", { class: "bars" }, ...rows);
}

const text = (value) =>
  typeof value === "number" && !Number.isInteger(value) ? String(Number(value.toPrecision(6))) : String(value);

/** Shows how long the stages took in the server, and what came on top of them. */
function timingNode(header, elapsedMs) {
  const stages = [...(header ?? "").matchAll(/(\w+);dur=([\d.]+)/g)].map(([, name, ms]) => [name, Number(ms)]);
  const total = stages.find(([name]) => name === "total")?.[1];
  const rows = stages.filter(([name]) => name !== "total").map(([name, ms]) => [name, milliseconds(ms)]);
  if (total !== undefined) rows.push(["in the server", milliseconds(total)]);
  rows.push(["as seen by this page", milliseconds(elapsedMs)]);
  return element("div", { class: "timing" }, table(["stage", "time"], rows, "Timing of the request"));
}
