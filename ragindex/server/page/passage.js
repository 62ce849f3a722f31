// A passage in its document: the text around it, more on demand.

import { get } from "./api.js";
import { byId, copy, count } from "./dom.js";
import { lines } from "./highlight.js";

const AROUND = 2500;
const MOST = 50000;

let shown = null;

/** Show text[start:end] of a document. `hit` is known where it was opened from a list. */
export async function openPassage({ path, start, end, collection, hit, label }) {
  shown = { path, start, end, collection, hit, around: AROUND };
  byId("passage-title").textContent = path;
  byId("passage-place").textContent = label ?? "";
  byId("passage-copy").onclick = () => copy(byId("passage-copy"), hit ? label : path);
  byId("passage-note").textContent = "Loading…";
  byId("passage-text").replaceChildren();
  more(false, false);
  const dialog = byId("passage");
  if (!dialog.open) dialog.showModal();
  await load({ scroll: true });
}

async function load({ scroll }) {
  const wanted = shown;
  const { path, start, end, around, collection } = wanted;
  let found;
  try {
    found = await get("/api/document", { path, start, end, around, collection });
  } catch (error) {
    if (shown === wanted) byId("passage-note").textContent = error.message;
    return;
  }
  if (shown !== wanted) return;
  wanted.found = found;
  const changed = wanted.hit && wanted.hit.text !== found.passage;
  byId("passage-note").textContent = changed ? "This document has changed since the search; search again." : "";
  render(found);
  more(found.before_start > 0, found.after_end < found.characters);
  if (scroll) byId("passage-text").querySelector("mark")?.scrollIntoView({ block: "start" });
}

function render({ before, passage, after }) {
  const ranges = passage ? [{ start: before.length, end: before.length + passage.length }] : [];
  byId("passage-text").replaceChildren(...lines(before + passage + after, ranges, "passage"));
}

function more(before, after) {
  byId("passage-before").hidden = !before;
  byId("passage-after").hidden = !after;
}

/** Fetch a larger stretch, and keep what is read where it is on the screen. */
async function widen() {
  const body = byId("passage-body");
  const top = () => (byId("passage-text").querySelector("mark") ?? byId("passage-text")).getBoundingClientRect().top;
  const place = top();
  if (shown.around >= MOST) {
    const { found } = shown;
    byId("passage-note").textContent = `This is as much as is shown at once: ${count(found.after_end - found.before_start)} of ${count(found.characters)} characters.`;
    return;
  }
  shown.around = Math.min(MOST, shown.around * 3);
  await load({ scroll: false });
  body.scrollTop += top() - place;
}

export function setUp() {
  byId("passage-before").addEventListener("click", widen);
  byId("passage-after").addEventListener("click", widen);
}
