// The settings form, from a table: what each setting is called, and how it is entered.

import { FORMATS, isPlayable, rateOf } from "../audio/decoders.js";
import { listMicrophones } from "../audio/capture.js";
import { text } from "../i18n.js";

const NUMBER = { silenceMs: [200, 3000, 50], interruptionMs: [0, 2000, 50], threshold: [0.1, 0.9, 0.1], speechRate: [0.5, 2, 0.1] };

const GROUPS = [
  ["settings.services", [["model", "settings.model"], ["asr", "settings.asr"], ["tts", "settings.tts"], ["system", "settings.system", "area"]]],
  ["settings.sound", [["microphone", "settings.microphone", "choice"], ["voice", "settings.voice"], ["speechRate", "settings.speed", "number"], ["format", "settings.format", "choice"], ["binaryDownlink", "settings.downlink", "tick"], ["asrMode", "settings.mode", "choice"]]],
  ["settings.handsfree", [["silenceMs", "settings.silence", "number"], ["interruptionMs", "settings.interruption", "number"], ["threshold", "settings.threshold", "number"]]],
];

/** Draw the form, and draw it again when language or devices change. `onForget` is its one button. */
export function followSettings(form, settings, onForget) {
  let microphones = [];
  const draw = () => form.replaceChildren(...GROUPS.map((group) => fieldset(group, settings, microphones)), hint(), forgetButton(onForget));
  const look = async () => {
    microphones = await listMicrophones();
    if (!form.contains(document.activeElement)) draw();
  };
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("change", ({ target }) => settings.set(target.name, readField(target)));
  document.addEventListener("language", draw);
  navigator.mediaDevices?.addEventListener("devicechange", look);
  draw();
  return { look };
}

function readField(field) {
  if (field.type === "checkbox") return field.checked;
  if (field.type !== "number") return field.value.trim();
  const value = Math.min(Number(field.max), Math.max(Number(field.min), Number(field.value)));
  field.value = value;
  return value;
}

function fieldset([title, rows], settings, microphones) {
  const group = document.createElement("fieldset");
  const legend = document.createElement("legend");
  legend.textContent = text(title);
  group.append(legend, ...rows.map(([name, label, kind]) => fieldRow(name, label, kind, settings.get(name), microphones)));
  return group;
}

function fieldRow(name, labelKey, kind, value, microphones) {
  const row = document.createElement("div");
  row.className = `field ${kind ?? "text"}`;
  const label = document.createElement("label");
  label.htmlFor = `setting-${name}`;
  label.textContent = text(labelKey);
  const field = createField(name, kind, value, microphones);
  field.id = label.htmlFor;
  field.name = name;
  row.append(label, field);
  return row;
}

function createField(name, kind, value, microphones) {
  if (kind === "choice") return createSelect(choicesOf(name, microphones), value);
  if (kind === "area") return Object.assign(document.createElement("textarea"), { value, rows: 3 });
  const input = document.createElement("input");
  if (kind === "tick") return Object.assign(input, { type: "checkbox", checked: value });
  if (kind === "number") {
    const [min, max, step] = NUMBER[name];
    return Object.assign(input, { type: "number", min, max, step, value });
  }
  if (name === "voice") input.placeholder = text("settings.voice.default");
  return Object.assign(input, { type: "text", value, autocomplete: "off", spellcheck: false });
}

function choicesOf(name, microphones) {
  if (name === "format") return FORMATS.filter(isPlayable).map((format) => [format, formatName(format)]);
  if (name === "asrMode") return ["online", "refresh"].map((mode) => [mode, text(`settings.mode.${mode}`)]);
  return [["", text("settings.microphone.default")], ...microphones.map(({ deviceId, label }, index) => [deviceId, label || `${text("settings.microphone")} ${index + 1}`])];
}

/** "MP3_24000HZ_MONO_64KBPS" as "MP3 24 kHz, 64 kbps". */
function formatName(format) {
  const [, codec, , bitrate] = /^(\w+?)_(\d+K?)HZ_MONO_(\d+)/.exec(format);
  const detail = format.endsWith("KBPS") ? `, ${bitrate} kbps` : "";
  return `${codec.replace("OGG_OPUS", "Opus")} ${rateOf(format) / 1000} kHz${detail}`;
}

function createSelect(choices, value) {
  const select = document.createElement("select");
  select.append(...choices.map(([id, label]) => new Option(label, id, false, id === value)));
  return select;
}

function hint() {
  return Object.assign(document.createElement("p"), { className: "hint", textContent: text("settings.hint") });
}

function forgetButton(onForget) {
  const button = Object.assign(document.createElement("button"), { type: "button", textContent: text("settings.forget") });
  button.addEventListener("click", onForget);
  return button;
}
