// The daemon as a whole: is it ready, four pictures of the last hour, its remotes and hooks, and the drain.

import { call } from "./api.js";
import { chart } from "./charts.js";
import { ask, at, h, say, tell } from "./dom.js";
import { bytes, count, percent, plural, rate, since, span } from "./format.js";

const POINT = 10000;

const sum = (values) => values.reduce((total, each) => total + (each ?? 0), 0);
const used = (document) => document.used.map((each, index) => (each === null || document.free[index] === null ? null : each / (each + document.free[index])));

const charts = [
  chart({
    title: "Throughput",
    series: [
      { name: "in", kind: "area", tone: "in", of: (document) => document.received },
      { name: "out", kind: "line", tone: "out", of: (document) => document.sent },
    ],
    format: (value) => rate(value),
    least: 1024,
    note: (document) => `${plural(document.appending.at(-1) ?? 0, "upload")} moving`,
  }),
  chart({
    title: "Lag",
    series: [{ name: "behind", kind: "area", tone: "lag", of: (document) => document.lag }],
    format: (value) => bytes(value),
    least: 1024 * 1024,
    note: (document) => {
      const seconds = document.lag_seconds.at(-1);
      return seconds ? `the oldest finished upload waits for ${span(seconds)}` : "no finished upload waits";
    },
  }),
  chart({
    title: "Disk",
    series: [{ name: "in use", kind: "area", tone: "disk", of: used }],
    format: (value) => percent(value),
    least: 1,
    note: (document) => `${bytes(document.free.at(-1))} are free`,
  }),
  chart({
    title: "Errors",
    series: [
      { name: "at remotes", kind: "bars", tone: "lag", of: (document) => document.retries },
      { name: "answers 5xx", kind: "bars", tone: "bad", of: (document) => document.failed },
    ],
    format: (value) => count(value),
    least: 5,
    total: true,
    note: (document) => `in the last hour, and ${plural(sum(document.complaints), "error")} in the log`,
  }),
];

let started = null;
let draining = false;
let lastHooks = {};
let lastRemotes = [];

export async function drawHistory() {
  const document = await call("GET", "v1/history");
  for (const each of charts) each.draw(document);
}

function place(kind, name, state, lines, action) {
  return h("article", { class: "place", "data-state": state }, h("h3", {}, h("span", { class: "kind" }, kind), " ", name), h("p", {}, lines), action);
}

function drawPlaces() {
  const remotes = lastRemotes.map((each) => {
    const parked = each.replicas?.parked ?? 0;
    const lines = [
      each.state === "down" ? `down, next try in ${span(each.next_try ?? 0)}` : "up",
      each.lag === null ? null : each.lag.bytes ? `${bytes(each.lag.bytes)} behind` : "nothing behind",
      each.active ? `${count(each.active)} active` : null,
      each.queued ? `${count(each.queued)} queued` : null,
      parked ? `${count(parked)} parked` : null,
    ].filter(Boolean).join(" · ");
    const action = parked ? h("button", { type: "button", class: "small", onclick: () => retryAll(each.name, parked) }, "Retry parked") : null;
    return place("remote", each.name, each.state === "down" ? "bad" : parked ? "warn" : "good", lines, action);
  });
  const hooks = Object.entries(lastHooks).map(([name, each]) => {
    const lines = `${count(each.waiting)} waiting · ${plural(each.dead, "dead event")}`;
    const action = each.dead ? h("button", { type: "button", class: "small", onclick: () => replay(name, each.dead) }, "Replay") : null;
    return place("hook", name, each.dead ? "bad" : each.waiting > 100 ? "warn" : "good", lines, action);
  });
  const whole = at("places");
  if (whole.contains(document.activeElement)) return; // it would take the focus away
  whole.hidden = remotes.length + hooks.length === 0;
  whole.replaceChildren(...remotes, ...hooks);
}

async function doIt(work, done) {
  try {
    tell(done(await work()));
  } catch (error) {
    tell(error.message, true);
  }
}

async function replay(name, dead) {
  const sure = await ask({
    title: `Replay the dead events of ${name}?`,
    text: [`${plural(dead, "event")} will be delivered again, with the same ids.`],
    confirm: "Replay",
  });
  if (!sure) return;
  await doIt(() => call("POST", `v1/hooks/${encodeURIComponent(name)}/replay`), (found) => `${plural(found.replayed, "event")} will be delivered again.`);
  await drawHooks();
}

async function retryAll(name, parked) {
  const sure = await ask({ title: `Retry everything parked for ${name}?`, text: [`${plural(parked, "replica")} will be sent again.`], confirm: "Retry" });
  if (!sure) return;
  await doIt(() => call("POST", `v1/retry?remote=${encodeURIComponent(name)}`), (found) => `${plural(found.restarted, "replica")} will be sent again${found.more ? "; there are more" : ""}.`);
}

export async function drawHooks() {
  lastHooks = (await call("GET", "v1/hooks")).hooks;
  drawPlaces();
}

export const deadHooks = () => Object.entries(lastHooks).filter(([, each]) => each.dead).map(([name]) => name);
export const remoteNames = () => lastRemotes.map((each) => each.name);

export function drawStatus(document) {
  started = document.started_at;
  draining = document.draining;
  lastRemotes = document.remotes;
  const wrong = Object.entries(document.wrong).filter(([name]) => !(name === "drain" && draining));
  const pill = at("ready");
  pill.dataset.kind = wrong.length ? "bad" : draining ? "warn" : "good";
  say(pill, wrong.length ? `not ready: ${wrong.map(([name, why]) => `${name}, ${why}`).join("; ")}` : draining ? "draining" : "ready");
  const button = at("drain");
  button.hidden = false;
  say(button, draining ? "End the drain" : "Drain");
  say(at("about"), `${document.version} · up ${span(since(started))}`);
  drawPlaces();
}

export function drawLost() {
  const pill = at("ready");
  pill.dataset.kind = "bad";
  say(pill, "connection lost, trying again");
}

async function drain() {
  const sure = await ask(draining
    ? { title: "End the drain?", text: ["New uploads are accepted again."], confirm: "End the drain" }
    : { title: "Drain this server?", text: ["New uploads are refused (503) until you end the drain. Those that have begun go on.", "Where several servers share their uploads, it is a drain of all of them."], confirm: "Drain", danger: true });
  if (!sure) return;
  await doIt(() => call(draining ? "DELETE" : "PUT", "v1/drain"), (found) => (found.draining ? `Draining: ${plural(found.unfinished, "unfinished upload")} left.` : "New uploads are accepted again."));
}

export function begin() {
  at("cards").replaceChildren(...charts.map((each) => each.card));
  at("drain").addEventListener("click", drain);
  const again = () => Promise.all([drawHistory(), drawHooks()]).catch(() => {});
  setInterval(() => { if (!document.hidden) again(); }, POINT);
  document.addEventListener("visibilitychange", () => { if (!document.hidden) again(); });
  return again();
}
