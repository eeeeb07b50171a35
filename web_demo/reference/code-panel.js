// Examples in three languages: one choice for the whole page, kept with the other settings.

import { text } from "../i18n.js";
import { button, make } from "./elements.js";
import { LANGUAGES, LANGUAGE_NAMES } from "./examples.js";

/** What all panels share: the chosen language, and who is to draw anew. */
export class CodeChoice extends EventTarget {
  #settings;

  constructor(settings) {
    super();
    this.#settings = settings;
  }

  get language() {
    const chosen = this.#settings.get("codeLanguage");
    return LANGUAGES.includes(chosen) ? chosen : LANGUAGES[0];
  }

  set language(language) {
    this.#settings.set("codeLanguage", language);
    this.dispatchEvent(new Event("change"));
  }
}

/** A panel that shows `code(language)`; call `draw` when that has changed. `names` of languages that differ here. */
export class CodePanel {
  constructor(choice, code, names = {}) {
    this.choice = choice;
    this.code = code;
    this.tabs = LANGUAGES.map((language) => {
      const tab = make("button", { type: "button", textContent: names[language] ?? LANGUAGE_NAMES[language], dataset: { language } });
      tab.addEventListener("click", () => (choice.language = language));
      return tab;
    });
    this.shown = make("code");
    this.copy = button("docs.copy", () => this.#copy(), { className: "quiet copy" });
    const bar = make("div", { className: "languages" }, ...this.tabs, this.copy);
    this.element = make("div", { className: "code" }, bar, make("pre", { tabIndex: 0 }, this.shown));
    choice.addEventListener("change", () => this.draw());
    this.draw();
  }

  draw() {
    for (const tab of this.tabs) tab.setAttribute("aria-pressed", tab.dataset.language === this.choice.language);
    this.shown.textContent = this.code(this.choice.language);
  }

  async #copy() {
    let key = "docs.copied";
    try {
      await navigator.clipboard.writeText(this.shown.textContent);
    } catch {
      // Without https there is no clipboard: what is selected can be copied by hand.
      getSelection().selectAllChildren(this.shown);
      key = "docs.selected";
    }
    this.copy.textContent = text(key);
    setTimeout(() => (this.copy.textContent = text("docs.copy")), 1500);
  }
}
