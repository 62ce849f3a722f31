// Wires the page together: form and address bar, search, keys, dialogs.

import { get, post } from "./api.js";
import { openCoverage } from "./coverage.js";
import { byId, fill, make, plural } from "./dom.js";
import { openPassage, setUp as setUpPassage } from "./passage.js";
import { citation, hitItem, scaleOf } from "./results.js";
import * as address from "./state.js";

const form = byId("form");
let state = address.read();
let answered = null;  // {state, reply}: what the list shows
let rendered = {};  // what the list was made from, so that it is left alone while a document is open
let search = null;  // the AbortController of the search under way

function toForm() {
  form.elements.q.value = state.q;
  form.elements.mode.value = state.mode;
  form.elements.explain.checked = state.explain === "1";
  for (const name of address.FILTERS) form.elements[name].value = state[name];
  countFilters();
}

function fromForm() {
  const values = Object.fromEntries(address.FILTERS.map((name) => [name, form.elements[name].value]));
  return {
    ...state, ...values, q: form.elements.q.value.trim(), mode: form.elements.mode.value,
    explain: form.elements.explain.checked ? "1" : "", doc: "", start: "", end: "",
  };
}

function countFilters() {
  const active = address.changed(state).length;
  byId("filters-count").textContent = active ? `(${active})` : "";
}

function showFilters(shown) {
  byId("filters").hidden = !shown;
  byId("filters-toggle").setAttribute("aria-expanded", String(shown));
}

/** Make the page show `state`. */
async function show() {
  toForm();
  document.title = state.q ? `${state.q} – ragindex` : "ragindex";
  if (!state.q) {
    search?.abort();
    answered = null;
    clear();
    welcome();
  } else if (!answered || !address.sameQuestion(answered.state, state)) {
    await ask();
  } else {
    render();
  }
  showDocument();
}

async function ask() {
  search?.abort();
  search = new AbortController();
  const { signal } = search;
  const asked = state;
  byId("welcome").hidden = true;
  fill(byId("trouble"));
  byId("status").textContent = "Searching…";
  byId("hits").setAttribute("aria-busy", "true");
  const began = performance.now();
  try {
    const reply = await post("/api/search", address.request(asked), signal);
    answered = { state: asked, reply, milliseconds: performance.now() - began };
    render();
  } catch (error) {
    if (error.name === "AbortError") return;
    answered = null;
    clear();
    byId("status").textContent = "";
    fill(byId("trouble"), make("p", { class: "trouble" }, make("span", { dir: "auto", text: error.message }), " ",
      make("button", { type: "button", class: "quiet", text: "Try again", on: { click: ask } })));
  } finally {
    if (!signal.aborted) byId("hits").removeAttribute("aria-busy");
  }
}

function clear() {
  rendered = {};
  fill(byId("hits"));
  fill(byId("trouble"));
  byId("status").textContent = "";
}

function render() {
  const { reply, milliseconds } = answered;
  const scale = scaleOf(reply.hits);
  const explain = state.explain === "1";
  if (rendered.answered === answered && rendered.explain === explain) return;
  rendered = { answered, explain };
  fill(byId("trouble"));
  byId("status").textContent = reply.hits.length
    ? `${plural(reply.hits.length, "passage")} in ${milliseconds < 1000 ? `${Math.round(milliseconds)} ms` : `${(milliseconds / 1000).toFixed(1)} s`}`
    : "No passage found.";
  fill(byId("hits"), reply.hits.map((hit) => hitItem(hit, { explain, scale, open: openHit })));
  if (reply.hits.length === 0) advice();
}

function advice() {
  const clearing = address.changed(state).length > 0 && make("button", { type: "button", class: "quiet", text: "Clear filters", on: { click: clearFilters } });
  const tips = [
    state.mode === "lexical" && "Words finds only passages that share a word with the query; try Hybrid.",
    address.changed(state).length > 0 && "Filters are set and may leave nothing over.",
    "Look at “What is indexed” for whether the document was read at all.",
  ].filter(Boolean);
  fill(byId("trouble"), make("div", { class: "advice" }, make("ul", {}, tips.map((tip) => make("li", { text: tip }))), clearing));
}

function clearFilters() {
  go({ ...state, ...address.cleared() });
}

function go(next, options) {
  state = next;
  address.write(state, options);
  return show();
}

const openHit = (hit) => go({ ...state, doc: hit.path, start: String(hit.char_start), end: String(hit.char_end) });

/** The dialog of the document that the address names, or none. */
function showDocument() {
  const dialog = byId("passage");
  if (!state.doc) {
    if (dialog.open) dialog.close();
    return;
  }
  const start = Number(state.start) || 0;
  const end = Number(state.end) || start;
  const hit = answered?.reply.hits.find((one) => one.path === state.doc && one.char_start === start && one.char_end === end);
  openPassage({ path: state.doc, start, end, collection: state.collection, hit, label: hit ? citation(hit) : "" });
}

async function welcome() {
  const place = byId("welcome");
  place.hidden = false;
  try {
    const status = await get("/api/status", { collection: state.collection });
    byId("folder").textContent = status.store.split(/[\\/]/).at(-2) ?? "";
    showCollections(status.collections);
    fill(place, make("p", {},
      status.documents ? `${plural(status.documents, "document")} in ${plural(status.chunks, "passage")} can be searched` : "Nothing is indexed yet: run `ragindex index .` in the folder",
      status.failures > 0 && `; ${plural(status.failures, "file")} could not be read`, "."),
      make("p", { class: "note", text: "Questions are answered here; nothing is sent elsewhere." }));
  } catch (error) {
    fill(place, make("p", { class: "trouble", role: "alert", text: error.message }));
  }
}

function showCollections(names) {
  const choice = form.elements.collection;
  fill(choice, make("option", { value: "", text: "the server’s own" }), names.map((name) => make("option", { value: name, text: name })));
  choice.value = state.collection;
  byId("collections").hidden = names.length < 2;
}

function setUpForm() {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const next = fromForm();
    if (answered && address.sameQuestion(answered.state, next)) answered = null;  // asked again on purpose
    go(next);
  });
  form.addEventListener("change", (event) => {
    if (event.target.name === "explain") go(fromForm(), { replace: true });
    else if (event.target.name !== "q" && form.elements.q.value.trim()) go(fromForm());
    else {
      state = { ...fromForm(), q: state.q };
      countFilters();
    }
  });
  byId("filters-toggle").addEventListener("click", () => showFilters(byId("filters").hidden));
  byId("filters-clear").addEventListener("click", clearFilters);
  byId("home").addEventListener("click", (event) => {
    if (event.metaKey || event.ctrlKey || event.shiftKey) return;
    event.preventDefault();
    go({ ...address.read(), ...address.cleared(), q: "", doc: "", start: "", end: "" });
    byId("query").focus();
  });
}

function setUpDialogs() {
  for (const button of document.querySelectorAll("[data-close]")) {
    button.addEventListener("click", () => button.closest("dialog").close());
  }
  for (const dialog of document.querySelectorAll("dialog.sheet")) {
    dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });  // the backdrop
  }
  byId("passage").addEventListener("close", () => {
    const rank = answered?.reply.hits.find((hit) => hit.path === state.doc && String(hit.char_start) === state.start)?.rank;
    if (state.doc) go({ ...state, doc: "", start: "", end: "" }, { replace: true });
    if (rank) byId(`hit-${rank}`)?.focus();
  });
  byId("coverage-open").addEventListener("click", () => openCoverage({
    collection: state.collection,
    open: (path) => { byId("coverage").close(); go({ ...state, doc: path, start: "", end: "" }); },
  }));
}

function setUpKeys() {
  document.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey || document.querySelector("dialog[open]")) return;
    const typing = event.target.matches("input:not([type=radio]):not([type=checkbox]), select, textarea");
    if (event.key === "/" && !typing) {
      event.preventDefault();
      byId("query").focus();
      byId("query").select();
    } else if (event.key === "Escape" && event.target.closest("#hits")) {
      byId("query").focus();
    } else if (["ArrowDown", "ArrowUp"].includes(event.key) && (!typing || event.target.id === "query") && !event.target.matches("[type=radio]")) {
      move(event);
    }
  });
}

/** To the next hit or the one before; above the first is the search box. */
function move(event) {
  const hits = [...document.querySelectorAll("#hits .line .open")];
  if (hits.length === 0) return;
  const current = hits.findIndex((hit) => hit.closest("li").contains(event.target));
  if (event.target.id === "query" && event.key === "ArrowUp") return;
  event.preventDefault();
  const next = event.key === "ArrowDown" ? current + 1 : current - 1;
  if (next < 0) byId("query").focus();
  else hits[Math.min(next, hits.length - 1)].focus();
  document.activeElement.closest("li")?.scrollIntoView({ block: "nearest" });
}

addEventListener("popstate", () => {
  state = address.read();
  show();
});
setUpForm();
setUpDialogs();
setUpKeys();
setUpPassage();
if (address.changed(state).length) showFilters(true);
if (!state.q) byId("query").focus();
else get("/api/status").then((status) => {
  byId("folder").textContent = status.store.split(/[\\/]/).at(-2) ?? "";
  showCollections(status.collections);
}, () => {});  // the search says what is wrong
show();
