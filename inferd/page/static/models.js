// The list of models: a line of live numbers for each, and what is behind it when it is opened.

import * as api from "./api.js";
import { announce, byId, confirmed, element, setText, table } from "./dom.js";
import { bytes, milliseconds, NONE, number, plural, shape } from "./format.js";
import { TryForm } from "./try.js";

/** Models of which the list has a field to search it. */
const MANY = 8;

const FIGURES = [
  ["requests/s", (now) => (now ? number(now.answered + now.rejected + now.failed) : "0")],
  ["p99", (now) => milliseconds(now?.p99_ms)],
  ["rows per run", (now) => number(now?.batch_rows)],
  ["waiting", (now) => number(now?.waiting_rows ?? 0)],
  ["memory", (_, model) => bytes(sum(model.versions, (each) => each.memory_bytes + each.device_memory_bytes))],
];

const sum = (items, of) => items.reduce((total, item) => total + of(item), 0);

const words = (state) => state.replaceAll("_", " ");

const pill = (kind, text) => element("span", { class: `pill ${kind}` }, text);

/** How a state is coloured. */
const KINDS = { ready: "good", failed: "bad", loading: "busy", verifying: "busy", warming: "busy", unloading: "busy" };

/** Verdicts of the proof of batching. */
const PROOFS = { proven: "proven", contradicted: "contradicted", unproven: "not proven" };

export class Models {
  constructor(parent, refresh) {
    this.parent = parent;
    this.refresh = refresh;
    this.cards = new Map();
    this.never = [];
    const columns = ["model", "versions", "batching", ...FIGURES.map(([name]) => name)];
    this.head = element(
      "div",
      { class: "columns", "aria-hidden": "true" },
      ...columns.map((name) => element("span", {}, name)),
    );
    this.none = element("p", { class: "soft" }, "There are no models that you may see.");
    byId("filter").addEventListener("input", () => this.#filter());
  }

  /** Shows `models`, whose order is that of the list; null if they have not changed. */
  update(models, recent, server) {
    if (models) this.#place([...models, ...this.#unloaded(models)], server);
    for (const [name, card] of this.cards) card.setNow(recent[name]);
  }

  /** Adds the models of the repositories that were never loaded, which only those see who may load models. */
  async findUnloaded() {
    try {
      this.never = (await api.index()).filter((entry) => !entry.version).map((entry) => entry.name);
    } catch {
      this.never = [];
    }
  }

  #unloaded(models) {
    const known = new Set(models.map((model) => model.name));
    return this.never
      .filter((name) => !known.has(name))
      .map((name) => ({
        name,
        versions: [],
        labels: {},
        weights: {},
        shadow: null,
        may_infer: false,
        may_control: true,
      }));
  }

  #place(models, server) {
    const present = new Set(models.map((model) => model.name));
    for (const [name, card] of this.cards) {
      if (!present.has(name)) {
        card.node.remove();
        this.cards.delete(name);
      }
    }
    for (const model of models) {
      const card = this.cards.get(model.name) ?? new Card(model.name, this.refresh);
      this.cards.set(model.name, card);
      card.update(model, server);
    }
    this.parent.replaceChildren(
      ...(models.length ? [this.head, ...models.map((model) => this.cards.get(model.name).node)] : [this.none]),
    );
    byId("filter-label").hidden = models.length < MANY;
    this.#filter();
  }

  #filter() {
    const wanted = byId("filter").value.trim().toLowerCase();
    for (const [name, card] of this.cards) card.node.hidden = !name.toLowerCase().includes(wanted);
  }
}

class Card {
  constructor(name, refresh) {
    this.name = name;
    this.refresh = refresh;
    this.state = element("span", { class: "states" });
    this.verdict = element("span", { class: "verdict" });
    this.figures = FIGURES.map(([title]) => [element("b"), title]);
    this.body = element("div", { class: "body" });
    this.form = new TryForm(name);
    this.about = element("div", { class: "about" });
    this.chooser = element("select", { change: () => this.#choose(this.chooser.value) });
    this.choice = element("label", {}, "Version ", this.chooser);
    this.body.append(this.about, this.form.form);
    this.node = element(
      "details",
      { class: "model", toggle: () => this.#opened() },
      element(
        "summary",
        {},
        element("h3", { class: "name" }, name),
        this.state,
        this.verdict,
        ...this.figures.map(([value, title]) =>
          element("span", { class: "figure" }, value, element("small", {}, ` ${title}`)),
        ),
      ),
      this.body,
    );
  }

  update(model, server) {
    this.#announceChanges(model);
    const was = this.#key(this.model, this.server);
    this.model = model;
    this.server = server;
    this.form.form.hidden = !model.may_infer || !model.versions.length;
    if (was === this.#key(model, server)) return;
    const states = model.versions.map((each) => pill(KINDS[each.state] ?? "", `v${each.version} ${words(each.state)}`));
    this.state.replaceChildren(...(states.length ? states : [pill("", "not loaded")]));
    const chosen =
      model.versions.find((each) => each.version === this.chosen) ??
      model.versions.find((each) => each.is_ready) ??
      model.versions[0];
    this.chosen = chosen?.version;
    setText(this.verdict, chosen?.verdict ? `batching ${PROOFS[chosen.verdict] ?? chosen.verdict}` : "");
    this.#show();
  }

  setNow(now) {
    FIGURES.forEach(([, read], index) => setText(this.figures[index][0], read(now, this.model)));
  }

  #key(model, server) {
    return JSON.stringify([model, server?.control]);
  }

  #announceChanges(model) {
    if (!this.model) return;
    const before = new Map(this.model.versions.map((each) => [each.version, each.state]));
    for (const each of model.versions) {
      if (before.get(each.version) !== each.state)
        announce(`${model.name} version ${each.version} is ${words(each.state)}.`);
    }
  }

  #opened() {
    if (this.node.open) this.#show();
  }

  #choose(version) {
    this.chosen = version;
    this.#show();
  }

  /** Builds what is inside, if it is seen. */
  #show() {
    if (!this.node.open) return;
    const { versions } = this.model;
    const version = versions.find((each) => each.version === this.chosen);
    const options = versions.map((each) =>
      element("option", { value: each.version }, `${each.version} (${words(each.state)})`),
    );
    this.chooser.replaceChildren(...options);
    this.chooser.value = this.chosen ?? "";
    this.choice.hidden = versions.length < 2;
    this.about.replaceChildren(
      ...[
        this.choice,
        version ? this.#facts(version) : element("p", { class: "soft" }, "It is in a repository and was never loaded."),
        version ? this.#labels(version) : null,
        version ? this.#tensors(version) : null,
        this.#control(),
      ].filter(Boolean),
    );
    if (version && this.model.may_infer) this.form.use(version);
  }

  #facts(version) {
    const memory = [bytes(version.memory_bytes)];
    if (version.device_memory_bytes) memory.push(`${bytes(version.device_memory_bytes)} on devices`);
    if (version.generation) memory.push("with a full cache");
    const weight = this.model.weights[version.version];
    const facts = [
      ["State", `${words(version.state)}${version.on_demand ? ", loaded on demand" : ""}`],
      version.reason ? ["Reason", version.reason] : null,
      version.verdict ? ["Batching", batching(version)] : null,
      ...generation(version),
      version.memory_bytes ? ["Memory", memory.join(", ")] : null,
      version.load_s ? ["Loaded in", milliseconds(1000 * version.load_s)] : null,
      version.providers.length
        ? ["Runs on", version.providers.map((name) => name.replace("ExecutionProvider", "")).join(", ")]
        : null,
      weight === undefined ? null : ["Weight", number(weight)],
      this.model.shadow === version.version ? ["Shadow", "gets copies of requests"] : null,
    ];
    return element(
      "dl",
      { class: "facts" },
      ...facts.filter(Boolean).flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]),
    );
  }

  #tensors({ inputs, outputs }) {
    if (!inputs.length) return null;
    const row = (kind) => (spec) => [
      kind,
      element("span", { class: "name" }, spec.name),
      spec.datatype,
      shape(spec.shape, spec.batch_axis) + (spec.optional ? " optional" : ""),
    ];
    const rows = [...inputs.map(row("in")), ...outputs.map(row("out"))];
    return element(
      "div",
      { class: "scroll", tabindex: 0, role: "region", "aria-label": `Inputs and outputs of ${this.name}` },
      table(["", "name", "type", "shape"], rows, "Inputs and outputs"),
    );
  }

  #labels(version) {
    const labels = Object.keys(this.model.labels).filter((label) => this.model.labels[label] === version.version);
    if (!this.model.may_control) return labels.length ? element("p", {}, "Labels: ", labels.join(", ")) : null;
    const remove = (label) =>
      element(
        "button",
        {
          type: "button",
          "aria-label": `Remove label ${label}`,
          click: () => this.#do(`Label ${label} removed.`, () => api.label(this.name, label, null)),
        },
        "×",
      );
    const input = element("input", {
      "aria-label": `New label of version ${version.version}`,
      placeholder: "stable",
      required: true,
      maxlength: 128,
      spellcheck: "false",
    });
    const submit = (event) => {
      event.preventDefault();
      const label = input.value.trim();
      this.#do(`Label ${label} is at version ${version.version}.`, () => api.label(this.name, label, version.version));
    };
    return element(
      "form",
      { class: "row labels", submit },
      element("span", { class: "soft" }, "Labels"),
      ...labels.map((label) => element("span", { class: "chip" }, label, remove(label))),
      input,
      element("button", { type: "submit", disabled: version.is_ready ? null : true }, "Add label"),
    );
  }

  #control() {
    this.problem = element("p", { class: "problem", role: "alert", hidden: true });
    const explicit = this.server.control === "explicit";
    const onDemand = this.model.versions.some((each) => each.on_demand);
    if (!this.model.may_control || !(explicit || onDemand)) return this.problem;
    const isLoaded = this.model.versions.some((each) => each.is_ready);
    const load = element(
      "button",
      { type: "button", click: () => this.#do(`${this.name} is loaded.`, () => api.load(this.name)) },
      isLoaded ? "Load again" : "Load",
    );
    const unload = element("button", { type: "button", click: () => this.#unload() }, "Unload");
    return element(
      "div",
      {},
      element("div", { class: "row" }, load, explicit && isLoaded ? unload : null),
      this.problem,
    );
  }

  async #unload() {
    if (await confirmed(`Unload ${this.name}? Requests for it fail until it is loaded again.`, "Unload")) {
      await this.#do(`${this.name} is unloaded.`, () => api.unload(this.name));
    }
  }

  /** Does what a button is for, and says how it ended. */
  async #do(success, action) {
    const problem = this.problem;
    problem.hidden = true;
    try {
      await action();
      announce(success);
      await this.refresh();
    } catch (error) {
      setText(problem, error.message);
      problem.hidden = false;
    }
  }
}

/** What a language model takes, and the memory for its sequences. */
function generation({ generation: found }) {
  if (!found) return [];
  const forms = [found.has_tokenizer && "text", found.has_chat_template && "chats", "token ids"].filter(Boolean);
  return [
    ["Takes", `${forms.join(", ")}; up to ${plural(found.context_length, "token")}, with the answer`],
    ["Generates", `text, with a cache of ${bytes(found.cache_bytes)}`],
  ];
}

/** Says what was proven about batching, and what is made of it. */
function batching({ verdict, verdict_reason: reason, max_batch_size: rows, generation }) {
  const says = PROOFS[verdict] ?? verdict;
  const use = rows > 1 ? `up to ${plural(rows, generation ? "sequence" : "row")} run together` : "requests run alone";
  return `${says}: ${use}${reason ? ` (${reason})` : ""}`;
}
