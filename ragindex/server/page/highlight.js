// Finds the words of a text that match the query, and the stretch of it that shows best why it answers.

import { make } from "./dom.js";

const WORD = /[\p{L}\p{N}][\p{L}\p{N}\p{M}_]*/gu;
const HUMP = /\p{Lu}+(?=\p{Lu}\p{Ll})|\p{Lu}?\p{Ll}+|\p{Lu}+|\p{N}+/gu;
const DENSE = /[\u3041-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\u0e00-\u0eff\u1000-\u109f\u1780-\u17d3]/;

const fold = (text) => text.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase();

/** Ranges {start, end, term} of `text`, in order and apart from each other, that match one of the terms. */
export function matches(text, terms) {
  const plain = [];
  const dense = [];
  for (const term of terms) (DENSE.test(term) ? dense : plain).push(fold(term));
  const found = [];
  for (const word of text.matchAll(WORD)) {
    if (DENSE.test(word[0])) found.push(...denseMatches(word, dense));
    else found.push(...plainMatches(word, plain));
  }
  return found;
}

function plainMatches(word, terms) {
  const [written] = word;
  const whole = fold(written).replaceAll("_", "");
  const term = terms.find((one) => related(whole, one));
  if (term !== undefined) return [{ start: word.index, end: word.index + written.length, term }];
  const found = [];
  if (/_|\p{Ll}\p{Lu}/u.test(written)) {  // an identifier: its parts are words too
    for (const part of written.matchAll(HUMP)) {
      const match = terms.find((one) => related(fold(part[0]), one));
      const start = word.index + part.index;
      if (match !== undefined) found.push({ start, end: start + part[0].length, term: match });
    }
  }
  return found;
}

function denseMatches(word, terms) {
  const found = [];
  const folded = word[0].length === fold(word[0]).length ? fold(word[0]) : word[0];
  const long = terms.filter((term) => term.length > 1);
  for (let at = 0; at < folded.length; at += 1) {
    const term = (long.length ? long : terms).find((one) => folded.startsWith(one, at));
    if (term === undefined) continue;
    const start = word.index + at;
    const last = found.at(-1);
    if (last && start <= last.end) last.end = Math.max(last.end, start + term.length);
    else found.push({ start, end: start + term.length, term });
  }
  return found;
}

/** Equal, or likely forms of one word: a long common beginning and short endings ("rotate", "rotation"). */
function related(one, other) {
  if (one === other || `${one}s` === other || one === `${other}s`) return true;
  const [short, long] = one.length <= other.length ? [one, other] : [other, one];
  if (short.length < 4 || long.length - short.length > 3 || /^\p{N}+$/u.test(other)) return false;
  let common = 0;
  while (common < short.length && short[common] === long[common]) common += 1;
  return common >= 4 && short.length - common <= 1;
}

/** The text as blocks, one for each of its lines, so that each reads in its own direction; ranges in <mark>. */
export function lines(text, ranges, kind = "") {
  const blocks = [];
  let at = 0;
  let next = 0;
  for (const line of text.split("\n")) {
    const end = at + line.length;
    const nodes = [];
    let place = at;
    while (next < ranges.length && ranges[next].start < end) {
      const from = Math.max(place, ranges[next].start);
      const to = Math.min(end, ranges[next].end);
      if (from > place) nodes.push(text.slice(place, from));
      if (to > from) nodes.push(make("mark", { class: kind, text: text.slice(from, to) }));
      place = Math.max(place, to);
      if (ranges[next].end > end) break;  // it goes on in the next line
      next += 1;
    }
    while (next < ranges.length && ranges[next].end <= end) next += 1;
    if (place < end) nodes.push(text.slice(place, end));
    blocks.push(make("div", { class: "textline", dir: "auto" }, nodes));
    at = end + 1;
  }
  return blocks;
}

/** The text for a glance: without blank lines and headings that are told above it, prose not broken where its file is. */
export function condensed(text, headings) {
  const told = new Set(headings.map((heading) => heading.trim()));
  const kept = text.split("\n").filter((line) => line.trim());
  while (kept.length > 1 && (told.has(bare(kept[0])) || !bare(kept[0]))) kept.shift();
  const flowing = [];
  for (const line of kept) {
    const last = flowing.at(-1);
    if (last !== undefined && PROSE_END.test(last) && PROSE_START.test(line) && last.length > 50) flowing[flowing.length - 1] = `${last} ${line.trim()}`;
    else flowing.push(line);
  }
  return flowing.join("\n");
}

const bare = (line) => line.replace(/^[\s#=*_~-]+|[\s#=*_~-]+$/g, "");
const PROSE_END = /[\p{L}\p{N},;–—'"”’)]$/u;
const PROSE_START = /^\s{0,3}[\p{L}("“‘]/u;

/** {start, end} of at most about `size` characters that hold most of the rarer terms; it begins with a line if it can. */
export function excerpt(text, ranges, size) {
  if (text.length <= size * 1.25) return { start: 0, end: text.length };
  const often = new Map();
  for (const { term } of ranges) often.set(term, (often.get(term) ?? 0) + 1);
  let best = { start: 0, score: 0 };
  for (const start of beginnings(text)) {
    const held = new Set(ranges.filter((range) => range.start >= start && range.end <= start + size).map((range) => range.term));
    const score = [...held].reduce((sum, term) => sum + 1 / often.get(term), 0);
    if (score > best.score + 1e-9) best = { start, score };
  }
  let end = Math.min(text.length, best.start + size);
  if (text.length - end < size * 0.25) end = text.length;
  else {
    const space = text.lastIndexOf(" ", end);
    if (space > best.start + size / 2) end = space;
  }
  return { start: best.start, end };
}

function* beginnings(text) {
  yield 0;
  for (const place of text.matchAll(/\n+|[.!?。！？]\s+/g)) yield place.index + place[0].length;
}
