// Talks to the server; every failure becomes an Error whose message is one sentence.

import { byId } from "./dom.js";

const KEY = "ragindex-token";

export async function get(path, parameters = {}, signal) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    if (value !== undefined && value !== null && value !== "") query.set(name, value);
  }
  return call(query.size ? `${path}?${query}` : path, { signal });
}

export async function post(path, body, signal) {
  const headers = { "Content-Type": "application/json" };
  return call(path, { method: "POST", headers, body: JSON.stringify(body), signal });
}

async function call(path, options) {
  for (;;) {
    const token = sessionStorage.getItem(KEY);
    const headers = { ...options.headers, ...(token ? { Authorization: `Bearer ${token}` } : {}) };
    const reply = await answered(path, { ...options, headers });
    if (reply.status === 401) {
      if (sessionStorage.getItem(KEY) === token && !(await asked(token !== null))) {
        throw new Error("Without its token this server answers nothing.");
      }
      continue;
    }
    const value = await reply.json().catch(() => ({}));
    if (!reply.ok) throw new Error(value.error?.message ?? `The server answered with status ${reply.status}.`);
    return value;
  }
}

async function answered(path, options) {
  try {
    return await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server does not answer; is `ragindex serve` still running?");
  }
}

let asking = null;

/** Ask for the token; whether one was given. Several requests that fail at once ask one time. */
function asked(wrong) {
  asking ??= new Promise((resolve) => {
    const dialog = byId("token");
    byId("token-note").textContent = wrong ? "That was not the token; try again." : "It is kept until you close this tab.";
    byId("token-value").value = "";
    dialog.addEventListener("close", () => {
      const value = byId("token").returnValue === "given" ? byId("token-value").value.trim() : "";
      if (value) sessionStorage.setItem(KEY, value);
      asking = null;
      resolve(value !== "");
    }, { once: true });
    dialog.returnValue = "";
    dialog.showModal();
  });
  return asking;
}
