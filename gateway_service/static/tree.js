// SPDX-License-Identifier: GPL-2.0-or-later
// The device tree: revisions, one of them as a tree that folds, and what two of them differ in.

import { get, vmPath } from "./api.js";
import { element, setText } from "./dom.js";

const REVISIONS_MS = 3000;
const UNFOLD_NODES = 3000;

function property([name, value]) {
  const text = value === null ? [";"] : [" = ", element("span", { class: "value" }, value), ";"];
  return element("div", { class: "property mono" }, name, ...text);
}

/** A tree as WAI-ARIA has it: one element in the tab order, arrows go between nodes and fold. Children are made when they are seen. */
class FoldingTree {
  constructor(root) {
    this.made = 0;
    const top = this.#item(root, "");
    this.element = element("ul", { role: "tree", "aria-label": "Device tree", onkeydown: (event) => this.#key(event) }, top);
    top.tabIndex = 0;
    this.fold(top, false);
  }

  #item(node, parent) {
    const path = node.name === "/" ? "/" : `${parent}/${node.name}`;
    const label = element("span", { class: "label mono" }, node.name);
    const item = element("li", { role: "treeitem", "aria-expanded": "false", tabindex: "-1", "data-path": path }, label);
    item.unfold = () => {
      const group = element("ul", { role: "group" });
      group.append(
        ...(node.properties.length ? [element("li", { role: "none" }, ...node.properties.map(property))] : []),
        ...node.children.map((child) => this.#item(child, path === "/" ? "" : path)),
      );
      this.made += 1 + node.children.length;
      item.append(group);
    };
    label.addEventListener("click", () => {
      this.#focus(item);
      this.fold(item, item.getAttribute("aria-expanded") === "true");
    });
    return item;
  }

  /** Fold or unfold a node. */
  fold(item, folded) {
    if (!folded && !item.querySelector(":scope > [role=group]")) item.unfold();
    item.setAttribute("aria-expanded", String(!folded));
    const group = item.querySelector(":scope > [role=group]");
    if (group) group.hidden = folded;
  }

  /** Fold or unfold all that there is, as far as a page can hold it. */
  foldAll(folded) {
    const pending = [this.element.firstElementChild];
    while (pending.length && this.made < UNFOLD_NODES) {
      const item = pending.pop();
      if (item !== this.element.firstElementChild || !folded) this.fold(item, folded);
      pending.push(...item.querySelectorAll(":scope > [role=group] > [role=treeitem]"));
    }
  }

  #focus(item) {
    for (const other of this.element.querySelectorAll("[tabindex='0']")) other.tabIndex = -1;
    item.tabIndex = 0;
    item.focus();
  }

  #key(event) {
    const item = event.target.closest("[role=treeitem]");
    const visible = [...this.element.querySelectorAll("[role=treeitem]")].filter((each) => !each.closest("[role=group][hidden]"));
    const at = visible.indexOf(item);
    const unfolded = item.getAttribute("aria-expanded") === "true";
    const actions = {
      ArrowDown: () => visible[at + 1],
      ArrowUp: () => visible[at - 1],
      Home: () => visible[0],
      End: () => visible.at(-1),
      ArrowRight: () => (unfolded ? item.querySelector(":scope > [role=group] > [role=treeitem]") : this.fold(item, false)),
      ArrowLeft: () => (unfolded ? this.fold(item, true) : item.parentElement.closest("[role=treeitem]")),
      Enter: () => this.fold(item, unfolded),
      " ": () => this.fold(item, unfolded),
    };
    const action = actions[event.key];
    if (!action) return;
    event.preventDefault();
    const next = action();
    if (next) this.#focus(next);
  }
}

function line(change) {
  const text = (value) => (value === null ? `${change.name};` : `${change.name} = ${value};`);
  if (change.name === null) return [element("div", { class: `line mono ${change.kind}` }, `${change.kind} node`)];
  const lines = [];
  if (change.kind !== "added") lines.push(element("div", { class: "line mono removed" }, `- ${text(change.before)}`));
  if (change.kind !== "removed") lines.push(element("div", { class: "line mono added" }, `+ ${text(change.after)}`));
  return lines;
}

export class TreeView {
  constructor(vm) {
    this.vm = vm;
    this.revision = element("select", { id: "revision", onchange: () => this.#showTree() });
    this.from = element("select", { id: "from" });
    this.to = element("select", { id: "to" });
    this.summary = element("span", { role: "status", class: "quiet", id: "tree-status" });
    this.content = element("div", { class: "scroll card", id: "tree-content" });
    const button = (label, onclick) => element("button", { type: "button", onclick }, label);
    this.elements = [
      element(
        "div", { class: "bar" },
        element("label", { for: "revision" }, "Revision"), this.revision, button("Show", () => this.#showTree()),
        button("Unfold all", () => this.tree?.foldAll(false)), button("Fold all", () => this.tree?.foldAll(true)),
        element("span", { class: "push" }),
        element("label", { for: "from" }, "Compare"), this.from, element("label", { for: "to" }, "with"), this.to,
        button("Compare", () => this.#compare()),
      ),
      this.summary,
      this.content,
    ];
    this.tree = null;
    this.timer = 0;
    this.newest = -1;
  }

  async show() {
    this.visible = true;
    await this.#refresh();
  }

  /** A status says nothing about trees. */
  status() {}

  hide() {
    this.visible = false;
    window.clearTimeout(this.timer);
  }

  close() {
    this.hide();
  }

  async #refresh() {
    try {
      const { revisions } = await get(vmPath(this.vm, "revisions"));
      this.#list(revisions);
    } catch (error) {
      setText(this.summary, error.message);
    }
    if (this.visible) this.timer = window.setTimeout(() => this.#refresh(), REVISIONS_MS);
  }

  #list(revisions) {
    if (!revisions.length || revisions[0].number === this.newest) return;
    const first = this.newest < 0;
    this.newest = revisions[0].number;
    for (const select of [this.revision, this.from, this.to]) {
      const chosen = select.value;
      select.replaceChildren(
        ...revisions.map(({ number, origin, time_ms: time }) =>
          element("option", { value: String(number), title: new Date(time).toLocaleString() }, `${number} ${origin}`),
        ),
      );
      if (chosen && revisions.some(({ number }) => String(number) === chosen)) select.value = chosen;
    }
    if (first) {
      this.from.value = String(revisions.at(-1).number);
      this.#showTree();
    } else {
      setText(this.summary, `There is a new revision, ${this.newest}.`);
    }
  }

  async #showTree() {
    try {
      const { revision, root } = await get(vmPath(this.vm, `trees/${this.revision.value}`));
      this.tree = new FoldingTree(root);
      this.content.replaceChildren(this.tree.element);
      const when = new Date(revision.time_ms).toLocaleString();
      const what = `${revision.size} bytes, SHA-256 ${revision.sha256.slice(0, 12)}`;
      setText(this.summary, `Revision ${revision.number} (${revision.origin}) of ${when}, ${what}`);
    } catch (error) {
      setText(this.summary, error.message);
    }
  }

  async #compare() {
    try {
      const { from, to, changes } = await get(vmPath(this.vm, `diff?from=${this.from.value}&to=${this.to.value}`));
      const shown = element("div", { class: "diff" });
      let path = null;
      for (const change of changes) {
        if (change.path !== path) shown.append(element("div", { class: "path mono" }, change.path || "(outside of the nodes)"));
        path = change.path;
        shown.append(...line(change));
      }
      this.tree = null;
      this.content.replaceChildren(shown);
      const number = changes.length === 1 ? "1 difference" : `${changes.length} differences`;
      setText(this.summary, `Revision ${from.number} (${from.origin}) to ${to.number} (${to.origin}): ${number}`);
    } catch (error) {
      setText(this.summary, error.message);
    }
  }
}
