// One endpoint: its examples, and the form to try it. The form is the one source of both.

import { told } from "../faults.js";
import { text } from "../i18n.js";
import { AnswerView } from "./answer.js";
import { CodePanel } from "./code-panel.js";
import { button, labelled, make, worded } from "./elements.js";
import { exampleBody, formFields } from "./example-body.js";
import { codeFor } from "./examples.js";
import { addressOf, headersOf } from "./request.js";

export class Endpoint {
  #operation;
  #method;
  #path;
  #access;
  #inputs = { path: [], query: [], header: [] }; // [name, input]
  #body = null; // {kind(), request(), send()}
  #abort = null;

  /** `operation` of the OpenAPI document; `access` {origin, key, project} as they are now; `resolve` for `$ref`s. */
  constructor(article, { operation, access, resolve, choice }) {
    this.#operation = operation;
    this.#method = article.dataset.method;
    this.#path = article.dataset.path;
    this.#access = access;
    const rows = this.#parameterRows();
    const bodyRows = this.#bodyRows(resolve);
    this.panel = new CodePanel(choice, (language) => codeFor(language, this.#request()));
    this.send = worded("button", "docs.send", { type: "submit", className: "primary" });
    this.stop = button("docs.stop", () => this.#abort?.abort(), { hidden: true });
    const line = make("p", { className: "answer-line" });
    line.setAttribute("role", "status");
    const content = make("pre", { className: "answer", hidden: true, tabIndex: 0 });
    const extras = make("div", { className: "extras" });
    this.answer = new AnswerView({ line, content, extras });
    this.form = make("form", { className: "try" }, ...rows, ...bodyRows, make("div", { className: "row" }, this.send, this.stop), line, content, extras);
    this.form.addEventListener("input", () => this.panel.draw());
    const act = told(() => this.#try(), (message) => this.answer.say(text("docs.failed", { message })));
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      act();
    });
    const folded = make("details", { className: "trying" }, worded("summary", "docs.try"), this.form);
    article.querySelector(".tried").append(this.panel.element, folded);
  }

  draw() {
    this.panel.draw();
  }

  get #needsKey() {
    return this.#operation.security?.length !== 0;
  }

  // --- the form ------------------------------------------------------------------------------------------------

  #parameterRows() {
    const shown = (this.#operation.parameters ?? []).filter(({ name }) => name !== "project");
    return shown.map(({ name, in: place, required = false, schema = {} }) => {
      const input = make("input", { type: "text", autocomplete: "off", spellcheck: false, required, placeholder: `${schema.default ?? ""}` });
      this.#inputs[place]?.push([name, input]);
      return make("div", { className: "field" }, ...labelled(name, input));
    });
  }

  #bodyRows(resolve) {
    const contents = Object.entries(this.#operation.requestBody?.content ?? {});
    if (contents.length === 0) return [];
    const forms = contents.map(([type, { schema }]) => bodyForm(type, schema, resolve));
    const select = make("select", {}, ...contents.map(([type], index) => new Option(type, index)));
    const choose = () => {
      this.#body = forms[select.value];
      forms.forEach((form) => (form.element.hidden = form !== this.#body));
      for (const field of this.#body.element.querySelectorAll("[data-needed]")) field.required = true;
      for (const form of forms) if (form !== this.#body) for (const field of form.element.querySelectorAll("[data-needed]")) field.required = false;
    };
    select.addEventListener("change", choose);
    choose();
    const row = make("div", { className: "field" }, ...labelled(text("docs.type"), select));
    row.firstChild.dataset.i18n = "docs.type";
    return [...(contents.length > 1 ? [row] : []), ...forms.map(({ element }) => element)];
  }

  #request() {
    const { origin, key, project } = this.#access();
    const filled = Object.fromEntries(Object.entries(this.#inputs).map(([place, inputs]) => [place, inputs.map(([name, { value }]) => [name, value])]));
    filled.path = [["project", project || "default"], ...filled.path];
    return {
      method: this.#method,
      url: addressOf(origin, this.#path, filled),
      key: this.#needsKey ? key : null,
      headers: Object.fromEntries(filled.header.filter(([, value]) => value)),
      body: this.#body?.request() ?? { kind: "none" },
    };
  }

  // --- trying --------------------------------------------------------------------------------------------------

  async #try() {
    const request = this.#request();
    this.answer.clear();
    if (request.key === "") {
      this.answer.say(text("docs.nokey"));
      document.getElementById("key").focus();
      return;
    }
    this.#abort = new AbortController();
    this.send.disabled = true;
    this.stop.hidden = false;
    const startedMs = performance.now();
    try {
      const response = await fetch(request.url, { method: request.method, headers: headersOf(request), body: this.#body?.content(), signal: this.#abort.signal });
      await this.answer.show(response, startedMs);
    } catch (error) {
      if (error.name !== "AbortError") throw error;
      this.answer.say(text("docs.stopped"));
    } finally {
      this.send.disabled = false;
      this.stop.hidden = true;
      this.#abort = null;
    }
  }
}

/** One form of a body: {element, request() for the examples, content() for fetch}. */
function bodyForm(type, schema, resolve) {
  if (type === "multipart/form-data") return multipartForm(formFields(schema, resolve));
  if (type === "application/json") return jsonForm(JSON.stringify(exampleBody(schema, resolve), null, 2));
  const file = make("input", { type: "file", dataset: { needed: "" } });
  const element = make("div", { className: "field" }, ...labelled("file", file));
  return { element, request: () => ({ kind: "bytes", name: file.files[0]?.name ?? "recording.wav" }), content: () => file.files[0] };
}

function jsonForm(example) {
  const editor = make("textarea", { value: example, rows: Math.min(16, example.split("\n").length + 1), spellcheck: false, className: "json" });
  editor.addEventListener("input", () => editor.setCustomValidity(jsonFault(editor.value)));
  const [label] = labelled(text("docs.body"), editor);
  label.dataset.i18n = "docs.body";
  return { element: make("div", { className: "field area" }, label, editor), request: () => ({ kind: "json", text: editor.value }), content: () => editor.value };
}

function jsonFault(content) {
  try {
    JSON.parse(content);
    return "";
  } catch (error) {
    return error.message;
  }
}

function multipartForm(fields) {
  const inputs = fields.map(({ name, isFile, value }) => {
    const input = make("input", isFile ? { type: "file", dataset: { needed: "" } } : { type: "text", value, autocomplete: "off", spellcheck: false });
    return { name, isFile, input };
  });
  const element = make("div", { className: "fields-of-form" }, ...inputs.map(({ name, input }) => make("div", { className: "field" }, ...labelled(name, input))));
  const request = () => ({ kind: "form", fields: inputs.map(({ name, isFile, input }) => ({ name, isFile, value: isFile ? (input.files[0]?.name ?? "recording.wav") : input.value })) });
  const content = () => {
    const form = new FormData();
    for (const { name, isFile, input } of inputs) form.append(name, isFile ? input.files[0] : input.value);
    return form;
  };
  return { element, request, content };
}
