// The conversation as text: what the user said, settled and still moving; the reply, lit as far as it has been spoken.

import { text } from "../i18n.js";

const NEAR_THE_END_PX = 120;

export class TranscriptView {
  #list;
  #scroller;
  #announcer;
  #shown = new Map(); // turn number -> its parts

  constructor({ list, scroller, announcer }) {
    this.#list = list;
    this.#scroller = scroller;
    this.#announcer = announcer;
  }

  /** Show the turns; only what differs is touched, and the reader's place is kept unless he reads the end. */
  render(turns) {
    const follows = this.#scroller.scrollHeight - this.#scroller.scrollTop - this.#scroller.clientHeight < NEAR_THE_END_PX;
    const numbers = new Set(turns.map(({ number }) => number));
    for (const [number, parts] of this.#shown) {
      if (numbers.has(number)) continue;
      parts.item.remove();
      this.#shown.delete(number);
    }
    for (const turn of turns) this.#show(turn);
    if (follows) this.#scroller.scrollTop = this.#scroller.scrollHeight;
  }

  #show(turn) {
    let parts = this.#shown.get(turn.number);
    if (!parts) {
      if (!turn.userText && !turn.reply) return; // the user has not said a word yet
      parts = createParts();
      this.#shown.set(turn.number, parts);
      this.#list.append(parts.item);
    }
    const { finals, partial, typed } = turn.user;
    write(parts.userRole, text(typed ? "role.typed" : "role.user"));
    const settled = partial ? turn.userText.slice(0, turn.userText.length - partial.length) : turn.userText;
    write(parts.settled, settled);
    write(parts.partial, partial);
    parts.user.hidden = !turn.userText;
    this.#showReply(turn, parts);
    for (const picture of turn.pictures.slice(parts.pictures.children.length)) parts.pictures.append(createPicture(picture));
    if (finals.length && turn.marks.end && !parts.announced) {
      parts.announced = true;
      this.#announce(turn.userText);
    }
  }

  #showReply({ reply, fault }, parts) {
    parts.assistant.hidden = !reply?.text && !fault;
    if (parts.assistant.hidden) return;
    write(parts.assistantRole, text("role.assistant"));
    write(parts.heard, reply ? reply.text.slice(0, reply.heardLength) : "");
    write(parts.ahead, reply ? reply.text.slice(reply.heardLength) : "");
    write(parts.note, fault ? text("reply.failed", { message: fault }) : reply.cut ? `— ${text("reply.cut")}` : "");
    if (reply?.textEnded && !parts.answered) {
      parts.answered = true;
      this.#announce(reply.text);
    }
  }

  /** For a screen reader: whole texts only, not every word that moves. */
  #announce(words) {
    this.#announcer.textContent = words;
  }
}

function createParts() {
  const item = make("li", "turn");
  const [user, userRole, settled, partial] = createLine("user", "settled", "partial");
  const [assistant, assistantRole, heard, ahead] = createLine("assistant", "heard", "ahead");
  const note = make("span", "note");
  assistant.append(note);
  const pictures = make("div", "pictures");
  item.append(user, assistant, pictures);
  return { item, user, userRole, settled, partial, assistant, assistantRole, heard, ahead, note, pictures };
}

/** A picture that opens in a tab of its own, or why there is none. */
function createPicture({ url, prompt, message }) {
  if (!/^https?:/.test(url)) return Object.assign(make("span", "note"), { textContent: message });
  const image = Object.assign(make("img", "picture"), { src: url, alt: prompt });
  const link = Object.assign(make("a", "picture-link"), { href: url, target: "_blank", rel: "noreferrer" });
  link.append(image);
  return link;
}

/** One speaker's line: his name in the margin, then two spans of text. Only what he says is in `data-role`. */
function createLine(role, firstClass, secondClass) {
  const line = make("div", `line ${role}`);
  const name = make("span", "speaker");
  const said = make("p", "said");
  said.dataset.role = role;
  const first = make("span", firstClass);
  const second = make("span", secondClass);
  said.append(first, second);
  line.append(name, said);
  line.hidden = true;
  return [line, name, first, second];
}

function make(tag, className) {
  const element = document.createElement(tag);
  element.className = className;
  return element;
}

function write(element, words) {
  if (element.textContent !== words) element.textContent = words;
}
