// The admin API: requests, and streams of events that come back by themselves.

const BASE = new URL("../", location.href);
const KEY = "resumable-token";
const SILENT = 40000;

export class Refused extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

/** Something that the browser keeps, or, where it keeps nothing, this page. */
export function memory(name) {
  const own = new Map();
  const may = (what) => {
    try {
      return what(window[name]);
    } catch {
      return null;
    }
  };
  return {
    get: (key) => own.get(key) ?? may((storage) => storage.getItem(key)),
    set(key, value) {
      own.set(key, value);
      may((storage) => storage.setItem(key, value));
    },
    remove(key) {
      own.delete(key);
      may((storage) => storage.removeItem(key));
    },
  };
}

const session = memory("sessionStorage");

export const known = () => session.get(KEY);
export const keep = (token) => session.set(KEY, token);
export const forget = () => session.remove(KEY);

async function request(method, path, accept, signal) {
  const token = known();
  const headers = { Accept: accept, ...(token === null ? {} : { Authorization: `Bearer ${token}` }) };
  const answer = await fetch(new URL(path, BASE), { method, headers, signal, cache: "no-store", redirect: "error" });
  if (answer.ok) return answer;
  const problem = await answer.json().catch(() => ({}));
  throw new Refused(answer.status, problem.detail ?? `The server answered ${answer.status}.`);
}

/** The document that is answered; null: there is none. */
export async function call(method, path) {
  const answer = await request(method, path, "application/json");
  return answer.status === 204 ? null : answer.json();
}

async function* events(body, heard) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    heard();
    text += value;
    const blocks = text.split("\n\n");
    text = blocks.pop();
    for (const block of blocks) {
      const fields = Object.fromEntries(block.split("\n").map((line) => line.split(/: (.*)/s, 2)));
      if (fields.event) yield { event: fields.event, data: JSON.parse(fields.data) };
    }
  }
}

const pause = (time) => new Promise((resolve) => { setTimeout(resolve, time); });

/** Follow a stream until it ends for good. `on` has a function for each event, and `open`, `lost`, `refused`. Answers
 *  what ends it. */
export function follow(path, on) {
  let link = new AbortController();
  let over = false;
  const run = async () => {
    let wait = 500;
    while (!over) {
      link = new AbortController();
      const cut = link;
      let silence = 0;
      const heard = () => {
        clearTimeout(silence);
        silence = setTimeout(() => cut.abort(), SILENT);
      };
      try {
        heard();
        const answer = await request("GET", path, "text/event-stream", link.signal);
        if (answer.status === 204) return;
        on.open?.();
        wait = 500;
        for await (const { event, data } of events(answer.body, heard)) {
          if (over) return;
          on[event]?.(data);
          if (event === "end") return;
        }
      } catch (error) {
        if (over) return;
        if (error instanceof Refused && error.status < 500 && error.status !== 429) {
          on.refused?.(error);
          return;
        }
      } finally {
        clearTimeout(silence);
      }
      if (over) return;
      on.lost?.();
      await pause(wait);
      wait = Math.min(wait * 2, 8000);
    }
  };
  run();
  return () => {
    over = true;
    link.abort();
  };
}
