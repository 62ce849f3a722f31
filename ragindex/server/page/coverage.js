// What the index holds: counts, the encoder, files that failed and why, and the list of documents.

import { get } from "./api.js";
import { byId, bytes, count, fill, make, plural } from "./dom.js";

const PAGE = 50;

export async function openCoverage({ collection, open }) {
  const body = byId("coverage-body");
  fill(body, make("p", { class: "note", role: "status", text: "Loading…" }));
  const dialog = byId("coverage");
  if (!dialog.open) dialog.showModal();
  try {
    const [status, failures] = await Promise.all([
      get("/api/status", { collection }), get("/api/failures", { collection, limit: 200 }),
    ]);
    byId("coverage-place").textContent = status.store.replace(/[\\/][^\\/]*$/, "");
    fill(body, facts(status), failed(failures), documents({ collection, open }));
  } catch (error) {
    fill(body, make("p", { class: "trouble", role: "alert", text: error.message }));
  }
}

function facts(status) {
  const rows = [
    ["Documents", count(status.documents)],
    ["Passages", `${count(status.chunks)}, of at most ${count(status.chunk_tokens)} tokens`],
    ["Could not be read", count(status.failures)],
    ["Encoder", status.encoder ? `${name(status.encoder.name)}, ${status.encoder.dimensions} dimensions` : "none yet"],
    ["Collection", status.collections.length > 1 ? `${status.collection} (of ${status.collections.join(", ")})` : status.collection],
    ["On disk", Object.entries(status.bytes).map(([what, size]) => `${bytes(size)} ${what}`).join(", ")],
  ];
  return make("dl", { class: "facts" }, rows.flatMap(([what, value]) => [make("dt", { text: what }), make("dd", { dir: "auto", text: value })]));
}

const name = (encoder) => encoder.split("/").at(-1);

function failed(list) {
  if (list.total === 0) return make("p", { class: "good", text: "Every file could be read." });
  const rows = list.failures.map((row) => make("li", {}, make("bdi", { class: "path", text: row.path }), make("span", { class: "reason", dir: "auto", text: row.reason })));
  if (list.total > rows.length) rows.push(make("li", { text: `… and ${count(list.total - rows.length)} more; \`ragindex failures\` lists them all.` }));
  return make("details", { open: list.total <= 10 },
    make("summary", { text: `${plural(list.total, "file")} could not be read` }),
    make("ul", { class: "failures" }, rows));
}

function documents({ collection, open }) {
  const state = { contains: "", offset: 0 };
  const list = make("ul", { class: "documents" });
  const told = make("p", { class: "note", role: "status" });
  const button = (text, step) => make("button", { type: "button", class: "quiet", text, on: { click: () => { state.offset += step; show(); } } });
  const back = button("Earlier", -PAGE);
  const on = button("Further", PAGE);
  let latest = 0;

  async function show() {
    latest += 1;
    const own = latest;
    let found;
    try {
      found = await get("/api/documents", { collection, contains: state.contains, limit: PAGE, offset: state.offset });
    } catch (error) {
      told.textContent = error.message;
      return;
    }
    if (own !== latest) return;
    const last = state.offset + found.documents.length;
    told.textContent = found.total ? `${count(state.offset + 1)}–${count(last)} of ${plural(found.total, "document")}` : "No document matches.";
    back.hidden = state.offset === 0;
    on.hidden = last >= found.total;
    fill(list, found.documents.map((row) => make("li", {},
      make("button", { type: "button", class: "open", on: { click: () => open(row.path) } }, make("bdi", { class: "path", text: row.path })),
      make("span", { class: "reason", dir: "auto", text: row.title }),
      make("span", { class: "size", text: `${plural(row.chunks, "passage")}, ${bytes(row.size)}` }))));
  }

  const filter = make("input", { type: "search", id: "documents-filter", placeholder: "Part of a path or title", dir: "auto", spellcheck: "false", maxlength: 1000 });
  let waiting;
  filter.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => { state.contains = filter.value; state.offset = 0; show(); }, 150);
  });
  show();
  return make("section", { "aria-labelledby": "documents-title" },
    make("h3", { id: "documents-title", text: "Documents" }),
    make("label", { class: "hidden", for: "documents-filter", text: "Filter the documents" }), filter, told, list,
    make("div", { class: "actions" }, back, on));
}
