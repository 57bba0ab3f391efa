// Panels: parts of a page that read single calls and come after it. They are asked for again when
// the page is, but not more often than every few seconds.
import { drawAll } from "./charts.js";

const AGAIN_MS = 10000;
const asked = new Map(); // id → { url, at }
const shown = new WeakMap(); // panel → what it was filled with

async function load(panel) {
  const url = panel.dataset.panel;
  asked.set(panel.id, { url, at: Date.now() });
  panel.setAttribute("aria-busy", "true");
  try {
    const answer = await fetch(url, { headers: { Accept: "text/html" } });
    if (answer.status === 401) return location.reload();
    if (!answer.ok) throw new Error(`the server said ${answer.status}`);
    const html = await answer.text();
    if (shown.get(panel) === html) return;
    shown.set(panel, html);
    const open = [...panel.querySelectorAll("details[open]")].map((each) => each.id);
    const parsed = new DOMParser().parseFromString(html, "text/html");
    panel.replaceChildren(...parsed.body.childNodes);
    for (const id of open) if (id) document.getElementById(id)?.setAttribute("open", "");
    drawAll(panel);
  } catch (error) {
    if (panel.querySelector("table") === null) {
      const said = document.createElement("p");
      said.className = "empty bad";
      said.textContent = `This part did not load: ${error.message}. `;
      const again = document.createElement("button");
      again.type = "button";
      again.className = "quiet";
      again.textContent = "Try again";
      again.addEventListener("click", () => load(panel));
      said.append(again);
      panel.replaceChildren(said);
    }
  } finally {
    panel.removeAttribute("aria-busy");
  }
}

export function fill(root) {
  for (const panel of root.querySelectorAll("[data-panel]")) {
    const before = asked.get(panel.id);
    const fresh = before && before.url === panel.dataset.panel && Date.now() - before.at < AGAIN_MS;
    if (!fresh || panel.querySelector(".loading") !== null) load(panel);
  }
}
