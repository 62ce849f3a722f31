// What is asked and what is open, as the address bar has it: every view can be linked to, and Back works.

const DEFAULTS = {
  q: "", mode: "hybrid", explain: "", within: "", language: "", filter: "", k: "10", diversity: "0", instruction: "",
  collection: "", doc: "", start: "", end: "",
};
export const ASKED = ["q", "mode", "within", "language", "filter", "k", "diversity", "instruction", "collection"];
export const FILTERS = ["within", "language", "filter", "k", "diversity", "instruction", "collection"];

export function read() {
  const given = new URLSearchParams(location.search);
  const state = Object.fromEntries(Object.entries(DEFAULTS).map(([name, value]) => [name, given.get(name) ?? value]));
  if (!["hybrid", "dense", "lexical"].includes(state.mode)) state.mode = DEFAULTS.mode;
  return state;
}

/** Go to a state; `replace` leaves no step to come back to. */
export function write(state, { replace = false } = {}) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(DEFAULTS)) {
    if (String(state[name] ?? "") !== value) query.set(name, state[name]);
  }
  const url = query.size ? `?${query}` : "/";
  if (url === (location.search || "/")) return;
  history[replace ? "replaceState" : "pushState"](null, "", url);
}

export const changed = (state) => FILTERS.filter((name) => state[name] !== DEFAULTS[name]);
export const cleared = () => Object.fromEntries(FILTERS.map((name) => [name, DEFAULTS[name]]));
export const sameQuestion = (one, other) => ASKED.every((name) => one[name] === other[name]);

const quoted = (text) => `'${text.replaceAll("'", "''")}'`;

/** The body of a search: the two simple filters become part of the expression. */
export function request(state) {
  const parts = [];
  const within = state.within.trim();
  if (within) parts.push(`path like ${quoted(pattern(within))}`);
  if (state.language.trim()) parts.push(`language = ${quoted(state.language.trim())}`);
  if (state.filter.trim()) parts.push(parts.length ? `(${state.filter.trim()})` : state.filter.trim());
  return {
    query: state.q,
    mode: state.mode,
    k: Math.min(200, Math.max(1, Math.trunc(Number(state.k)) || 10)),
    diversity: Math.min(1, Math.max(0, Number(state.diversity) || 0)),
    instruction: state.instruction === "" ? null : state.instruction,
    filter: parts.length ? parts.join(" and ") : null,
    collection: state.collection || null,
    explain: true,
  };
}

/** "ops" and "ops/" are a folder and what lies in it; * stands for anything. */
function pattern(within) {
  if (within.includes("*")) return within.includes("/") ? within.replaceAll("*", "%") : `%${within.replaceAll("*", "%")}`;
  return within.endsWith("/") ? `${within}%` : `%${within}%`;
}
