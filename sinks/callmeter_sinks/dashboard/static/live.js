// Live figures: one stream says that something has changed, then the page asks for itself again and
// takes over the parts that differ. Focus, open tables and the cursor on a chart stay where they are.
import { drawAll } from "./charts.js";
import { fill } from "./panels.js";

const SPACING_MS = 1000;
const LONGEST_WAIT_MS = 30000;
const served = new Map(); // id → the part as the server sent it

let state = null;
let stream = null;
let paused = false;
let waiting = null;
let lastMs = 0;
let busy = false;
let dirty = false;
let wait = 2000;

function say(text, kind) {
  if (state.text.textContent !== text) state.text.textContent = text;
  state.box.dataset.kind = kind;
}

function parts(root) {
  // What is in a panel is the panel's business.
  const every = [...root.querySelectorAll("[data-live][id]")];
  return every.filter((part) => part.closest("[data-panel]") === null);
}

function remember(root) {
  for (const part of parts(root)) served.set(part.id, part.outerHTML);
}

function takeOver(page) {
  state.box.dataset.seen = page.getElementById("live").dataset.seen;
  const now = parts(document);
  const then = parts(page);
  const same = now.length === then.length && now.every((part, place) => part.id === then[place].id);
  if (!same) {
    const main = document.querySelector("main");
    served.clear();
    remember(page);
    main.replaceChildren(...page.querySelector("main").childNodes);
    drawAll(document);
    return;
  }
  now.forEach((part, place) => {
    const next = then[place];
    const html = next.outerHTML;
    if (served.get(part.id) === html) return;
    served.set(part.id, html);
    if (part.dataset.chart && next.dataset.chart) {
      part.dataset.chart = next.dataset.chart;
      drawAll(part.parentElement);
    } else {
      swap(part, next);
    }
  });
}

function swap(part, next) {
  const focused = part.contains(document.activeElement) ? document.activeElement : null;
  const place = focused ? [...part.querySelectorAll("a,button,summary")].indexOf(focused) : -1;
  const open = [...part.querySelectorAll("details[open][id]")].map((each) => each.id);
  part.replaceWith(next);
  for (const id of open) document.getElementById(id)?.setAttribute("open", "");
  if (place >= 0) next.querySelectorAll("a,button,summary")[place]?.focus();
}

async function refresh() {
  waiting = null;
  if (busy) {
    dirty = true;
    return;
  }
  busy = true;
  dirty = false;
  lastMs = Date.now();
  try {
    const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
    if (answer.status === 401) return location.reload();
    if (!answer.ok) throw new Error(`the server said ${answer.status}`);
    takeOver(new DOMParser().parseFromString(await answer.text(), "text/html"));
    fill(document);
    if (!paused) say("Live", "on");
  } catch (error) {
    say(`Not up to date: ${error.message}`, "off");
  } finally {
    busy = false;
    if (dirty) soon();
  }
}

function soon() {
  dirty = true;
  if (paused || document.hidden || waiting !== null) return;
  waiting = setTimeout(refresh, Math.max(0, lastMs + SPACING_MS - Date.now()));
}

function open() {
  if (stream !== null || paused || document.hidden) return;
  const seen = encodeURIComponent(state.box.dataset.seen);
  stream = new EventSource(`${state.box.dataset.stream}?seen=${seen}`);
  stream.addEventListener("open", () => {
    wait = 2000;
    say("Live", "on");
  });
  stream.addEventListener("changed", soon);
  stream.addEventListener("error", () => {
    say("Connection lost, trying again", "off");
    if (stream === null || stream.readyState !== EventSource.CLOSED) return;
    // The server answered with an error, so the browser will not come again by itself.
    stream = null;
    setTimeout(open, wait);
    wait = Math.min(wait * 2, LONGEST_WAIT_MS);
  });
}

// A hidden page lets its connection go: a browser has few for one host, and many tabs want one.
function close() {
  stream?.close();
  stream = null;
}

export function follow(box) {
  if (box === null) return;
  state = { box, text: box.querySelector(".live-state") };
  remember(document);
  box.hidden = false;
  const button = box.querySelector("button");
  button.addEventListener("click", () => {
    paused = !paused;
    button.setAttribute("aria-pressed", String(paused));
    button.textContent = paused ? "Go on" : "Pause";
    if (paused) {
      close();
      say("Paused", "paused");
    } else {
      open();
      soon();
    }
  });
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) {
      close();
    } else {
      open();
      soon();
    }
  });
  addEventListener("pagehide", close);
  addEventListener("pageshow", (event) => event.persisted && open());
  open();
}
