// Runs before anything is painted, so that a chosen theme does not flash in.
(() => {
  try {
    const chosen = localStorage.getItem("herd-theme");
    if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
  } catch {
    // Storage may be off; then the system's theme is used.
  }
})();
