// SPDX-License-Identifier: GPL-2.0-or-later
// The page: the list of VMs, and the VM that the URL's fragment names: #NAME/TAB.

import { get } from "./api.js";
import { alertText, element, setText } from "./dom.js";
import { VmView } from "./vm.js";

const LIST_MS = 3000;

const list = document.getElementById("vms");
const main = document.getElementById("main");
let may = new Set();
let view = null;
let known = [];

function wanted() {
  const [vm, tab] = window.location.hash.slice(1).split("/").map(decodeURIComponent);
  return { vm: vm || (known.length ? known[0].vm : ""), tab: tab || "console" };
}

function showList() {
  const { vm: current } = wanted();
  const links = new Map([...list.querySelectorAll("a")].map((link) => [link.dataset.vm, link]));
  const items = known.map(({ vm, state }) => {
    const link = links.get(vm) ?? element("a", { href: `#${encodeURIComponent(vm)}`, "data-vm": vm }, element("span"), " ", element("small"));
    setText(link.firstChild, vm);
    const mark = link.querySelector("small");
    mark.hidden = !state;
    mark.className = `state ${state}`;
    setText(mark, state ?? "");
    if (vm === current) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
    return link.parentElement ?? element("li", {}, link);
  });
  if (!items.length) items.push(element("li", { class: "quiet" }, "No VM is running. Start one: ./dev run"));
  if (items.length !== list.children.length || items.some((item, index) => item !== list.children[index])) {
    list.replaceChildren(...items);
  }
}

function showVm() {
  const { vm, tab } = wanted();
  if (view !== null && view.vm !== vm) {
    view.close();
    view = null;
    main.replaceChildren();
  }
  if (view === null && known.some((each) => each.vm === vm)) {
    view = new VmView(vm, may);
    main.replaceChildren(...view.elements);
  }
  view?.show(tab);
  if (view === null && vm) main.replaceChildren(element("p", { class: "quiet" }, `There is no VM ${vm} now.`));
}

async function refresh() {
  try {
    const { you, vms } = await get("/api/vms");
    may = new Set(you.may);
    setText(document.getElementById("you"), you.name === you.role ? you.name : `${you.name} (${you.role})`);
    known = vms;
    alertText("");
    showList();
    showVm();
  } catch (error) {
    alertText(`The gateway does not answer: ${error.message}`);
  }
  window.setTimeout(refresh, LIST_MS);
}

window.addEventListener("hashchange", () => {
  showList();
  showVm();
});
refresh();
