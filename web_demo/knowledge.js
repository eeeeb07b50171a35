// The knowledge page: drop documents, see them being read, and try what questions find in them.

import { Credentials } from "./credentials.js";
import { told, tellFaults } from "./faults.js";
import { preferredLanguage, setLanguage, text } from "./i18n.js";
import { KnowledgeBase } from "./knowledge-base.js";
import { Settings } from "./settings.js";
import { followTheme } from "./theme.js";

const POLL_MS = 1000; // while a file is being read
const byId = (id) => document.getElementById(id);
const settings = new Settings();
const credentials = new Credentials(location.hash);

let base = null;
let files = [];
let uploads = []; // { name, share } of files on their way
let result = null; // of the last question
let timer = 0;

// --- drawing -----------------------------------------------------------------------------------------------------

function draw() {
  byId("key-form").hidden = credentials.present;
  for (const id of ["choose", "ask"]) byId(id).disabled = !credentials.present;
  byId("files-empty").hidden = files.length + uploads.length > 0;
  byId("main").dataset.state = uploads.length || files.some(isWaiting) ? "working" : "idle";
  const focused = document.activeElement?.dataset.file;
  byId("files").replaceChildren(...uploads.map(uploadItem), ...files.map(fileItem));
  if (focused) byId("files").querySelector(`[data-file="${CSS.escape(focused)}"]`)?.focus(); // drawn anew
  drawResult();
}

function drawResult() {
  byId("answer").hidden = !result?.answer;
  byId("answer").textContent = result?.answer ?? "";
  byId("found").replaceChildren(...(result?.found ?? []).map(foundItem));
  byId("found-count").textContent = result ? text(result.found.length ? "knowledge.found" : "knowledge.nothing", { count: result.found.length }) : "";
}

function uploadItem({ name, share }) {
  return item("UPLOADING", name, text("knowledge.sending", { percent: percent(share) }), progressBar(name, share));
}

function fileItem(file) {
  const reading = isWaiting(file) && progressBar(file.title, file.progress);
  const about = {
    UPLOADING: () => text("knowledge.reading", { percent: percent(file.progress) }),
    ERROR: () => text("knowledge.failed", { reason: file.error ?? "" }),
    ENABLED: () => text("knowledge.passages", { count: file.passages }),
    NOT_ENABLED: () => text("knowledge.off"),
  }[file.status]();
  const remove = element("button", { type: "button", className: "quiet", textContent: text("knowledge.remove") });
  remove.setAttribute("aria-label", text("knowledge.remove.label", { title: file.title }));
  remove.dataset.file = file.id;
  remove.disabled = isWaiting(file);
  remove.addEventListener("click", told(() => removeFile(file), tellFault));
  return item(file.status, file.title, about, reading, remove);
}

function foundItem({ title, headings, content, page, type }) {
  const place = page === null ? "" : text("knowledge.page", { page });
  const head = element("p", { className: "source" });
  head.append(element("strong", { textContent: [title, ...headings].join(" › ") }), " ", element("span", { className: "hint", textContent: type === "qa" ? text("knowledge.qa") : place }));
  const found = element("li");
  found.append(head, element("p", { className: "passage", textContent: content }));
  return found;
}

function item(status, title, about, ...more) {
  const entry = element("li");
  entry.dataset.status = status;
  entry.append(element("span", { className: "file-title", textContent: title }), element("span", { className: "hint", textContent: about }), ...more.filter(Boolean));
  return entry;
}

function progressBar(title, share) {
  const bar = element("progress", { max: 1, value: share });
  bar.setAttribute("aria-label", title);
  return bar;
}

function element(name, properties = {}) {
  return Object.assign(document.createElement(name), properties);
}

const percent = (share) => Math.round(100 * share);
const isWaiting = ({ status }) => status === "UPLOADING";

function showNotice(words) {
  byId("notice").hidden = !words;
  byId("notice-text").textContent = words;
}

// --- the server --------------------------------------------------------------------------------------------------

/** Show the files of the chosen base, again and again while one is being read. */
async function refresh() {
  clearTimeout(timer);
  if (!base) return;
  const asked = base;
  const listed = await asked.files();
  if (asked !== base) return; // another one was opened meanwhile
  files = listed;
  if (files.some(isWaiting)) timer = setTimeout(told(refresh, tellFault), POLL_MS);
  draw();
}

async function open() {
  showNotice("");
  files = [];
  result = null;
  const name = byId("base").value.trim();
  base = credentials.present && name ? new KnowledgeBase(name, credentials.authorization) : null;
  settings.set("knowledgeBase", name);
  draw();
  await refresh();
}

async function uploadFiles(chosen) {
  showNotice("");
  for (const file of [...chosen]) {
    const upload = { name: file.name, share: 0 };
    uploads = [...uploads, upload];
    draw();
    try {
      await base.upload(file, (share) => {
        upload.share = share;
        draw();
      });
    } catch (error) {
      tellFault(`${file.name}: ${error.message}`, error);
    } finally {
      uploads = uploads.filter((other) => other !== upload);
    }
    await refresh();
  }
}

async function removeFile(file) {
  await base.remove(file.id);
  await refresh();
  byId("choose").focus(); // the button that had the focus is gone
}

async function ask() {
  showNotice("");
  const asked = await base.search(byId("question").value);
  result = asked;
  drawResult();
}

// --- the user ----------------------------------------------------------------------------------------------------

function tellFault(message, error) {
  showNotice(error?.refused ? text("fault.key") : text("fault.page", { message }));
}
tellFaults(tellFault);
const takeFiles = told(uploadFiles, tellFault);
byId("choose").addEventListener("click", () => byId("file").click());
byId("file").addEventListener("change", ({ target }) => {
  takeFiles([...target.files]);
  target.value = ""; // the same file may be chosen again
});
for (const type of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(type, (event) => {
    event.preventDefault();
    byId("drop").classList.toggle("over", type === "dragover");
    if (type === "drop" && base) takeFiles([...event.dataTransfer.files]);
  });
}
const submitted = (id, act) =>
  byId(id).addEventListener("submit", (event) => {
    event.preventDefault();
    told(act, tellFault)();
  });
submitted("base-form", open);
submitted("question-form", ask);
submitted("key-form", () => {
  credentials.key = byId("key").value;
  byId("key").value = "";
  return open();
});
for (const id of ["conversation-link", "recognise-link", "docs-link"]) byId(id).addEventListener("click", ({ currentTarget }) => (currentTarget.hash = location.hash));
byId("language").addEventListener("click", () => settings.set("language", document.documentElement.lang === "en" ? "zh" : "en"));
settings.addEventListener("change", () => setLanguage(settings.get("language") || preferredLanguage()));
document.addEventListener("language", () => {
  byId("language").textContent = text("language.switch");
  draw();
});

byId("base").value = settings.get("knowledgeBase");
setLanguage(settings.get("language") || preferredLanguage());
followTheme(settings, byId("theme"));
draw();
told(open, tellFault)();
