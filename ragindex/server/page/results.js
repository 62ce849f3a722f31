// The list of hits.

import { copy, make } from "./dom.js";
import { condensed, excerpt, lines, matches } from "./highlight.js";

const SIZE = 560;  // characters of an excerpt
const CAUTION = {
  instruction: "orders to a model",
  role: "a role or chat marker",
  "tool-call": "a tool call",
  hidden: "hidden characters",
};

export const citation = (hit) => {
  if (hit.page !== null) return `${hit.path}, page ${hit.page}`;
  return hit.line_start === hit.line_end ? `${hit.path}:${hit.line_start}` : `${hit.path}:${hit.line_start}-${hit.line_end}`;
};

export function where(hit) {
  if (hit.page !== null) return `page ${hit.page}`;
  return hit.line_start === hit.line_end ? `line ${hit.line_start}` : `lines ${hit.line_start}–${hit.line_end}`;
}

/** One hit; `open` is called with it. */
export function hitItem(hit, { explain, scale, open }) {
  const label = `hit-${hit.rank}`;
  const heading = hit.heading.length ? hit.heading : [hit.title].filter(Boolean);
  const body = make("div", { class: "excerpt" });
  showExcerpt(body, hit, false);
  const copying = make("button", { type: "button", class: "quiet", text: "Copy citation" });
  copying.addEventListener("click", () => copy(copying, citation(hit)));
  return make("li", { class: "hit" },
    make("article", { "aria-labelledby": label },
      make("div", { class: "line" },
        make("span", { class: "rank", text: hit.rank, aria: { hidden: "true" } }),
        make("button", { type: "button", class: "open", id: label, on: { click: () => open(hit) }, data: { rank: hit.rank } },
          make("bdi", { class: "path", text: hit.path }), " ", make("span", { class: "where", text: where(hit) })),
        make("span", { class: "score", title: "Score in this mode; higher is better", text: hit.score.toFixed(3) })),
      heading.length > 0 && make("p", { class: "heading" },
        heading.map((part, index) => [index > 0 && " › ", make("bdi", { text: part })]).flat()),
      body,
      hit.flags?.length > 0 && make("p", { class: "caution",
        text: `Caution: looks like text written for a language model (${hit.flags.map((flag) => CAUTION[flag] ?? flag).join(", ")}).` }),
      make("div", { class: "actions" },
        copying,
        hit.metadata.language && make("span", { class: "chip", text: hit.metadata.language }),
        hit.metadata.modified && make("span", { class: "chip", text: String(hit.metadata.modified).slice(0, 10) })),
      explain && explanation(hit, scale)));
}

/** The stretch that answers best; with `whole`, the passage as it stands. */
function showExcerpt(body, hit, whole) {
  const text = whole ? hit.text : condensed(hit.text, [...hit.heading, hit.title]);
  const ranges = matches(text, hit.explanation?.terms ?? []);
  const cut = whole ? { start: 0, end: text.length } : excerpt(text, ranges, SIZE);
  const inside = ranges
    .filter((range) => range.start >= cut.start && range.end <= cut.end)
    .map((range) => ({ ...range, start: range.start - cut.start, end: range.end - cut.start }));
  const blocks = lines(text.slice(cut.start, cut.end), inside);
  if (cut.start > 0) blocks[0].prepend("… ");
  if (cut.end < text.length) blocks.at(-1).append(" …");
  const differs = text.length !== hit.text.length || cut.end - cut.start < text.length;
  const more = (differs || whole) && make("button", {
    type: "button", class: "link", text: whole ? "Less" : "Whole passage", aria: { expanded: String(whole) },
    on: { click: () => { showExcerpt(body, hit, !whole); body.querySelector(".link")?.focus(); } },
  });
  body.replaceChildren(make("div", { class: "text" }, blocks), ...(more ? [more] : []));
}

/** How the hit came to its place. `scale` holds the largest score of each kind in this list. */
function explanation(hit, scale) {
  const told = hit.explanation ?? {};
  const row = (name, hint, score, rank, full) => make("tr", {},
    make("th", { scope: "row", text: name, title: hint }),
    make("td", { class: "bar" }, score !== null && make("meter", {
      min: 0, max: Math.max(full, 1e-6), value: Math.max(0, score), aria: { label: `${name} score ${score.toFixed(3)}` } })),
    make("td", { class: "number", text: score === null ? "–" : score.toFixed(3) }),
    make("td", { class: "place-in-list", text: rank === undefined ? "" : rank ? `place ${rank}` : "not among its candidates" }));
  const notes = [];
  if (told.dense_weight !== null && told.dense_weight !== undefined) {
    notes.push(`Of the whole, meaning counts ${Math.round(told.dense_weight * 100)} % and words ${Math.round((1 - told.dense_weight) * 100)} %.`);
  }
  if (told.terms?.length) notes.push(`Words found: ${told.terms.join(", ")}.`);
  else notes.push("None of the query’s words is in it.");
  if (told.merged?.length) notes.push(`Stands for ${told.merged.length} more that overlap or repeat it.`);
  if (told.sentence && told.sentence !== hit.text) notes.push(`Nearest sentence: “${told.sentence}”`);
  return make("div", { class: "why" },
    make("table", {},
      make("caption", { class: "hidden", text: "How this hit came to its place" }),
      make("tbody", {},
        row("Meaning", "Cosine of the encoder’s vectors", hit.scores.dense, told.dense_rank, scale.dense),
        row("Words", "BM25", hit.scores.lexical, told.lexical_rank, scale.lexical),
        hit.scores.fused !== null && row("Together", "Standardised and weighted by evidence", hit.scores.fused, undefined, scale.fused))),
    make("p", { text: notes.join(" ") }));
}

export function scaleOf(hits) {
  const largest = (name) => Math.max(0, ...hits.map((hit) => hit.scores[name] ?? 0));
  return { dense: 1, lexical: largest("lexical"), fused: largest("fused") };
}
