// The API reference: the server has written what there is to read; this adds examples with the reader's key, and trying.

import { tellFaults } from "../faults.js";
import { preferredLanguage, setLanguage, text } from "../i18n.js";
import { Settings } from "../settings.js";
import { followTheme } from "../theme.js";
import { CodeChoice } from "./code-panel.js";
import { Endpoint } from "./endpoint.js";
import { Socket } from "./socket.js";

const byId = (id) => document.getElementById(id);
const settings = new Settings();
const choice = new CodeChoice(settings);
const sections = [];

// --- the key -----------------------------------------------------------------------------------------------------

/** The key may come in the fragment, as on the other pages; it is taken out, because the fragment is a place here. */
function readFragment() {
  const key = new URLSearchParams(location.hash.slice(1)).get("key");
  if (!key) return;
  byId("key").value = key;
  history.replaceState(null, "", location.pathname + location.search);
  draw();
}

function access() {
  return { origin: location.origin, key: byId("key").value.trim(), project: byId("project").value.trim() };
}

function draw() {
  for (const section of sections) section.draw();
}

// --- the page ----------------------------------------------------------------------------------------------------

async function addTrying() {
  const response = await fetch("openapi.json");
  if (!response.ok) throw new Error(`openapi.json: ${response.status}`);
  const { paths, components } = await response.json();
  const resolve = (reference) => components.schemas[reference.split("/").at(-1)] ?? {};
  for (const article of document.querySelectorAll(".operation")) {
    if (article.dataset.socket) sections.push(new Socket(article, { access, choice }));
    else {
      const operation = paths[article.dataset.path][article.dataset.method.toLowerCase()];
      sections.push(new Endpoint(article, { operation, access, resolve, choice }));
    }
  }
}

/** Show in the contents what contains all the words that are looked for. */
function find(wanted) {
  const words = wanted.toLowerCase().split(/\s+/).filter(Boolean);
  for (const group of document.querySelectorAll("#contents > ul > li")) {
    let found = 0;
    for (const item of group.querySelectorAll("li")) {
      const article = document.getElementById(item.firstElementChild.hash.slice(1));
      const about = `${item.textContent} ${article?.dataset.method ?? ""} ${article?.dataset.path ?? ""}`.toLowerCase();
      item.hidden = !words.every((word) => about.includes(word));
      found += !item.hidden;
    }
    group.hidden = found === 0;
  }
}

/** Mark in the contents where the reader is. */
function followReading() {
  const links = new Map([...document.querySelectorAll("#contents li li a")].map((link) => [link.hash.slice(1), link]));
  const observer = new IntersectionObserver(
    (entries) => {
      const top = entries.filter(({ isIntersecting }) => isIntersecting).at(0);
      if (!top) return;
      for (const link of links.values()) link.removeAttribute("aria-current");
      links.get(top.target.id)?.setAttribute("aria-current", "true");
    },
    { rootMargin: "-100px 0px -70% 0px" },
  );
  for (const article of document.querySelectorAll(".operation")) observer.observe(article);
}

function setContentsOpen(isOpen) {
  document.body.classList.toggle("contents-open", isOpen);
  byId("open-contents").setAttribute("aria-expanded", isOpen);
}

tellFaults((message) => {
  document.querySelector(".connection").textContent = text("fault.page", { message });
});
for (const id of ["language", "theme", "open-contents", "access"]) byId(id).hidden = false;
document.querySelector(".find").hidden = false;
byId("language").addEventListener("click", () => settings.set("language", document.documentElement.lang === "en" ? "zh" : "en"));
settings.addEventListener("change", ({ detail: name }) => name === "language" && setLanguage(settings.get("language")));
document.addEventListener("language", () => {
  byId("language").textContent = text("language.switch");
  draw();
});
byId("access").addEventListener("submit", (event) => event.preventDefault());
byId("access").addEventListener("input", draw);
byId("find").addEventListener("input", ({ target }) => find(target.value));
byId("open-contents").addEventListener("click", () => setContentsOpen(!document.body.classList.contains("contents-open")));
byId("contents").addEventListener("click", ({ target }) => target.closest("a") && setContentsOpen(false));
addEventListener("hashchange", readFragment);
for (const link of document.querySelectorAll("[data-key-link]")) {
  link.addEventListener("click", () => access().key && (link.hash = `key=${encodeURIComponent(access().key)}`));
}

setLanguage(settings.get("language") || preferredLanguage());
followTheme(settings, byId("theme"));
readFragment();
followReading();
await addTrying();
if (location.hash) document.getElementById(location.hash.slice(1))?.scrollIntoView();
