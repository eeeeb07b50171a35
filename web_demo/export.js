// Recognised sentences as text, SRT and JSON. Pure. A sentence is {text, beginMs, endMs, words}.

export function toText(sentences) {
  return sentences.map(({ text }) => `${text}\n`).join("");
}

export function toJson(sentences) {
  return `${JSON.stringify({ sentences }, null, 2)}\n`;
}

/** SubRip: numbered from 1, times as 00:00:01,250. */
export function toSrt(sentences) {
  return sentences.map(({ text, beginMs, endMs }, index) => `${index + 1}\n${srtTime(beginMs)} --> ${srtTime(endMs)}\n${text}\n`).join("\n");
}

function srtTime(totalMs) {
  const pad = (value, digits = 2) => String(value).padStart(digits, "0");
  const seconds = Math.floor(totalMs / 1000);
  return `${pad(Math.floor(seconds / 3600))}:${pad(Math.floor(seconds / 60) % 60)}:${pad(seconds % 60)},${pad(Math.round(totalMs) % 1000, 3)}`;
}
