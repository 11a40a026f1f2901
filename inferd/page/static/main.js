// Asks the server for its state every few seconds, and shows it.

import * as api from "./api.js";
import { Charts } from "./charts.js";
import { byId, element, setText, table } from "./dom.js";
import { bytes, milliseconds, NONE, number, plural } from "./format.js";
import * as login from "./login.js";
import { Models } from "./models.js";
import { Series } from "./series.js";

/** While the page is not seen, or the server does not answer. */
const SLOW_S = 10;

const TABLE_STEP_S = 10;

const TILES = [
  ["requests/s", ({ traffic: t }) => number(t.latest("answered") + t.latest("rejected") + t.latest("failed"))],
  ["p99 latency", ({ traffic: t }) => milliseconds(t.latest("p99_ms"))],
  ["rows waiting", ({ traffic: t }) => number(t.latest("waiting_rows"))],
  ["rejected/s", ({ traffic: t }) => number(t.latest("rejected"))],
  ["open calls", ({ server: s }) => number(s.latest("open_calls"))],
  ["memory", ({ server: s }) => bytes(s.latest("resident_bytes"))],
];

class Page {
  constructor() {
    this.digest = "";
    this.server = new Series();
    this.traffic = this.server;
    this.charted = "";
    this.models = new Models(byId("models"), () => this.refresh(true));
    this.tiles = TILES.map(([name]) => {
      const value = element("dd");
      byId("tiles").append(element("div", {}, element("dt", {}, name), value));
      return value;
    });
    login.listen(() => this.#restart());
    byId("charted").addEventListener("change", () => this.#chart(byId("charted").value));
    byId("numbers").addEventListener("toggle", () => this.#table());
    document.addEventListener("visibilitychange", () => document.hidden || this.#poll());
    this.#poll();
  }

  /** Asks now; with `repositories` also for models that were never loaded. */
  async refresh(repositories = false) {
    if (repositories) await this.#findUnloaded();
    await this.#update();
  }

  async #poll() {
    clearTimeout(this.timer);
    let waitS = SLOW_S;
    try {
      await this.#update();
      if (!document.hidden) waitS = this.status.server.interval_s;
    } catch (error) {
      this.#failed(error);
      // Nothing changes until there is another token.
      if (error.status === 401 || error.status === 403) return;
    }
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.#poll(), 1000 * waitS);
  }

  async #update() {
    const status = await api.status(this.server.last, this.digest);
    const { server, models, digest, recent, history } = status;
    this.status = status;
    this.server.add(history, server.kept_s);
    if (this.charted) await this.#updateModel(server.kept_s);
    login.show(null);
    byId("trouble").hidden = true;
    byId("dashboard").hidden = false;
    this.charts ??= new Charts(byId("charts"), server.kept_s);
    if (!this.digest) await this.#findUnloaded();
    this.digest = digest;
    this.#show(server);
    if (models) this.#chartable(models);
    this.models.update(models, recent, server);
  }

  async #findUnloaded() {
    const { control, may_control: mayControl } = this.status.server;
    if (control !== "explicit" || !mayControl) return;
    await this.models.findUnloaded();
    // The server is asked for all models again, among which they belong.
    this.digest = "";
  }

  async #updateModel(keptS) {
    try {
      this.traffic.add(await api.history(this.charted, this.traffic.last), keptS);
    } catch (error) {
      if (error.status !== 404) throw error;
      this.#chart("");
    }
  }

  #show(server) {
    const facts = [location.host, `version ${server.version}`, server.ready ? "ready" : "not ready"];
    if (server.principal) facts.push(server.principal);
    setText(byId("subtitle"), facts.join(" · "));
    document.title = `inferd on ${location.host}`;
    const series = { traffic: this.traffic, server: this.server };
    TILES.forEach(([, read], index) => setText(this.tiles[index], this.server.length ? read(series) : NONE));
    this.charts.show(this.traffic, this.server);
    this.#table();
  }

  #chartable(models) {
    const chooser = byId("charted");
    const names = [["", "all models"], ...models.map(({ name }) => [name, name])];
    chooser.replaceChildren(...names.map(([value, text]) => element("option", { value }, text)));
    chooser.value = this.charted;
    chooser.parentElement.hidden = models.length < 2;
  }

  async #chart(model) {
    this.charted = model;
    this.traffic = model ? new Series() : this.server;
    byId("charted").value = model;
    await this.#poll();
  }

  #table() {
    const details = byId("numbers");
    if (!details.open || !this.charts) return;
    const { columns, rows } = this.charts.rows(TABLE_STEP_S);
    if (rows[0]?.[0] === this.tabled) return;
    this.tabled = rows[0]?.[0];
    details.querySelector(".scroll").replaceChildren(table(columns, rows, "Numbers of the last 5 minutes"));
  }

  #failed(error) {
    if (error.status === 401 || error.status === 403) {
      byId("dashboard").hidden = true;
      byId("trouble").hidden = true;
      setText(byId("subtitle"), location.host);
      login.show(error);
      return;
    }
    setText(byId("trouble"), `${error.message} Trying again every ${plural(SLOW_S, "second")}.`);
    byId("trouble").hidden = false;
  }

  /** Forgets everything: another token may see other models. */
  #restart() {
    this.digest = "";
    this.server.clear();
    this.models.update([], {}, { control: "" });
    this.#chart("");
  }
}

new Page();
