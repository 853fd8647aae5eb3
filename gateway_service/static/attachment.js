// SPDX-License-Identifier: GPL-2.0-or-later
// A console's WebSocket over all its connections: docs/web.md has the messages. Knows nothing of terminals.

import { get, openSocket } from "./api.js";

const MESSAGE_BYTES = 8 << 10;
const INPUT_BYTES = 1 << 20;
const ACK_BYTES = 32 << 10;
const AGAIN_MS = [200, 500, 1000, 2000, 3000];
const QUIET_MS = 3000;
const PASTE_MS = 300;

/** Name of this page among those of the same user; a reload is the same one, so it gets its own console back. */
function pageName() {
  let name = window.sessionStorage.getItem("page");
  if (!name) {
    name = Array.from(window.crypto.getRandomValues(new Uint8Array(4)), (byte) => byte.toString(16).padStart(2, "0")).join("");
    window.sessionStorage.setItem("page", name);
  }
  return name;
}

/**
 * Keeps a console attached, and calls what it was given:
 *   onopened(message)      connected; message as docs/web.md has "opened"
 *   onoutput(bytes, done)  output; done is to be called once it is shown
 *   onnotice(text)         something people should know, in one line
 *   onstate(text)          what it is doing
 */
export class Attachment {
  constructor(vm, unit, mode, handlers) {
    this.vm = vm;
    this.unit = unit;
    this.mode = mode;
    this.handlers = handlers;
    this.instance = "0";
    this.position = 0;
    this.input = new Uint8Array();
    this.sent = 0;
    this.received = 0;
    this.window = 0;
    this.failures = 0;
    this.taken = 0;
    this.dropped = 0;
    // How much of the input is to be dropped once the console has done so with what it has; null: nothing.
    this.discarding = null;
    this.closed = false;
    this.#connect();
  }

  /** Attach anew: "read", "write", or "take" from whoever types. */
  attach(mode) {
    this.mode = mode;
    this.#connect();
  }

  /** Send what was typed, once there is room. Of a paste that does not fit in the queue, a part is taken and the rest counted. */
  type(bytes) {
    let taken = Math.max(0, Math.min(bytes.length, INPUT_BYTES - this.input.length));
    // A character is taken as a whole.
    while (taken > 0 && taken < bytes.length && (bytes[taken] & 0xc0) === 0x80) taken -= 1;
    const joined = new Uint8Array(this.input.length + taken);
    joined.set(this.input);
    joined.set(bytes.subarray(0, taken), this.input.length);
    this.input = joined;
    this.#send();
    if (taken < bytes.length) this.#countDropped(taken, bytes.length - taken);
  }

  /** Drop what was typed and the guest has not read. */
  discard() {
    if (this.discarding !== null || this.mode === "read") return;
    this.discarding = this.input.length;
    this.#connect();
  }

  #countDropped(taken, dropped) {
    this.taken += taken;
    this.dropped += dropped;
    window.clearTimeout(this.dropTimer);
    this.dropTimer = window.setTimeout(() => {
      const wait = `${this.input.length} wait`;
      this.handlers.onnotice(`the guest does not read, and the input queue is full: ${this.taken} bytes taken, ${this.dropped} not; ${wait}`);
      this.taken = this.dropped = 0;
    }, PASTE_MS);
  }

  /** The console has dropped what it had; what came before discard() and is still here goes, too. */
  #discarded(atConsole) {
    const here = Math.min(this.discarding, this.input.length);
    this.input = this.input.slice(here);
    this.discarding = null;
    this.handlers.onnotice(`${here + atConsole} bytes of input dropped`);
  }

  /** Tell the terminal's size. */
  resize(rows, columns) {
    this.size = { type: "size", rows, columns };
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(this.size));
  }

  close() {
    this.closed = true;
    window.clearTimeout(this.timer);
    window.clearTimeout(this.dropTimer);
    this.socket.close();
  }

  #connect() {
    window.clearTimeout(this.timer);
    this.window = 0;
    const query = new URLSearchParams({
      unit: this.unit, mode: this.mode, client: pageName(), instance: this.instance, position: this.position,
      discard: this.discarding === null ? 0 : 1,
    });
    const old = this.socket;
    const socket = openSocket(this.vm, `console?${query}`);
    this.socket = socket;
    old?.close();
    // What an older socket still has to say is none of the new one's business.
    const current = (handler) => (event) => {
      if (socket === this.socket && !this.closed) handler(event);
    };
    this.acknowledged = 0;
    this.shown = 0;
    this.ended = null;
    socket.addEventListener("message", current((event) => this.#message(event.data)));
    socket.addEventListener("close", current(() => this.#gone()));
  }

  #message(data) {
    if (data instanceof ArrayBuffer) {
      const socket = this.socket;
      this.position += data.byteLength;
      this.handlers.onoutput(new Uint8Array(data), () => socket === this.socket && this.#shown(data.byteLength));
      return;
    }
    const message = JSON.parse(data);
    if (message.type === "opened") this.#opened(message);
    else if (message.type === "accepted") this.#accepted(message.bytes);
    else if (message.type === "skipped") this.#skipped(message.bytes);
    else if (message.type === "ended") this.ended = message;
  }

  #opened(message) {
    if (this.instance !== "0" && !message.same) this.handlers.onnotice("the console was made anew; output may be missing");
    else if (this.failures) this.handlers.onnotice("connected again");
    if (message.skipped) this.handlers.onnotice(`${message.skipped} bytes of output skipped`);
    if (message.same && message.writer) this.#forget(message.input_received - this.received);
    if (this.discarding !== null) this.#discarded(message.discarded);
    this.failures = 0;
    this.instance = message.instance;
    this.position = message.position;
    this.received = message.input_received;
    this.sent = 0;
    this.window = message.input_window;
    // Typing goes on after a lost connection, but never takes a console back that somebody else has taken.
    this.mode = message.writer ? "write" : "read";
    if (!message.writer) this.input = new Uint8Array();
    this.handlers.onopened(message);
    if (this.size) this.resize(this.size.rows, this.size.columns);
    this.#send();
  }

  #skipped(bytes) {
    this.position += bytes;
    this.handlers.onnotice(`${bytes} bytes of output skipped`);
  }

  #accepted(bytes) {
    this.#forget(bytes);
    this.received += bytes;
    this.#send();
  }

  #forget(bytes) {
    const known = Math.max(0, Math.min(bytes, this.input.length));
    if (this.discarding !== null) this.discarding = Math.max(0, this.discarding - known);
    this.input = this.input.slice(known);
    this.sent = Math.max(0, this.sent - known);
  }

  #send() {
    while (this.socket.readyState === WebSocket.OPEN) {
      const end = Math.min(this.input.length, this.window, this.sent + MESSAGE_BYTES);
      if (end <= this.sent) return;
      this.socket.send(this.input.slice(this.sent, end));
      this.sent = end;
    }
  }

  #shown(bytes) {
    this.shown += bytes;
    if (this.shown - this.acknowledged >= ACK_BYTES && this.socket.readyState === WebSocket.OPEN) {
      this.acknowledged = this.shown;
      this.socket.send(JSON.stringify({ type: "ack", bytes: this.shown }));
    }
  }

  async #gone() {
    this.window = 0;
    const { reason, text } = this.ended ?? { reason: "lost", text: "" };
    if (reason === "taken-over") {
      this.handlers.onnotice(text);
      this.attach("read");
      return;
    }
    if (reason === "vm-ended" || reason === "not-found") {
      this.handlers.onstate(text);
      if (reason !== this.lastReason) this.handlers.onnotice(text);
      this.timer = window.setTimeout(() => this.#connect(), QUIET_MS);
    } else {
      if (!this.failures) this.handlers.onnotice("connection lost, connecting again");
      this.handlers.onstate(`connecting again${text ? `: ${text}` : ""}`);
      this.timer = window.setTimeout(() => this.#connect(), AGAIN_MS[Math.min(this.failures, AGAIN_MS.length - 1)]);
      this.failures += 1;
      // A WebSocket does not tell that nobody is signed in any more; a request does, and leads to the sign-in page.
      if (!this.ended) await get("/api/vms").catch(() => {});
    }
    this.lastReason = reason;
  }
}
