// SPDX-License-Identifier: GPL-2.0-or-later
// The consoles of a VM: one terminal, and who types on it.

import { Attachment } from "./attachment.js";
import { element, setText } from "./dom.js";
import { unit } from "./format.js";
import { FitAddon } from "./vendor/addon-fit.mjs";
import { Terminal } from "./vendor/xterm.mjs";

const SCROLLBACK_LINES = 5000;
const encoder = new TextEncoder();

export class ConsoleView {
  constructor(vm, may) {
    this.vm = vm;
    this.may = may.has("write_console");
    this.units = element("select", { id: "unit", onchange: () => this.#attach() });
    this.badge = element("span", { class: "badge read", id: "console-mode" }, "connecting");
    this.holder = element("span", { role: "status", class: "quiet", id: "console-holder" });
    this.take = element("button", { type: "button", id: "console-take", hidden: true, onclick: () => this.#take() });
    this.leave = element("button", { type: "button", id: "console-leave", hidden: true, onclick: () => this.attachment.attach("read") }, "Stop typing");
    this.drop = element(
      "button", { type: "button", id: "console-drop", hidden: true, title: "What was typed and the guest has not read", onclick: () => this.#drop() },
      "Drop unread input",
    );
    this.place = element("div", { class: "console", role: "group", "aria-label": `Console of ${vm}` });
    this.elements = [
      element(
        "div", { class: "bar" }, element("label", { for: "unit" }, "Console"), this.units, this.badge, this.holder, this.take, this.leave, this.drop,
        element("span", { class: "push quiet" }, "Shift+F6 leaves the terminal"),
      ),
      this.place,
    ];
    this.terminal = null;
    this.attachment = null;
    this.chosen = null;
    this.observer = new ResizeObserver(() => this.#fit());
  }

  /** Take a new status: which consoles there are, and who types. */
  status({ consoles }) {
    const listed = consoles.map((console) => String(console.unit));
    if (listed.join() !== [...this.units.options].map((option) => option.value).join()) {
      const chosen = this.units.value;
      this.units.replaceChildren(...listed.map((value, index) => element("option", { value }, `hvc${index} at ${unit(Number(value))}`)));
      if (listed.includes(chosen)) this.units.value = chosen;
    }
    this.writers = new Map(consoles.map((console) => [console.unit, console.writer]));
    if (this.visible && !this.attachment && listed.length) this.#attach();
    this.#showWriter();
  }

  show() {
    this.visible = true;
    this.observer.observe(this.place);
    if (this.terminal) this.#fit();
    else if (this.units.options.length) this.#attach();
    this.terminal?.focus();
  }

  hide() {
    this.visible = false;
    this.observer.disconnect();
  }

  close() {
    this.hide();
    this.attachment?.close();
    this.terminal?.dispose();
  }

  #attach() {
    this.attachment?.close();
    this.terminal?.dispose();
    this.terminal = new Terminal({
      scrollback: SCROLLBACK_LINES,
      cursorBlink: true,
      fontFamily: 'ui-monospace, "DejaVu Sans Mono", "Liberation Mono", monospace',
      fontSize: 13,
      theme: { background: "#101418", foreground: "#dde3ea" },
      // What a guest prints is no reason to go anywhere.
      linkHandler: { activate() {} },
    });
    this.fitting = new FitAddon();
    this.terminal.loadAddon(this.fitting);
    this.terminal.open(this.place);
    this.terminal.attachCustomKeyEventHandler((event) => this.#key(event));
    this.terminal.onData((text) => this.#type(encoder.encode(text)));
    this.terminal.onBinary((text) => this.#type(Uint8Array.from(text, (letter) => letter.charCodeAt(0))));
    this.live = null;
    this.opened = null;
    this.attachment = new Attachment(this.vm, this.units.value, this.may ? "write" : "read", {
      onopened: (message) => this.#opened(message),
      onoutput: (bytes, done) => this.#output(bytes, done),
      // CAN: of a sequence of more than 4 KiB only a part may have come.
      onnotice: (text) => this.terminal.write(`\x18\r\n\x1b[0;2m[${printable(text)}]\x1b[0m\r\n`),
      onstate: (text) => this.#showState(text),
    });
    this.terminal.onResize(({ rows, cols }) => this.attachment.resize(rows, cols));
    this.attachment.resize(this.terminal.rows, this.terminal.cols);
    this.#fit();
    this.terminal.focus();
  }

  #take() {
    this.attachment.attach("take");
    this.terminal.focus();
  }

  #drop() {
    this.attachment.discard();
    this.terminal.focus();
  }

  #fit() {
    if (this.visible && this.terminal) this.fitting.fit();
  }

  #key(event) {
    if (event.type !== "keydown" || event.key !== "F6" || !event.shiftKey) return true;
    event.preventDefault();
    this.units.focus();
    return false;
  }

  #type(bytes) {
    // A terminal answers questions that the guest asked long before it was there: those answers are nobody's.
    if (this.opened?.writer && this.live === null) this.attachment.type(bytes);
  }

  #opened(message) {
    this.opened = message;
    this.live = message.position < message.live ? message.live : null;
    this.#showWriter();
  }

  #output(bytes, done) {
    const end = this.attachment.position;
    this.terminal.write(bytes, () => {
      if (this.live !== null && end >= this.live) this.live = null;
      done();
    });
  }

  #showState(text) {
    this.opened = null;
    this.badge.className = "badge read";
    setText(this.badge, "not connected");
    setText(this.holder, text);
    this.take.hidden = true;
    this.leave.hidden = true;
    this.drop.hidden = true;
  }

  #showWriter() {
    if (!this.opened) return;
    const { writer, refusal } = this.opened;
    this.badge.className = `badge ${writer ? "write" : "read"}`;
    setText(this.badge, writer ? "you type" : "read only");
    const holder = this.writers?.get(this.opened.unit);
    setText(this.holder, writer ? "" : holder ? `someone else writes: ${holder}` : this.may ? "" : refusal);
    this.take.hidden = writer || !this.may;
    setText(this.take, holder ? "Take over" : "Type here");
    this.leave.hidden = !writer;
    this.drop.hidden = !writer;
  }
}

/** Without control characters: names of others come from elsewhere, and a terminal obeys. */
function printable(text) {
  return text.replace(/[^\x20-\x7e\xa0-\uffff]/g, "?");
}
