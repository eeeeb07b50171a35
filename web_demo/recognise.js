// The recognition page: a file or the microphone goes up a stream-speech connection, words arrive.

import { Microphone, microphoneFault } from "./audio/capture.js";
import { toPcm16 } from "./audio/pcm.js";
import { Credentials } from "./credentials.js";
import { told, tellFaults } from "./faults.js";
import { toJson, toSrt, toText } from "./export.js";
import { preferredLanguage, setLanguage, text } from "./i18n.js";
import { MICROPHONE_RATE_HZ } from "./protocol.js";
import { Recognition } from "./recognition.js";
import { joinSentences } from "./turns.js";
import { Settings } from "./settings.js";
import { followTheme } from "./theme.js";
import { download } from "./view/download.js";

const PIECE_SAMPLES = MICROPHONE_RATE_HZ / 10;
const byId = (id) => document.getElementById(id);
const settings = new Settings();
const credentials = new Credentials(location.hash);

let sentences = [];
let partial = "";
let recognition = null;
let microphone = null;
let isOpening = false; // the user is being asked for the microphone
let progress = { key: "", values: {} };

// --- drawing -----------------------------------------------------------------------------------------------------

function draw() {
  byId("empty").hidden = sentences.length > 0 || partial !== "";
  byId("settled").textContent = joinSentences(sentences.map((sentence) => sentence.text)) + (sentences.length && partial ? " " : "");
  byId("partial").textContent = partial;
  byId("speak").textContent = text(microphone ? "recognise.stop" : "recognise.speak");
  byId("speak").setAttribute("aria-pressed", Boolean(microphone));
  for (const id of ["speak", "choose"]) byId(id).disabled = !credentials.present || (recognition !== null && !(id === "speak" && microphone));
  for (const id of ["save-text", "save-srt", "save-json"]) byId(id).disabled = sentences.length === 0;
  byId("main").dataset.state = recognition ? "listening" : "idle";
  byId("progress").textContent = progress.key ? text(progress.key, progress.values) : "";
  byId("key-form").hidden = credentials.present;
  byId("scroller").scrollTop = byId("scroller").scrollHeight;
}

function showNotice(words) {
  byId("notice").hidden = !words;
  byId("notice-text").textContent = words;
}

// --- recognising -------------------------------------------------------------------------------------------------

/** Open a connection; null when the server does not let us in. */
async function open() {
  showNotice("");
  sentences = [];
  partial = "";
  progress = { key: "", values: {} };
  try {
    const token = await credentials.token("recognition");
    recognition = new Recognition({ token, service: settings.get("asr") || "default", onResult, onClose });
  } catch (error) {
    showNotice(error.refused ? text("fault.key") : text("recognise.closed", { reason: error.message }));
    return null;
  }
  draw();
  return (await recognition.ready) ? recognition : null;
}

function onResult(result) {
  partial = result.final ? "" : result.text;
  if (result.final && result.text) sentences.push({ text: result.text, beginMs: result.beginMs, endMs: result.endMs, words: result.words });
  draw();
}

function onClose(code, reason) {
  recognition = null;
  if (code !== 1000) showNotice(text("recognise.closed", { reason: reason || code }));
  stopMicrophone();
  draw();
}

async function recogniseFile(file) {
  if (recognition || !file) return;
  const samples = await readSamples(file);
  if (!samples) return showNotice(text("recognise.unreadable"));
  const stream = await open();
  if (!stream) return;
  const totalSeconds = Math.round(samples.length / MICROPHONE_RATE_HZ);
  for (let at = 0; at < samples.length && stream.isOpen; at += PIECE_SAMPLES) {
    stream.send(toPcm16(samples.subarray(at, at + PIECE_SAMPLES)));
    await stream.drained();
    progress = { key: "recognise.progress", values: { done: Math.round(at / MICROPHONE_RATE_HZ), total: totalSeconds } };
    byId("progress").textContent = text(progress.key, progress.values);
  }
  progress = { key: "recognise.done", values: { seconds: totalSeconds } };
  stream.finish();
}

/** Whatever the browser can decode, mixed down and at 16 kHz; null when it cannot. */
async function readSamples(file) {
  try {
    const context = new OfflineAudioContext(1, 1, MICROPHONE_RATE_HZ);
    const audio = await context.decodeAudioData(await file.arrayBuffer());
    const mixed = new Float32Array(audio.length);
    for (let channel = 0; channel < audio.numberOfChannels; channel += 1) {
      audio.getChannelData(channel).forEach((sample, index) => (mixed[index] += sample / audio.numberOfChannels));
    }
    return mixed;
  } catch {
    return null;
  }
}

async function speak() {
  if (isOpening) return;
  isOpening = true;
  const early = []; // what is said before the server is ready
  let stream = null;
  const onFrame = (bytes) => (stream ? stream.send(bytes) : early.push(bytes));
  try {
    microphone = await Microphone.open({ deviceId: settings.get("microphone"), onFrame, onLevel: () => {}, onEnded: stopSpeaking });
  } catch (error) {
    return showNotice(text(microphoneFault(error), { message: error.message }));
  } finally {
    isOpening = false;
  }
  stream = await open();
  if (!stream) return stopMicrophone();
  for (const bytes of early) stream.send(bytes);
}

function stopSpeaking() {
  if (microphone) recognition?.send(microphone.flush());
  recognition?.finish();
  stopMicrophone();
}

function stopMicrophone() {
  microphone?.close();
  microphone = null;
  draw();
}

// --- the user ----------------------------------------------------------------------------------------------------

const tellFault = (message) => showNotice(text("fault.page", { message }));
tellFaults(tellFault);
const takeFile = told(recogniseFile, tellFault);
byId("speak").addEventListener("click", told(() => (microphone ? stopSpeaking() : speak()), tellFault));
byId("choose").addEventListener("click", () => byId("file").click());
byId("file").addEventListener("change", ({ target }) => {
  takeFile(target.files[0]);
  target.value = ""; // the same file may be chosen again
});
for (const type of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(type, (event) => {
    event.preventDefault();
    byId("drop").classList.toggle("over", type === "dragover");
    if (type === "drop" && credentials.present) takeFile(event.dataTransfer.files[0]);
  });
}
byId("save-text").addEventListener("click", () => download("recognised.txt", "text/plain", toText(sentences)));
byId("save-srt").addEventListener("click", () => download("recognised.srt", "application/x-subrip", toSrt(sentences)));
byId("save-json").addEventListener("click", () => download("recognised.json", "application/json", toJson(sentences)));
byId("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  credentials.key = byId("key").value;
  byId("key").value = "";
  draw();
});
for (const id of ["conversation-link", "knowledge-link", "docs-link"]) byId(id).addEventListener("click", ({ currentTarget }) => (currentTarget.hash = location.hash));
byId("language").addEventListener("click", () => settings.set("language", document.documentElement.lang === "en" ? "zh" : "en"));
settings.addEventListener("change", () => setLanguage(settings.get("language") || preferredLanguage()));
document.addEventListener("language", () => {
  byId("language").textContent = text("language.switch");
  draw();
});

setLanguage(settings.get("language") || preferredLanguage());
followTheme(settings, byId("theme"));
draw();
