// Keeps a part of the page fresh: <section data-live="/path"> is fetched every few seconds until it
// contains an element with data-settled.
const part = document.querySelector("[data-live]");
if (part) {
  const refresh = async () => {
    try {
      const response = await fetch(part.dataset.live, { headers: { Accept: "text/html" }, redirect: "manual" });
      // The session is over: the page itself says so.
      if (response.type === "opaqueredirect") return location.reload();
      if (response.ok) part.innerHTML = await response.text();
    } catch {
      // Not reached this time.
    }
    if (!part.querySelector("[data-settled]")) setTimeout(refresh, 3000);
  };
  setTimeout(refresh, 3000);
}
