// One upload: how far it is in each place, what happened to it, what its client said, and what can be done with it.

import { call, follow } from "./api.js";
import { ask, at, bar, h, say, tell } from "./dom.js";
import { bytes, moment, nameOf, percent, plural, rate, since, span } from "./format.js";
import { deadHooks } from "./health.js";
import { speedOf, stateOf } from "./table.js";

let current = null;
let stop = null;
let parts = null;
const seen = new Map();

function line(list, name, value) {
  if (value === null || value === undefined || value === "") return;
  list.append(h("dt", {}, name), h("dd", {}, value));
}

const when = (time, words) => [time, words];

/** What happened, the newest first. */
function history(upload, dead) {
  const told = [
    when(upload.created_at, `begun with ${upload.protocol === "draft" ? "the IETF draft" : "tus"}${upload.owner === null ? "" : ` by ${upload.owner}`}`),
    when(upload.finished_at, "received completely"),
    ...upload.replicas.map((each) => when(each.stored_at, `stored in ${each.remote}`)),
    when(upload.stored_at, "stored in every required remote"),
    when(upload.gone_at, upload.gone ?? "gone"),
    ...(seen.get(upload.id) ?? []),
    ...dead.map((each) => when(each.dead_since ?? each.time, `the event "${each.event}" for the hook ${each.hook} was given up after ${plural(each.attempts, "attempt")}${each.error ? `: ${each.error}` : ""}`)),
  ];
  if (upload.state === "uploading" && upload.touched_at !== upload.created_at) told.push(when(upload.touched_at, `last received something; ${bytes(upload.durable)} are durable`));
  return told.filter(([time]) => time).sort(([one], [other]) => (one < other ? 1 : -1));
}

async function deadOf(id) {
  const found = await Promise.all(deadHooks().map(async (hook) => {
    const { dead } = await call("GET", `v1/hooks/${encodeURIComponent(hook)}/dead`);
    return dead.filter((each) => each.upload === id).map((each) => ({ ...each, hook }));
  }));
  return found.flat();
}

function notice(before, upload) {
  if (before === null || before.id !== upload.id) return;
  const told = seen.get(upload.id) ?? [];
  const now = new Date().toISOString();
  if (before.appending !== upload.appending) told.push([now, upload.appending ? `a request goes on at ${bytes(upload.offset)}` : `the request ended at ${bytes(upload.offset)}`]);
  upload.replicas.forEach((each, number) => {
    const last = before.replicas[number];
    if (last && each.error !== null && (last.error !== each.error || last.attempts !== each.attempts)) told.push([now, `${each.remote}: ${each.error}`]);
    if (last && last.state !== each.state && each.state !== "stored") told.push([now, `${each.remote}: ${each.state}`]);
  });
  seen.set(upload.id, told.slice(-20));
}

function build() {
  const title = h("h2", { id: "detail-title" });
  const state = h("span", { class: "state" });
  const summary = h("p", { class: "summary" });
  const places = h("div", { class: "copies" });
  const actions = h("div", { class: "choices" });
  const facts = h("dl", { class: "facts" });
  const said = h("dl", { class: "facts" });
  const saidTitle = h("h3", {}, "Metadata");
  const events = h("ol", { class: "events" });
  const close = h("button", { type: "button", class: "quiet close", "aria-label": "Close", onclick: () => at("detail").close() }, "✕");
  at("detail").replaceChildren(
    h("div", { class: "head" }, h("div", {}, title, h("p", {}, state, " ", summary)), close),
    h("h3", {}, "Where it is"), places, actions,
    h("h3", {}, "History"), events,
    saidTitle, said,
    h("h3", {}, "Record"), facts,
  );
  parts = { title, state, summary, places, actions, facts, said, saidTitle, events, local: bar("received"), copies: new Map(), dead: [] };
}

function copies(upload) {
  const whole = upload.length;
  const share = whole === null ? null : whole === 0 ? 1 : upload.durable / whole;
  parts.local.set(share, whole ? upload.received / whole : share, share === null ? bytes(upload.received) : percent(share), "in");
  const where = { here: "kept here", placed: `placed at ${upload.placed}`, dropped: "no longer here" }[upload.local] ?? "removed";
  const rows = [h("div", { class: "copy" }, h("p", {}, h("b", {}, "this server"), " ", h("span", { class: "soft-text" }, `${bytes(upload.durable)} durable, ${where}`)), parts.local.whole)];
  for (const each of upload.replicas) {
    if (!parts.copies.has(each.remote)) parts.copies.set(each.remote, bar(`stored in ${each.remote}`));
    const progress = parts.copies.get(each.remote);
    const far = each.state === "stored" ? 1 : whole ? each.confirmed / whole : 0;
    progress.set(far, whole ? each.sent / whole : 0, percent(far), each.state === "parked" ? "bad" : each.error !== null && each.state === "open" ? "warn" : "out");
    const words = [each.state, each.required ? null : "optional", each.lag && each.state === "open" ? `${bytes(each.lag)} behind` : null, each.attempts ? `${plural(each.attempts, "failed attempt")}` : null, each.retry_at && each.state === "open" ? `next in ${span(-since(each.retry_at))}` : null].filter(Boolean).join(", ");
    rows.push(h("div", { class: "copy" }, h("p", {}, h("b", {}, each.remote), " ", h("span", { class: "soft-text" }, words)), progress.whole,
      each.error ? h("p", { class: "error" }, each.error) : null, each.location || each.key ? h("p", { class: "soft-text code" }, each.location ?? each.key) : null));
  }
  parts.places.replaceChildren(...rows);
}

async function act({ question, method, path, done, closes }) {
  if (!(await ask(question))) return;
  try {
    tell(done(await call(method, path)));
    if (closes) at("detail").close();
  } catch (error) {
    tell(error.message, true);
  }
}

function actions(upload) {
  const id = encodeURIComponent(upload.id);
  const name = nameOf(upload);
  const possible = [];
  if (upload.replicas.some((each) => each.state === "parked")) {
    possible.push(["Retry", "", { question: { title: "Retry the parked replicas?", text: [`${name} is sent again to each remote that it was given up for.`], confirm: "Retry" }, method: "POST", path: `v1/uploads/${id}/retry`, done: (found) => `${plural(found.restarted, "replica")} will be sent again.` }]);
  }
  if (upload.state === "uploading" || upload.state === "assembling") {
    possible.push(["Stop", "danger", { question: { title: "Stop this upload?", text: [`${name}: its client is answered 410, and ${bytes(upload.durable)} are removed.`, "This can't be undone."], confirm: "Stop the upload", danger: true }, method: "POST", path: `v1/uploads/${id}/stop`, done: () => `${name} was stopped.` }]);
  } else if (upload.state !== "gone") {
    possible.push(["Delete", "danger", { question: { title: "Delete this upload?", text: [`${name}, ${bytes(upload.length)}: from here, and from its remotes unless the server keeps objects.`, "This can't be undone."], confirm: "Delete the upload", danger: true }, method: "DELETE", path: `v1/uploads/${id}`, done: () => `${name} was deleted.`, closes: true }]);
  }
  const key = possible.map(([word]) => word).join() + upload.id;
  if (parts.actions.dataset.key === key) return;
  parts.actions.dataset.key = key;
  parts.actions.replaceChildren(...possible.map(([word, kind, what]) => h("button", { type: "button", class: kind, onclick: () => act(what) }, word)));
}

function metadata(upload) {
  const pairs = Object.entries(upload.metadata);
  parts.saidTitle.hidden = pairs.length === 0;
  parts.said.replaceChildren();
  for (const [name, value] of pairs) line(parts.said, name, typeof value === "string" ? value || "(empty)" : `${value.base64} (base64)`);
}

function facts(upload) {
  const list = parts.facts;
  list.replaceChildren();
  line(list, "ID", h("code", {}, upload.id));
  line(list, "Size", upload.length === null ? "unknown until the client says it" : `${bytes(upload.length)} (${upload.length.toLocaleString()} bytes)`);
  line(list, "Protocol", upload.protocol === "draft" ? "IETF draft" : "tus");
  line(list, "Owner", upload.owner);
  line(list, "Digest", upload.digest && h("code", {}, upload.digest));
  line(list, "Announced", upload.announced && h("code", {}, upload.announced));
  line(list, "Placed at", upload.placed);
  line(list, "Object", upload.object);
  line(list, "Expires", upload.expires_at && moment(upload.expires_at));
}

function draw(upload) {
  const before = current;
  notice(before, upload);
  current = upload;
  say(parts.title, nameOf(upload));
  const [kind, word] = stateOf(upload);
  parts.state.dataset.kind = kind;
  say(parts.state, word);
  const fast = speedOf(upload);
  say(parts.summary, [upload.length === null ? null : bytes(upload.length), fast === null ? null : rate(fast), fast && upload.length ? `${span((upload.length - upload.received) / fast)} left` : null].filter(Boolean).join(" · "));
  copies(upload);
  actions(upload);
  metadata(upload);
  facts(upload);
  parts.events.replaceChildren(...history(upload, parts.dead).map(([time, words]) => h("li", {}, h("time", { datetime: time }, moment(time)), h("span", {}, words))));
}

/** Show one upload until the drawer is closed. */
export function show(id) {
  const dialog = at("detail");
  stop?.();
  current = null;
  build();
  if (!dialog.open) dialog.showModal();
  remember(id);
  stop = follow(`v1/uploads/${encodeURIComponent(id)}`, {
    upload: draw,
    refused(error) {
      say(parts.title, error.message);
    },
  });
  deadOf(id).then((dead) => {
    parts.dead = dead;
    if (current !== null) draw(current);
  }).catch(() => {});
}

function remember(id) {
  if (location.hash !== `#${id}`) window.history.replaceState(null, "", `#${id}`);
}

export function begin() {
  const dialog = at("detail");
  dialog.addEventListener("close", () => {
    stop?.();
    stop = null;
    window.history.replaceState(null, "", location.pathname + location.search);
  });
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  const named = location.hash.slice(1);
  if (/^[A-Za-z0-9._~-]+$/.test(named)) show(named);
}
