// Draws the waterfall: one row per turn, one tone per stage, and the session's median as a line through them.

import { text } from "../i18n.js";
import { STAGES, median, stagesOf, totalOf } from "../waterfall.js";

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 320;
const ROW = 30;
const LABEL_Y = 11;
const BAR_Y = 15;
const BAR_HEIGHT = 9;
const MAX_ROWS = 12;

function element(name, attributes, content = "") {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.textContent = content;
  return made;
}

export function drawWaterfall(turns, { medianElement, drawing, legend }) {
  const measured = turns.map((turn) => ({ turn, stages: stagesOf(turn.marks) })).filter(({ stages }) => stages);
  const middleMs = median(measured.map(({ stages }) => totalOf(stages)));
  showMedian(medianElement, middleMs);
  legend.hidden = middleMs === null;
  legend.replaceChildren(...STAGES.flatMap(legendEntry));
  drawing.replaceChildren(...(middleMs === null ? [] : [diagram(measured.slice(-MAX_ROWS), middleMs)]));
}

function showMedian(paragraph, middleMs) {
  if (middleMs === null) {
    paragraph.textContent = text("latency.none");
    return;
  }
  const figure = document.createElement("strong");
  figure.textContent = `${Math.round(middleMs)} ms`;
  paragraph.replaceChildren(figure, ` ${text("latency.median")}`);
}

function legendEntry(stage) {
  const term = document.createElement("dt");
  term.className = `stage-${stage}`;
  term.textContent = text(`stage.${stage}`);
  const meaning = document.createElement("dd");
  meaning.textContent = text(`legend.${stage}`);
  return [term, meaning];
}

function diagram(measured, middleMs) {
  const longestMs = Math.max(...measured.map(({ stages }) => totalOf(stages)), middleMs);
  const scale = WIDTH / longestMs;
  const height = measured.length * ROW;
  const drawing = element("svg", { viewBox: `0 0 ${WIDTH} ${height}`, role: "img", class: "waterfall" });
  const spoken = measured.map(({ turn, stages }) => describe(turn, stages));
  drawing.setAttribute("aria-label", spoken.join(". "));
  measured.forEach(({ turn, stages }, row) => drawing.append(...drawRow(turn, stages, row * ROW, scale)));
  if (measured.length > 1) drawing.append(element("line", { x1: middleMs * scale, x2: middleMs * scale, y1: 0, y2: height, class: "middle" }));
  return drawing;
}

function drawRow(turn, stages, top, scale) {
  const label = element("text", { x: 0, y: top + LABEL_Y, class: "number" }, String(turn.number));
  const total = element("text", { x: WIDTH, y: top + LABEL_Y, class: "total" }, `${Math.round(totalOf(stages))} ms`);
  const bars = stages
    .filter(({ lengthMs }) => lengthMs > 0)
    .map(({ name, startMs, lengthMs }) => {
      const width = Math.max(1, lengthMs * scale - 1);
      const bar = element("rect", { x: startMs * scale, y: top + BAR_Y, width, height: BAR_HEIGHT, class: `stage-${name}` });
      bar.append(element("title", {}, `${text(`stage.${name}`)}: ${Math.round(lengthMs)} ms`));
      return bar;
    });
  return [label, total, ...bars];
}

function describe(turn, stages) {
  const parts = stages.map(({ name, lengthMs }) => `${text(`stage.${name}`)} ${Math.round(lengthMs)} ms`);
  return `${text("latency.turn", { number: turn.number, total: Math.round(totalOf(stages)) })} (${parts.join(", ")})`;
}
