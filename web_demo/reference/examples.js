// The same request in three languages, with the reader's own address and key filled in. Pure.

import { headersOf, isStreamed, savedAs } from "./request.js";

export const LANGUAGES = ["curl", "python", "javascript"];
export const LANGUAGE_NAMES = { curl: "curl", python: "Python", javascript: "JavaScript" };

/** The code of `request` (see request.js) in one of LANGUAGES. */
export function codeFor(language, request) {
  return { curl, python, javascript }[language](request);
}

// --- curl --------------------------------------------------------------------------------------------------------

function curl(request) {
  const { method, url, body } = request;
  const options = [];
  if (method !== "GET" && !(method === "POST" && body.kind !== "none")) options.push(`-X ${method}`);
  if (isStreamed(request)) options.push("-N");
  for (const [name, value] of Object.entries(headersOf(request))) options.push(`-H ${quoted(`${name}: ${value}`)}`);
  if (body.kind === "json") options.push(`-d ${quoted(body.text)}`);
  if (body.kind === "bytes") options.push(`--data-binary @${body.name}`);
  if (body.kind === "form") options.push(...body.fields.map(({ name, isFile, value }) => `-F ${quoted(`${name}=${isFile ? "@" : ""}${value}`)}`));
  if (savedAs(request)) options.push(`-o ${savedAs(request)}`);
  return [`curl ${quoted(url)}`, ...options].join(" \\\n  ");
}

/** For a POSIX shell. */
export function quoted(text) {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

// --- Python ------------------------------------------------------------------------------------------------------

function python(request) {
  const { method, url, body } = request;
  const headers = headersOf(request);
  if (body.kind === "json") delete headers["Content-Type"]; // requests sets it itself
  const given = [pyString(url)];
  if (Object.keys(headers).length) given.push(`headers=${pyValue(headers, 4)}`);
  if (body.kind === "json") given.push(`json=${pyValue(parsed(body.text), 4)}`);
  if (body.kind === "bytes") given.push(`data=open(${pyString(body.name)}, "rb")`);
  if (body.kind === "form") given.push(...pyForm(body.fields));
  if (isStreamed(request)) given.push("stream=True");
  const call = `requests.${method.toLowerCase()}(\n${given.map((each) => `    ${each},\n`).join("")})`;
  return `import requests\n\nanswer = ${call}\nanswer.raise_for_status()\n${pyUse(request)}\n`;
}

function pyForm(fields) {
  const texts = fields.filter(({ isFile }) => !isFile).map(({ name, value }) => [name, value]);
  const files = fields.filter(({ isFile }) => isFile).map(({ name, value }) => `${pyString(name)}: open(${pyString(value)}, "rb")`);
  return [...(texts.length ? [`data=${pyValue(Object.fromEntries(texts), 4)}`] : []), ...(files.length ? [`files={${files.join(", ")}}`] : [])];
}

function pyUse(request) {
  const file = savedAs(request);
  if (file) return `with open(${pyString(file)}, "wb") as speech:\n    speech.write(answer.content)`;
  if (isStreamed(request)) return "for line in answer.iter_lines(decode_unicode=True):\n    print(line)";
  return "print(answer.text)";
}

function pyString(text) {
  return JSON.stringify(text);
}

/** A JSON value as a Python literal, indented by `indent` where it begins. */
export function pyValue(value, indent = 0) {
  if (value === null) return "None";
  if (value === true) return "True";
  if (value === false) return "False";
  if (typeof value !== "object") return JSON.stringify(value);
  const [open, close] = Array.isArray(value) ? "[]" : "{}";
  const items = Array.isArray(value)
    ? value.map((each) => pyValue(each, indent + 4))
    : Object.entries(value).map(([name, each]) => `${pyString(name)}: ${pyValue(each, indent + 4)}`);
  const line = `${open}${items.join(", ")}${close}`;
  if (!line.includes("\n") && line.length + indent <= 72) return line;
  const pad = " ".repeat(indent + 4);
  return `${open}\n${items.map((each) => `${pad}${each},\n`).join("")}${" ".repeat(indent)}${close}`;
}

// --- JavaScript --------------------------------------------------------------------------------------------------

function javascript(request) {
  const { method, url, body } = request;
  const lines = [];
  const options = [];
  if (method !== "GET") options.push(`method: "${method}"`);
  const headers = Object.entries(headersOf(request));
  if (headers.length) options.push(`headers: ${jsValue(Object.fromEntries(headers), 2)}`);
  if (body.kind === "json") options.push(`body: JSON.stringify(${jsValue(parsed(body.text), 2)})`);
  if (body.kind === "bytes") options.push("body: file // of an <input type=file>");
  if (body.kind === "form") {
    lines.push("const form = new FormData();");
    for (const { name, isFile, value } of body.fields) lines.push(`form.append("${name}", ${isFile ? "file" : JSON.stringify(value)});${isFile ? " // of an <input type=file>" : ""}`);
    options.push("body: form");
  }
  const given = options.length ? `, {\n${options.map((each) => `  ${each.replace(/( \/\/ .*)?$/, ",$1")}\n`).join("")}}` : "";
  lines.push(`const answer = await fetch(${JSON.stringify(url)}${given});`);
  lines.push("if (!answer.ok) throw new Error(await answer.text());", jsUse(request));
  return `${lines.join("\n")}\n`;
}

function jsUse(request) {
  if (savedAs(request)) return "new Audio(URL.createObjectURL(await answer.blob())).play();";
  if (isStreamed(request)) return "for await (const text of answer.body.pipeThrough(new TextDecoderStream())) console.log(text);";
  return "console.log(await answer.text());";
}

function jsValue(value, indent) {
  return JSON.stringify(value, null, 2).replaceAll("\n", `\n${" ".repeat(indent)}`);
}

/** What is being typed need not be JSON yet. */
function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return {};
  }
}
