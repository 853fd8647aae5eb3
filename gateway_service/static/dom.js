// SPDX-License-Identifier: GPL-2.0-or-later
// Elements. Text goes in as text: what a guest is called or prints is never markup here.

/** Return a new element with attributes, listeners (onclick: ...) and children, which are elements or texts. */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== false && value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

/** Set an element's text when it is another one: what does not change keeps its selection. */
export function setText(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

/** Show an error above everything, or take it away. */
export function alertText(text) {
  const alert = document.getElementById("alert");
  setText(alert, text);
  alert.hidden = !text;
}
