// Light or dark: the system's choice until the user makes one.

import { text } from "./i18n.js";

export function followTheme(settings, button) {
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (settings.get("theme") ? settings.get("theme") === "dark" : system.matches);
  const show = () => {
    document.documentElement.dataset.theme = isDark() ? "dark" : "light";
    button.setAttribute("aria-label", text(isDark() ? "theme.light" : "theme.dark"));
    button.textContent = isDark() ? "☀\uFE0E" : "☾\uFE0E";
    document.dispatchEvent(new Event("theme"));
  };
  button.addEventListener("click", () => settings.set("theme", isDark() ? "light" : "dark"));
  settings.addEventListener("change", show);
  system.addEventListener("change", show);
  document.addEventListener("language", show);
  show();
}
