// Apply the user's colour theme before the first paint.
try {
  document.documentElement.dataset.theme = localStorage.getItem("session-gateway.theme") ?? "";
} catch {
  // Browsers can be set to block storage.
}
