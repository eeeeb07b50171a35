// The voice line: the last seconds of loudness, the user's above it and the assistant's below. An interruption is where they meet.

const SECONDS = 6;
const COLUMN_PX = 3;
const GAP_PX = 2;

/** Loudness as the ear has it: 0 at -54 dB and below, 1 at full scale. */
function toHeight(rms) {
  return Math.max(0, Math.min(1, (20 * Math.log10(rms + 1e-6) + 54) / 54));
}

export class Strip {
  #canvas;
  #levels = []; // [user, assistant], newest last
  #user = 0;
  #assistant = () => 0;
  #colors = {};
  #still = matchMedia("(prefers-reduced-motion: reduce)");

  /** `assistant()` gives the loudness of what is played now. */
  constructor(canvas, assistant) {
    this.#canvas = canvas;
    this.#assistant = assistant;
    this.restyle();
    document.addEventListener("theme", () => this.restyle());
    setInterval(() => this.#step(), (SECONDS * 1000) / this.#columns);
  }

  /** The loudness of the microphone; it stands until the next. */
  set user(rms) {
    this.#user = rms;
  }

  /** Read the colours again: the theme has changed. */
  restyle() {
    const style = getComputedStyle(this.#canvas);
    this.#colors = { user: style.getPropertyValue("--ink"), assistant: style.getPropertyValue("--accent"), line: style.getPropertyValue("--rule") };
  }

  get #columns() {
    return Math.max(20, Math.min(160, Math.floor(this.#canvas.clientWidth / (COLUMN_PX + GAP_PX))));
  }

  #step() {
    this.#levels.push([toHeight(this.#user), toHeight(this.#assistant())]);
    this.#user *= 0.6; // a microphone that is closed fades away
    if (this.#levels.length > this.#columns) this.#levels.splice(0, this.#levels.length - this.#columns);
    if (!document.hidden) this.#draw();
  }

  #draw() {
    const scale = devicePixelRatio;
    const { clientWidth: width, clientHeight: height } = this.#canvas;
    if (this.#canvas.width !== width * scale || this.#canvas.height !== height * scale) {
      this.#canvas.width = width * scale;
      this.#canvas.height = height * scale;
    }
    const context = this.#canvas.getContext("2d");
    context.setTransform(scale, 0, 0, scale, 0, 0);
    context.clearRect(0, 0, width, height);
    const middle = Math.round(height / 2);
    context.fillStyle = this.#colors.line;
    context.fillRect(0, middle, width, 1);
    // Who asked for no motion sees the present loudness as two still bars instead of a moving line.
    if (this.#still.matches) this.#drawBars(context, width, middle);
    else this.#levels.forEach((levels, index) => this.#drawColumn(context, width - (this.#levels.length - index) * (COLUMN_PX + GAP_PX), middle, levels, COLUMN_PX));
  }

  #drawBars(context, width, middle) {
    const [user, assistant] = this.#levels.at(-1);
    context.fillStyle = this.#colors.user;
    context.fillRect(0, middle - 6, user * width, 4);
    context.fillStyle = this.#colors.assistant;
    context.fillRect(0, middle + 3, assistant * width, 4);
  }

  #drawColumn(context, x, middle, [user, assistant], width) {
    context.fillStyle = this.#colors.user;
    context.fillRect(x, middle - user * (middle - 2), width, user * (middle - 2));
    context.fillStyle = this.#colors.assistant;
    context.fillRect(x, middle + 1, width, assistant * (middle - 2));
  }
}
