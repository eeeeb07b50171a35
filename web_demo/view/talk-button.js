// Push-to-talk for every hand: hold it, or tap it to begin and tap it again to end. The space bar holds it from anywhere.

const TAP_MS = 350;
const TYPING = "input, textarea, select, button, a, [role=tab]";

export class TalkButton {
  #actions;
  #pressedAtMs = null;
  #latched = false;

  /** `begin()`, `end()`; `isActive()`: speaking now; `mayUseSpace()`: the space bar is free for it. */
  constructor(button, actions) {
    this.#actions = actions;
    button.addEventListener("pointerdown", (event) => {
      if (event.button !== 0 || button.disabled) return;
      button.setPointerCapture(event.pointerId);
      this.#press();
    });
    button.addEventListener("pointerup", () => this.#release());
    button.addEventListener("pointercancel", () => this.#release());
    button.addEventListener("contextmenu", (event) => event.preventDefault()); // a long press on a touch screen
    // A click without a pointer comes from assistive technology; one with it has been dealt with.
    button.addEventListener("click", (event) => {
      if (event.pointerType === "" && this.#pressedAtMs === null && event.detail === 0 && !this.#byKey) this.#toggle();
      this.#byKey = false;
    });
    document.addEventListener("keydown", (event) => this.#keyDown(event, button));
    document.addEventListener("keyup", (event) => this.#keyUp(event, button));
    addEventListener("blur", () => this.#release());
  }

  #byKey = false;

  #keyDown(event, button) {
    const onButton = event.target === button && (event.key === " " || event.key === "Enter");
    const anywhere = event.key === " " && !event.target.closest(TYPING) && this.#actions.mayUseSpace();
    if (!onButton && !anywhere) return;
    event.preventDefault();
    if (event.repeat || button.disabled) return;
    this.#byKey = true;
    this.#press();
  }

  #keyUp(event, button) {
    if (event.key !== " " && event.key !== "Enter") return;
    if (event.target === button) event.preventDefault();
    if (this.#byKey) this.#release();
    this.#byKey = false;
  }

  #press() {
    if (this.#latched) {
      this.#latched = false;
      this.#actions.end();
      return;
    }
    this.#pressedAtMs = performance.now();
    this.#actions.begin();
  }

  #release() {
    if (this.#pressedAtMs === null) return;
    const isTap = performance.now() - this.#pressedAtMs < TAP_MS;
    this.#pressedAtMs = null;
    if (isTap) this.#latched = true;
    else this.#actions.end();
  }

  #toggle() {
    this.#latched = !this.#actions.isActive();
    if (this.#latched) this.#actions.begin();
    else this.#actions.end();
  }
}
