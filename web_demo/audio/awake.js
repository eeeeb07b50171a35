// Keeps an AudioContext running. A phone call, a screen lock, another app or a browser's policy may suspend it at any
// time (iOS calls that "interrupted"), and most browsers resume it only in a user's gesture.

const GESTURES = ["pointerdown", "pointerup", "touchend", "keydown", "click"];

/** Resume `context` at each gesture, when the page is seen again, and when it is suspended; until it is closed. */
export function keepAwake(context) {
  const closed = new AbortController();
  const options = { capture: true, passive: true, signal: closed.signal };
  const wake = () => {
    if (context.state === "closed") closed.abort();
    // Refused without a gesture: the next one tries again.
    else if (context.state !== "running" && !document.hidden) context.resume().catch(() => {});
  };
  for (const gesture of GESTURES) addEventListener(gesture, wake, options);
  for (const event of ["pageshow", "focus"]) addEventListener(event, wake, options);
  document.addEventListener("visibilitychange", wake, options);
  context.addEventListener("statechange", wake, options);
  wake();
}
