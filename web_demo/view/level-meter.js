// The level meter: the loudness of the last 6 s, the user's above the line and the assistant's below. Both overlap at an interruption.

const SECONDS = 6;
const COLUMN_PX = 3;
const GAP_PX = 2;

/** Map an RMS level to a height on a decibel scale: 0 at -54 dB and below, 1 at full scale. */
function toHeight(rms) {
  return Math.max(0, Math.min(1, (20 * Math.log10(rms + 1e-6) + 54) / 54));
}

export class LevelMeter {
  #canvas;
  #levels = []; // [user, assistant], newest last
  #user = 0;
  #assistant = () => 0;
  #colors = {};
  #still = matchMedia("(prefers-reduced-motion: reduce)");

  /** `assistant()` returns the RMS level of the audio that is playing. */
  constructor(canvas, assistant) {
    this.#canvas = canvas;
    this.#assistant = assistant;
    this.restyle();
    document.addEventListener("theme", () => this.restyle());
    setInterval(() => this.#step(), (SECONDS * 1000) / this.#columns);
  }

  /** Set the microphone's RMS level. It decays by 40 % a step until the next value. */
  set user(rms) {
    this.#user = rms;
  }

  /** Read the colours from the style sheet, at the start and after the theme changed. */
  restyle() {
    const style = getComputedStyle(this.#canvas);
    this.#colors = { user: style.getPropertyValue("--ink"), assistant: style.getPropertyValue("--accent"), line: style.getPropertyValue("--rule") };
  }

  get #columns() {
    return Math.max(20, Math.min(160, Math.floor(this.#canvas.clientWidth / (COLUMN_PX + GAP_PX))));
  }

  #step() {
    this.#levels.push([toHeight(this.#user), toHeight(this.#assistant())]);
    this.#user *= 0.6; // decays after the microphone closes
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
    // With prefers-reduced-motion, draw two bars of the current level instead of a scrolling line.
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
