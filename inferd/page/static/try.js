// The form that tries a model: inputs from an example, which may be edited, and the answer.

import * as api from "./api.js";
import { answerOf } from "./answer.js";
import { announce, element, setText } from "./dom.js";
import { number, shape } from "./format.js";
import { Picture, pictureOf } from "./picture.js";

/** Inputs with more elements are sent as the server gave them: no one edits them as text. */
const MOST_EDITED = 4096;

export class TryForm {
  constructor(model) {
    this.model = model;
    this.version = null;
    this.number = 0;
    this.chooser = element("select", { change: () => this.#load(Number(this.chooser.value)) });
    this.choice = element("label", { hidden: true }, "Example ", this.chooser);
    this.inputs = element("div", { class: "inputs" });
    this.send = element("button", { type: "submit", class: "primary", disabled: true }, "Send request");
    this.problem = element("p", { class: "problem", role: "alert", hidden: true });
    this.result = element("div", { class: "result" });
    this.form = element(
      "form",
      { class: "try", submit: (event) => this.#submit(event), keydown: (event) => this.#onKey(event) },
      element("div", { class: "row" }, element("h4", {}, "Try it"), this.choice),
      this.inputs,
      element("div", { class: "row" }, this.send),
      this.problem,
      this.result,
    );
  }

  /** Uses another version; loads its example when the form is seen for the first time. */
  use(version) {
    const is = `${version.version} ${version.state} ${JSON.stringify([version.inputs, version.generation])}`;
    if (this.used === is) return;
    this.used = is;
    this.version = version;
    this.#load(0);
  }

  async #load(wanted) {
    this.send.disabled = true;
    // An answer that is not to these inputs.
    this.result.replaceChildren();
    this.fields = [];
    if (!this.version.inputs.length) {
      this.inputs.replaceChildren(element("p", { class: "soft" }, this.#whyNone()));
      return;
    }
    try {
      const example = await api.example(this.model, this.version.version, wanted);
      this.#show(example);
    } catch (error) {
      this.used = null;
      this.inputs.replaceChildren(element("p", { class: "soft" }, `There is no example: ${error.message}`));
    }
  }

  #whyNone() {
    if (this.version.generation)
      return `It generates text: inferd generate ${this.model}, or POST /v1/completions and /v1/chat/completions.`;
    return this.version.on_demand
      ? "Its inputs are unknown until it is loaded, which its first request does."
      : "Its inputs are unknown while it is not loaded.";
  }

  #show(example) {
    this.#choices(example);
    if (example.inputs === null) {
      const text = `An example of this model has ${number(example.elements)} elements, too many for this page.`;
      this.inputs.replaceChildren(element("p", { class: "soft" }, text));
      return;
    }
    const specs = new Map(this.version.inputs.map((spec) => [spec.name, spec]));
    this.fields = example.inputs.map((tensor) => new Field(tensor, specs.get(tensor.name)?.batch_axis ?? null));
    this.inputs.replaceChildren(...this.fields.map((field) => field.node));
    this.send.disabled = false;
  }

  #choices({ recorded, number: chosen }) {
    this.choice.hidden = recorded < 2;
    const options = Array.from({ length: recorded }, (_, index) =>
      element("option", { value: index }, `${index + 1} of ${recorded}`),
    );
    this.chooser.replaceChildren(...options);
    this.chooser.value = String(chosen);
  }

  #onKey(event) {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) this.form.requestSubmit();
  }

  async #submit(event) {
    event.preventDefault();
    this.problem.hidden = true;
    this.send.disabled = true;
    try {
      const body = { inputs: this.fields.map((field) => field.tensor()) };
      const started = performance.now();
      const answer = await api.infer(this.model, this.version.version, body);
      const labels = Object.fromEntries(this.version.outputs.map((output) => [output.name, output.labels]));
      const { node, sentence } = answerOf(answer, performance.now() - started, labels);
      this.result.replaceChildren(node);
      announce(sentence);
    } catch (error) {
      this.result.replaceChildren();
      setText(this.problem, error.message);
      this.problem.hidden = false;
    }
    this.send.disabled = false;
  }
}

/** One input: a picture if it is one, and its elements as text. */
class Field {
  constructor(given, batchAxis) {
    this.given = given;
    this.batchAxis = batchAxis;
    const label = `${given.name} ${given.datatype} ${shape(given.shape)}`;
    const form = pictureOf(given, batchAxis);
    this.picture = form && new Picture(form, given.data, given.name, () => this.#painted());
    this.text = given.data.length <= MOST_EDITED ? this.#editor() : null;
    this.node = element(
      "div",
      { class: "field" },
      element(
        this.text ? "label" : "p",
        { class: "label" },
        element("span", { class: "name" }, given.name),
        element("small", {}, ` ${given.datatype} ${shape(given.shape)}`),
        this.text,
      ),
      this.text ? null : element("p", { class: "soft" }, `${number(given.data.length)} elements, as in the example`),
      this.picture ? this.#pictureNode(label) : null,
    );
  }

  /** The input as the request has it. Throws an error if its text does not fit the shape. */
  tensor() {
    const { name, datatype, shape: sizes, data } = this.given;
    if (!this.text) return { name, datatype, shape: sizes, data };
    const values = parsed(this.text.value, name);
    const inner = sizes.filter((_, axis) => axis !== this.batchAxis).reduce((product, size) => product * size, 1);
    const rows = values.length / inner;
    if (this.batchAxis === null ? values.length !== data.length : !Number.isInteger(rows) || rows < 1) {
      const expected = this.batchAxis === null ? number(data.length) : `${number(inner)} for each row`;
      throw new Error(`${name}: expected ${expected} elements, got ${number(values.length)}`);
    }
    return { name, datatype, shape: sizes.map((size, axis) => (axis === this.batchAxis ? rows : size)), data: values };
  }

  #editor() {
    const rows = Math.min(6, Math.max(1, Math.ceil(this.given.data.length / 16)));
    return element(
      "textarea",
      { rows, spellcheck: "false", input: () => this.#edited() },
      JSON.stringify(this.given.data),
    );
  }

  #pictureNode() {
    const { paintable, canvas } = this.picture;
    const clear = element("button", { type: "button", click: () => this.picture.clear() }, "Clear");
    return element(
      "div",
      { class: "picture" },
      canvas,
      paintable ? element("p", { class: "soft" }, "Paint on it, or edit its numbers. ", clear) : null,
    );
  }

  #painted() {
    if (this.text) this.text.value = JSON.stringify(this.given.data);
  }

  #edited() {
    if (!this.picture) return;
    try {
      const values = parsed(this.text.value, this.given.name);
      if (values.length === this.given.data.length) {
        values.forEach((value, index) => (this.given.data[index] = value));
        this.picture.draw();
      }
    } catch {
      // Not complete yet.
    }
  }
}

function parsed(text, name) {
  let values;
  try {
    values = JSON.parse(text);
  } catch {
    throw new Error(`${name}: expected a JSON list, such as [1, 2, 3]`);
  }
  return Array.isArray(values) ? values.flat(Infinity) : [values];
}
