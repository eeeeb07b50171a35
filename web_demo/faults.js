// What no one expected to fail, told to the person instead of only to the console.

/** Make of `act` a handler of gestures: what it raises, at once or later, is told by `tell(message)`. */
export function told(act, tell) {
  return async (...values) => {
    try {
      return await act(...values);
    } catch (error) {
      console.error(error);
      tell(error?.message || String(error));
      return undefined;
    }
  };
}

/** Tell whatever else fails in this page. */
export function tellFaults(tell) {
  addEventListener("error", ({ message }) => message && tell(message));
  addEventListener("unhandledrejection", ({ reason }) => tell(reason?.message || String(reason)));
}
