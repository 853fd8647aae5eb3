// SPDX-License-Identifier: GPL-2.0-or-later
// One VM: its status line with the controls, and a tab each for consoles, status and device tree.

import { openSocket, post, vmPath } from "./api.js";
import { ConsoleView } from "./console.js";
import { element, setText } from "./dom.js";
import { StatusView } from "./status.js";
import { TreeView } from "./tree.js";

const AGAIN_MS = 2000;

/** What an operator can do, and in which states it makes sense. */
const CONTROLS = [
  { name: "pause", label: "Pause", states: ["running"] },
  { name: "resume", label: "Resume", states: ["paused"] },
  { name: "reset", label: "Reset", states: ["running", "paused"], ask: "Reset this VM? Its guest gets no chance to save anything." },
  { name: "stop", label: "Stop", states: ["running", "paused"], ask: "Stop this VM? Its guest gets no chance to save anything." },
];

const TABS = [
  { name: "console", label: "Consoles", needs: "read_console", View: ConsoleView },
  { name: "status", label: "Status and traps", needs: "see_status", View: StatusView },
  { name: "tree", label: "Device tree", needs: "read_tree", View: TreeView },
];

export class VmView {
  constructor(vm, may) {
    this.vm = vm;
    this.state = element("span", { class: "state" });
    this.message = element("span", { role: "status", class: "quiet" });
    this.controls = may.has("control") ? CONTROLS.map((control) => this.#control(control)) : [];
    this.tabs = TABS.filter((tab) => may.has(tab.needs)).map((tab) => this.#tab(tab, may));
    this.panel = element("div", { role: "tabpanel", id: "panel" });
    this.tablist = element("div", { role: "tablist", "aria-label": `Views of ${vm}` }, ...this.tabs.map(({ button }) => button));
    this.elements = [
      element(
        "div", { class: "bar" }, element("h2", {}, vm), this.state, this.message,
        element("span", { class: "push" }), ...this.controls.map(({ button }) => button),
      ),
      this.tablist,
      this.panel,
    ];
    this.current = null;
    this.closed = false;
    this.#connect();
  }

  #control(control) {
    const button = element("button", { type: "button", class: control.ask ? "danger" : undefined, disabled: true }, control.label);
    button.addEventListener("click", async () => {
      if (control.ask && !window.confirm(control.ask)) return;
      button.disabled = true;
      try {
        await post(vmPath(this.vm, control.name));
        setText(this.message, "");
      } catch (error) {
        setText(this.message, `${control.label}: ${error.message}`);
      }
    });
    return { ...control, button };
  }

  #tab({ name, label, View }, may) {
    const button = element("button", { type: "button", role: "tab", id: `tab-${name}`, "aria-controls": "panel", tabindex: "-1" }, label);
    button.addEventListener("click", () => window.location.assign(`#${encodeURIComponent(this.vm)}/${name}`));
    button.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      const next = this.tabs.at((this.tabs.findIndex((tab) => tab.button === button) + step) % this.tabs.length);
      next.button.focus();
      next.button.click();
    });
    return { name, button, view: new View(this.vm, may) };
  }

  /** Show a tab by its name. */
  show(name) {
    const chosen = this.tabs.find((tab) => tab.name === name) ?? this.tabs[0];
    if (chosen === this.current) return;
    this.current?.view.hide();
    for (const tab of this.tabs) {
      tab.button.setAttribute("aria-selected", String(tab === chosen));
      tab.button.tabIndex = tab === chosen ? 0 : -1;
    }
    this.current = chosen;
    this.panel.setAttribute("aria-labelledby", chosen.button.id);
    this.panel.replaceChildren(...chosen.view.elements);
    chosen.view.show();
  }

  #connect() {
    if (this.closed) return;
    this.socket = openSocket(this.vm, "status");
    this.socket.addEventListener("message", (event) => {
      const message = JSON.parse(event.data);
      if (message.type === "status") this.#status(message);
      else this.#gone(message.text);
    });
    this.socket.addEventListener("close", () => window.setTimeout(() => this.#connect(), AGAIN_MS));
  }

  #gone(text) {
    this.lost = true;
    setText(this.message, text);
  }

  #status(status) {
    if (this.lost) setText(this.message, "");
    this.lost = false;
    this.state.hidden = !status.state;
    this.state.className = `state ${status.state}`;
    setText(this.state, status.state ?? "");
    for (const { states, button } of this.controls) button.disabled = !states.includes(status.state);
    for (const { view } of this.tabs) view.status(status);
  }

  /** Let go of everything. */
  close() {
    this.closed = true;
    this.socket.close();
    for (const { view } of this.tabs) view.close();
  }
}
