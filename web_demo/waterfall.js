// Where the delay of a turn went: end of speech, text, first word, first audio, heard. Pure.

/** In the order in which they happen; each stage ends with the mark of its name. */
export const STAGES = ["text", "token", "audio", "heard"];

/**
 * The stages of a turn's marks as [{name, startMs, lengthMs}], relative to the end of speech; null until it was heard.
 *
 * Text that was final before the speech had ended costs nothing; a typed turn has no text stage. The lengths add up to
 * the total exactly: a mark that is missing or earlier than the one before it makes an empty stage.
 */
export function stagesOf(marks) {
  if (marks.end === undefined || marks.heard === undefined) return null;
  let fromMs = marks.end;
  return STAGES.map((name) => {
    const startMs = fromMs;
    fromMs = Math.max(fromMs, Math.min(marks[name] ?? fromMs, marks.heard));
    return { name, startMs: startMs - marks.end, lengthMs: fromMs - startMs };
  });
}

export function totalOf(stages) {
  return stages.reduce((sum, { lengthMs }) => sum + lengthMs, 0);
}

export function median(values) {
  if (values.length === 0) return null;
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}
