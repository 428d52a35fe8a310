// The colours that the user has chosen, before anything is painted.
try {
  document.documentElement.dataset.theme = localStorage.getItem("session-gateway.theme") ?? "";
} catch {
  // A browser may be told to keep nothing.
}
