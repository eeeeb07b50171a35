// Estimates how much of a reply's text the user has heard from how much of its audio has been played. Pure functions.
//
// The server does not send word times, so the text is measured by how long it takes to say: a Han character is a
// syllable, and an average English word of five letters is about one and a half. For a finished reply the estimate is
// exact at both ends. While audio is still arriving, the pace of the audio so far is used.

const HAN = /\p{Script=Han}/u;
const FIRST_GUESS_MS_PER_UNIT = 62; // a Latin letter at 170 words a minute

/** The time to say a character, in units of one Latin letter. Punctuation counts for the pause after it. */
function spokenUnits(character) {
  if (HAN.test(character)) return 3.5;
  if (/[.!?。！？\n]/.test(character)) return 5;
  if (/[,;:，；：、]/.test(character)) return 3;
  if (/\p{N}/u.test(character)) return 4;
  return 1;
}

export function totalUnits(text) {
  let units = 0;
  for (const character of text) units += spokenUnits(character);
  return units;
}

/**
 * Return how many UTF-16 units of `text` have been spoken at `playedMs`, rounded down to a word.
 *
 * `totalMs` is the length of all audio if `complete`, else of the audio received so far (a lower bound).
 */
export function spokenLength(text, { playedMs, totalMs, complete }) {
  if (playedMs <= 0) return 0;
  if (complete && playedMs >= totalMs) return text.length;
  const all = totalUnits(text);
  const msPerUnit = complete ? totalMs / all : Math.max(FIRST_GUESS_MS_PER_UNIT, 0.8 * (totalMs / all));
  let units = playedMs / msPerUnit;
  let length = 0;
  for (const character of text) {
    units -= spokenUnits(character);
    if (units < 0) break;
    length += character.length;
  }
  return wordStart(text, length);
}

/** Move back from the middle of a Latin word to its beginning. Han characters are words themselves. */
function wordStart(text, length) {
  const isInside = (at) => at > 0 && at < text.length && /[\p{L}\p{N}'’]/u.test(text[at]) && !HAN.test(text[at]);
  let end = length;
  while (isInside(end) && /[\p{L}\p{N}'’]/u.test(text[end - 1]) && !HAN.test(text[end - 1])) end -= 1;
  return end;
}
