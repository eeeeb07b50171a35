// Small helpers for making elements; texts by key follow the language of the page.

import { text } from "../i18n.js";

/** Make an element: `make("p", {className: "hint"}, "words", child)`. */
export function make(name, properties = {}, ...children) {
  const { dataset = {}, ...others } = properties;
  const element = Object.assign(document.createElement(name), others);
  Object.assign(element.dataset, dataset);
  element.append(...children);
  return element;
}

/** An element whose words are those of `key`, in whatever language the page is. */
export function worded(name, key, properties = {}) {
  return make(name, { ...properties, dataset: { ...properties.dataset, i18n: key } }, text(key));
}

export function button(key, onClick, properties = {}) {
  const made = worded("button", key, { type: "button", ...properties });
  made.addEventListener("click", onClick);
  return made;
}

let count = 0;

/** A labelled input: [label, input]. */
export function labelled(label, input) {
  count += 1;
  input.id ||= `field-${count}`;
  return [make("label", { htmlFor: input.id }, label), input];
}
