// The list of uploads, live: its filters, its rows, and how fast each of them moves.

import { call, follow } from "./api.js";
import { at, bar, h, say } from "./dom.js";
import { bytes, count, nameOf, percent, plural, rate, since, size, span } from "./format.js";

const TABS = [
  ["", "All"], ["uploading", "Uploading"], ["finished", "Finished"], ["stored", "Stored"], ["parked", "Parked"], ["gone", "Gone"],
];
const STEPS = [100, 300, 1000];
const STILL = 4000;

const rows = new Map();
const uploads = new Map();
const speeds = new Map();
const wanted = { tab: "", owner: "", remote: "", min_size: "", idle: "", created: "", order: "newest", step: 0 };
let stop = null;
let open = () => {};
let onChange = () => {};
let remotes = [];

/** How far an upload is in the remotes that must have it; null: there are none. */
export function storedShare(upload) {
  const those = upload.replicas.filter((each) => each.required);
  const all = those.length ? those : upload.replicas;
  if (!all.length) return null;
  const whole = upload.length ?? Math.max(upload.received, 1);
  if (!whole) return all.every((each) => each.state === "stored") ? 1 : 0;
  return Math.min(...all.map((each) => each.confirmed)) / whole;
}

export function trouble(upload) {
  if (upload.replicas.some((each) => each.state === "parked")) return "bad";
  return upload.replicas.some((each) => each.error !== null && each.state === "open") ? "warn" : null;
}

export function stateOf(upload) {
  if (upload.state === "gone") return ["gone", upload.gone ?? "gone"];
  if (upload.replicas.some((each) => each.state === "parked")) return ["bad", "parked"];
  if (upload.state === "uploading") return upload.appending ? ["moving", "uploading"] : ["waiting", "waiting"];
  if (upload.state === "finished" && upload.replicas.some((each) => each.required)) return ["storing", "storing"];
  return ["done", upload.state];
}

/** Set both bars of an upload. */
export function setBars(upload, received, stored) {
  const whole = upload.length;
  const gone = upload.state === "gone";
  const share = whole === null ? null : whole === 0 ? 1 : upload.durable / whole;
  received.set(share, whole ? upload.received / whole : share, share === null ? bytes(upload.received) : percent(share), gone ? "gone" : "in");
  const far = storedShare(upload);
  if (far === null) stored.set(null, 0, gone ? "" : "here only", "none");
  else stored.set(far, 0, percent(far), gone ? "gone" : trouble(upload) ?? "out");
}

function measure(upload) {
  const now = performance.now();
  const known = speeds.get(upload.id);
  if (known === undefined) {
    speeds.set(upload.id, { bytes: upload.received, at: now, value: 0 });
    return;
  }
  if (upload.received > known.bytes) {
    const fresh = ((upload.received - known.bytes) * 1000) / Math.max(now - known.at, 250);
    speeds.set(upload.id, { bytes: upload.received, at: now, value: known.value ? known.value * 0.6 + fresh * 0.4 : fresh });
  }
}

export function speedOf(upload) {
  const known = speeds.get(upload.id);
  if (upload.state !== "uploading" || !upload.appending || !known?.value || performance.now() - known.at > STILL) return null;
  return known.value;
}

function make(id) {
  const name = h("button", { type: "button", class: "name", onclick: () => open(id) });
  const under = h("span", { class: "id" });
  const state = h("span", { class: "state" });
  const received = bar("received");
  const stored = bar("stored in remotes");
  const whole = h("td", { class: "number" });
  const speed = h("td", { class: "number speed" });
  const owner = h("td", { class: "owner" });
  const touched = h("td", { class: "number touched" });
  const row = h("tr", {}, h("td", { class: "what" }, name, under), h("td", { class: "how" }, state), h("td", { class: "far" }, received.whole), h("td", { class: "far" }, stored.whole), whole, speed, owner, touched);
  row.addEventListener("click", (event) => { if (!event.target.closest("button") && !getSelection().toString()) open(id); });
  return {
    row,
    set(upload) {
      const [kind, word] = stateOf(upload);
      const called = nameOf(upload);
      say(name, called === id ? id.slice(0, 12) : called);
      name.title = called;
      say(under, called === id ? "no name" : id.slice(0, 8));
      state.dataset.kind = kind;
      say(state, word);
      setBars(upload, received, stored);
      say(whole, upload.length === null ? "unknown" : bytes(upload.length));
      const fast = speedOf(upload);
      say(speed, fast === null ? "" : rate(fast));
      say(owner, upload.owner ?? "—");
      say(touched, upload.appending ? "now" : span(since(upload.gone_at ?? upload.touched_at)));
    },
  };
}

const searched = () => at("search").value.trim().toLowerCase();

function matches(upload) {
  const text = searched();
  return !text || [nameOf(upload), upload.id, upload.owner ?? ""].some((each) => each.toLowerCase().includes(text));
}

function arrange() {
  const sign = wanted.order === "newest" ? -1 : 1;
  const sorted = [...uploads.values()].filter(matches).sort((one, other) => sign * (one.created_at < other.created_at ? -1 : one.created_at > other.created_at ? 1 : 0));
  const body = at("rows");
  let before = body.firstElementChild;
  for (const upload of sorted) {
    let made = rows.get(upload.id);
    if (made === undefined) {
      made = make(upload.id);
      rows.set(upload.id, made);
      made.set(upload);
    }
    if (made.row === before) before = before.nextElementSibling;
    else body.insertBefore(made.row, before);
  }
  while (before !== null) {
    const next = before.nextElementSibling;
    before.remove();
    before = next;
  }
  const moving = sorted.filter((each) => each.appending).length;
  say(at("shown"), sorted.length ? `${plural(sorted.length, "upload")}${moving ? `, ${count(moving)} moving` : ""}` : "");
  const empty = at("empty");
  empty.hidden = sorted.length > 0;
  if (!sorted.length) say(empty, uploads.size ? "Nothing in the list matches the search." : anything() ? "No upload matches these filters." : "No uploads yet. They appear here as soon as a client begins one.");
}

const anything = () => ["tab", "owner", "remote", "min_size", "idle", "created"].some((each) => wanted[each] !== "");

function take(upload) {
  measure(upload);
  uploads.set(upload.id, upload);
  rows.get(upload.id)?.set(upload);
  onChange(upload.id);
}

function query() {
  const given = new URLSearchParams({ limit: STEPS[wanted.step], order: wanted.order });
  if (wanted.tab === "parked") given.set("replica", "parked");
  else if (wanted.tab) given.set("state", wanted.tab === "uploading" ? "unfinished" : wanted.tab);
  if (wanted.owner) given.set("owner", wanted.owner);
  if (wanted.remote) given.set("remote", wanted.remote);
  const least = wanted.min_size ? size(wanted.min_size) : null;
  if (least !== null) given.set("min_size", least);
  const ago = (seconds) => new Date(Date.now() - seconds * 1000).toISOString();
  if (wanted.idle) given.set("idle_since", ago(Number(wanted.idle)));
  if (wanted.created) given.set("created_after", ago(Number(wanted.created)));
  return given;
}

/** Follow the list that is wanted now. */
export function restart() {
  stop?.();
  stop = follow(`v1/uploads?${query()}`, {
    uploads(page) {
      uploads.clear();
      for (const each of page.uploads) take(each);
      for (const id of rows.keys()) if (!uploads.has(id)) rows.delete(id);
      at("longer").hidden = page.next === null || wanted.step + 1 >= STEPS.length;
      arrange();
    },
    upload(upload) {
      const fresh = !uploads.has(upload.id);
      take(upload);
      if (fresh || searched()) arrange();
    },
    gone({ id }) {
      for (const each of [uploads, rows, speeds]) each.delete(id);
      arrange();
    },
    refused(error) {
      uploads.clear();
      rows.clear();
      arrange();
      say(at("empty"), error.message);
    },
  });
}

export function counts(document) {
  const found = document.uploads;
  const parked = document.remotes.reduce((total, each) => total + (each.replicas?.parked ?? 0), 0);
  for (const button of at("tabs").children) {
    const tab = button.dataset.tab;
    const number = found === null ? null : tab === "" ? found.uploading + found.assembling + found.finished + found.stored : tab === "uploading" ? found.uploading + found.assembling : tab === "parked" ? parked : found[tab];
    say(button.lastElementChild, number === null ? "" : count(number));
  }
}

function choose(tab) {
  wanted.tab = tab;
  for (const button of at("tabs").children) button.setAttribute("aria-pressed", String(button.dataset.tab === tab));
  restart();
}

function choice(name, label, options) {
  const select = h("select", { name }, options.map(([value, text]) => h("option", { value }, text)));
  return h("label", {}, label, select);
}

export function offer(names) {
  if (names.join() === remotes.join()) return;
  remotes = names;
  const select = at("filters").elements.remote;
  select.replaceChildren(h("option", { value: "" }, "any"), ...names.map((name) => h("option", { value: name }, name)));
  select.value = wanted.remote;
}

/** Begin. `opened` is called with the id of an upload that is chosen, `changed` with each that has changed. */
export function begin(opened, changed) {
  open = opened;
  onChange = changed;
  at("tabs").replaceChildren(...TABS.map(([tab, word]) => h("button", { type: "button", "data-tab": tab, "aria-pressed": String(tab === ""), onclick: () => choose(tab) }, word, " ", h("span", { class: "count" }))));
  const form = at("filters");
  form.replaceChildren(
    h("label", {}, "Owner", h("input", { name: "owner", autocomplete: "off", placeholder: "any" })),
    choice("remote", "Remote", [["", "any"]]),
    h("label", {}, "At least", h("input", { name: "min_size", autocomplete: "off", placeholder: "1G, 500M …", pattern: "\\s*\\d+(\\.\\d+)?\\s*[kKmMgGtT]?(i?[bB])?\\s*" })),
    choice("idle", "Silent for", [["", "any time"], ["60", "a minute"], ["3600", "an hour"], ["86400", "a day"]]),
    choice("created", "Begun within", [["", "any time"], ["3600", "an hour"], ["86400", "a day"], ["604800", "a week"]]),
    choice("order", "Order", [["newest", "newest first"], ["oldest", "oldest first"]]),
    h("button", { type: "reset", class: "quiet" }, "Clear"),
  );
  const heed = () => {
    if (!form.reportValidity()) return;
    for (const each of ["owner", "remote", "min_size", "idle", "created", "order"]) wanted[each] = form.elements[each].value.trim();
    wanted.step = 0;
    restart();
  };
  form.addEventListener("change", heed);
  form.addEventListener("submit", (event) => { event.preventDefault(); heed(); });
  form.addEventListener("reset", () => setTimeout(heed));
  at("more").addEventListener("click", () => {
    form.hidden = !form.hidden;
    at("more").setAttribute("aria-expanded", String(!form.hidden));
  });
  const search = at("search");
  search.addEventListener("input", arrange);
  search.addEventListener("keydown", async (event) => {
    const text = search.value.trim();
    if (event.key === "Enter" && text && !at("rows").children.length) {
      const found = await call("GET", `v1/uploads/${encodeURIComponent(text)}`).catch(() => null);
      if (found) open(found.id);
    }
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && !event.target.closest("input, select, dialog")) {
      event.preventDefault();
      search.focus();
    }
  });
  at("longer").addEventListener("click", () => { wanted.step += 1; restart(); });
  setInterval(() => { for (const upload of uploads.values()) rows.get(upload.id)?.set(upload); }, 2000);
  arrange();
  restart();
}
