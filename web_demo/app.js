// The conversation page: connects the engine to the document.

import { Credentials } from "./credentials.js";
import { told, tellFaults } from "./faults.js";
import { Engine } from "./engine.js";
import { preferredLanguage, setLanguage, text } from "./i18n.js";
import { Settings } from "./settings.js";
import { followTheme } from "./theme.js";
import { LogView } from "./view/log-view.js";
import { followSettings } from "./view/settings-view.js";
import { LevelMeter } from "./view/level-meter.js";
import { followTabs } from "./view/tabs.js";
import { TalkButton } from "./view/talk-button.js";
import { TranscriptView } from "./view/transcript-view.js";
import { drawWaterfall } from "./view/waterfall-view.js";

const byId = (id) => document.getElementById(id);
const main = byId("main");
const settings = new Settings();
const credentials = new Credentials(location.hash);
const engine = new Engine(settings, credentials);

/** What the server need not know; everything else takes a new connection. */
const LOCAL_SETTINGS = new Set(["language", "theme", "microphone"]);

// --- drawing -----------------------------------------------------------------------------------------------------

const transcript = new TranscriptView({ list: byId("transcript"), scroller: byId("scroller"), announcer: byId("announcer") });
const levelMeter = new LevelMeter(byId("strip"), () => engine.replyLevel);
const log = new LogView(() => engine.log, { rows: byId("log-rows"), scroller: byId("log"), filter: byId("log-filter"), pause: byId("log-pause"), save: byId("log-download") });
let isDue = false;

function changed() {
  // At once, also in a hidden tab: programs read it.
  main.dataset.state = engine.state;
  if (isDue) return;
  isDue = true;
  requestAnimationFrame(() => {
    isDue = false;
    draw();
  });
}

function draw() {
  const { turns, replying } = engine.session;
  transcript.render(turns);
  drawWaterfall(turns, { medianElement: byId("median"), drawing: byId("waterfall"), legend: byId("legend") });
  byId("state").textContent = text(`state.${engine.state}`);
  byId("stop").hidden = !replying;
  byId("hands-free").setAttribute("aria-pressed", engine.handsFree);
  byId("talk").setAttribute("aria-pressed", engine.talking);
  byId("talk").disabled = engine.handsFree || !credentials.present;
  byId("hands-free").disabled = !credentials.present;
  byId("talk-text").textContent = text(engine.talking ? "talk.end" : "talk");
  byId("welcome").hidden = turns.some(({ userText }) => userText) && credentials.present;
  drawConnection(engine.connection);
}

function drawConnection({ status, retryMs = 0 }) {
  byId("connection").dataset.status = status;
  byId("connection-text").textContent = text(`connection.${status}`, { seconds: Math.ceil(retryMs / 1000) });
}

let notice = null;

function showNotice() {
  byId("notice").hidden = !notice;
  if (notice) byId("notice-text").textContent = text(notice.key, notice.values);
}

const tellFault = (message) => {
  notice = { key: "fault.page", values: { message } };
  showNotice();
};
tellFaults(tellFault);
const handler = (act) => told(act, tellFault);

engine.addEventListener("change", changed);
engine.addEventListener("wire", () => log.update());
engine.addEventListener("level", ({ detail }) => (levelMeter.user = detail));
engine.addEventListener("notice", ({ detail }) => {
  notice = detail;
  showNotice();
  if (detail.key === "fault.key") byId("key-form").hidden = byId("welcome").hidden = false;
});
byId("notice-close").addEventListener("click", () => {
  notice = null;
  showNotice();
});

// --- the user ----------------------------------------------------------------------------------------------------

new TalkButton(byId("talk"), {
  begin: handler(() => engine.talk()),
  end: handler(() => engine.finish()),
  isActive: () => engine.talking,
  mayUseSpace: () => credentials.present && !engine.handsFree,
});
byId("hands-free").addEventListener("click", handler(() => engine.setHandsFree(!engine.handsFree)));
byId("stop").addEventListener("click", handler(() => engine.cancel()));
document.addEventListener("keydown", ({ key }) => {
  if (key === "Escape") engine.cancel();
});
const say = handler((words) => engine.say(words));
byId("say-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const words = byId("say").value.trim();
  if (!words || !credentials.present) return;
  byId("say").value = "";
  say(words);
});
byId("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  credentials.key = byId("key").value;
  byId("key").value = "";
  start();
});
addEventListener("hashchange", () => credentials.readFragment(location.hash) && start());
addEventListener("online", () => engine.connection.status === "waiting" && engine.reconnect());

// --- the page ----------------------------------------------------------------------------------------------------

const changeMicrophone = handler(() => engine.changeMicrophone());
settings.addEventListener("change", ({ detail: name }) => {
  if (name === "language") setLanguage(settings.get("language"));
  if (name === "microphone") changeMicrophone();
  if (!LOCAL_SETTINGS.has(name) && engine.connection.status !== "off") engine.reconnect();
});
byId("language").addEventListener("click", () => settings.set("language", document.documentElement.lang === "en" ? "zh" : "en"));
document.addEventListener("language", () => {
  byId("language").textContent = text("language.switch");
  showNotice();
  changed();
});
followTabs(document.querySelector("[role=tablist]"), () => log.show());
const settingsView = followSettings(byId("settings-form"), settings, () => engine.forget());
engine.addEventListener("microphone", () => settingsView.look());
byId("open-panel").addEventListener("click", () => {
  const isOpen = document.body.classList.toggle("panel-open");
  byId("open-panel").setAttribute("aria-expanded", isOpen);
  byId("open-panel").textContent = text(isOpen ? "panel.close" : "panel.open");
});
// The other pages get the key the way this one got it: in the fragment, which is not sent.
for (const id of ["recognise-link", "knowledge-link", "docs-link"]) byId(id).addEventListener("click", ({ currentTarget }) => (currentTarget.hash = location.hash));

function start() {
  notice = null;
  showNotice();
  byId("key-form").hidden = credentials.present;
  if (credentials.present) engine.reconnect();
  changed();
}

setLanguage(settings.get("language") || preferredLanguage());
followTheme(settings, byId("theme"));
start();
