// SPDX-License-Identifier: GPL-2.0-or-later
// What the VM does: state, back ends, and every call with its rate, from two statuses in a row.

import { element, setText } from "./dom.js";
import { count, duration, latency, rate, seconds } from "./format.js";

const HISTORY = 60;

/** Rows of a table by key, each made once: a table that is made anew each second cannot be read or selected. */
class Rows {
  constructor(body, columns) {
    this.body = body;
    this.columns = columns;
    this.rows = new Map();
  }

  show(entries) {
    const rows = entries.map(({ key, cells }) => {
      let row = this.rows.get(key);
      if (!row) {
        row = element("tr", {}, ...this.columns.map((column) => element("td", { class: column })));
        this.rows.set(key, row);
      }
      cells.forEach((cell, index) => setText(row.children[index], cell));
      return row;
    });
    if (rows.length !== this.body.children.length || rows.some((row, index) => row !== this.body.children[index])) {
      this.body.replaceChildren(...rows);
    }
  }
}

function table(caption, headings, columns) {
  const body = element("tbody");
  const head = headings.map((heading, index) => element("th", { scope: "col", class: columns[index] === "number" ? "number" : "" }, heading));
  return { made: element("table", { "aria-label": caption }, element("thead", {}, element("tr", {}, ...head)), body), rows: new Rows(body, columns) };
}

/** Return calls with what happened to each between two statuses; nothing that ran backwards, as after a reset. */
export function deltas(before, after) {
  const span = before ? after.time - before.time : 0;
  const old = new Map((before?.calls ?? []).map((call) => [`${call.owner} ${call.name}`, call]));
  return after.calls.map((call) => {
    const last = old.get(`${call.owner} ${call.name}`) ?? { count: 0, seconds: 0 };
    const usable = span > 0 && call.count >= last.count && call.seconds >= last.seconds;
    const calls = usable ? call.count - last.count : 0;
    return { ...call, rate: usable ? calls / span : 0, mean: calls ? (call.seconds - last.seconds) / calls : 0 };
  });
}

export class StatusView {
  constructor() {
    this.facts = element("dl", { class: "facts" });
    this.factTexts = new Map();
    this.chart = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    this.chart.setAttribute("class", "chart");
    this.chart.setAttribute("viewBox", `0 0 ${HISTORY - 1} 100`);
    this.chart.setAttribute("preserveAspectRatio", "none");
    this.chart.setAttribute("aria-hidden", "true");
    this.line = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
    this.chart.append(this.line);
    this.total = element("span", { class: "push mono", id: "total-rate" });
    const backends = table("Back ends", ["Back end", "Stream", "Reconnects", "Guest RAM", "Address"], ["", "", "number", "", "mono"]);
    const calls = table("Calls", ["Call", "Owner", "Count", "per s", "mean now", "in all"], ["mono", "", "number", "number", "number", "number"]);
    this.backends = backends.rows;
    this.calls = calls.rows;
    this.filter = element("input", { type: "search", placeholder: "Filter calls", "aria-label": "Filter calls", oninput: () => this.#showCalls() });
    this.elements = [
      element(
        "div", { class: "scroll" },
        element(
          "div", { class: "cards" },
          element("section", { class: "card" }, element("h3", {}, "Machine"), this.facts),
          element("section", { class: "card" }, element("h3", {}, "Back ends"), backends.made),
        ),
        element(
          "section", { class: "card" },
          element("div", { class: "bar" }, element("h3", {}, "Traps"), this.filter, this.total), this.chart, calls.made,
        ),
      ),
    ];
    this.history = [];
    this.last = null;
    this.found = [];
  }

  show() {}

  hide() {}

  close() {}

  /** Take a new status. */
  status(status) {
    this.found = deltas(this.last, status);
    if (this.last) {
      this.history.push(this.found.reduce((sum, call) => sum + call.rate, 0));
      this.history.splice(0, this.history.length - HISTORY);
    }
    this.last = status;
    this.#fact("State", status.state);
    this.#fact("Detail", status.detail || "none");
    this.#fact("Uptime", duration(status.uptime_seconds));
    this.#fact("Starts and resets", count(status.resets));
    this.#fact("Waited for back ends", seconds(status.waiting_seconds));
    this.backends.show(
      status.backends.map((each) => ({
        key: each.name,
        cells: [each.name, each.attached ? "attached" : "away", count(each.reconnects), each.ram_mapped ? "mapped" : "through the stream", each.address],
      })),
    );
    this.#showCalls();
  }

  #fact(name, text) {
    let value = this.factTexts.get(name);
    if (!value) {
      value = element("dd");
      this.factTexts.set(name, value);
      this.facts.append(element("dt", {}, name), value);
    }
    setText(value, text);
  }

  #showCalls() {
    const wanted = this.filter.value.trim().toLowerCase();
    const shown = this.found.filter((call) => `${call.name} ${call.owner}`.toLowerCase().includes(wanted));
    this.calls.show(
      shown.map((call) => ({
        key: `${call.owner} ${call.name}`,
        cells: [call.name, call.owner, count(call.count), rate(call.rate), call.mean ? latency(call.mean) : "", call.seconds ? seconds(call.seconds) : ""],
      })),
    );
    const top = Math.max(1, ...this.history);
    setText(this.total, this.history.length ? `${rate(this.history.at(-1))} traps/s` : "");
    const from = HISTORY - this.history.length;
    this.line.setAttribute("points", this.history.map((value, index) => `${from + index},${98 - (96 * value) / top}`).join(" "));
  }
}
