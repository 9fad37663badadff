// Keeps a part of the page fresh: <section data-live="/path"> is fetched again every second while it says so.
const part = document.querySelector("[data-live]");
if (part) {
  const refresh = async () => {
    const response = await fetch(part.dataset.live, { headers: { Accept: "text/html" } });
    if (response.ok) part.innerHTML = await response.text();
    if (response.redirected || part.querySelector(".tag.active")) return;
    setTimeout(refresh, 1000);
  };
  setTimeout(refresh, 1000);
}
