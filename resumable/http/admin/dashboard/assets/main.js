// The dashboard: who may see it, then everything on it.

import { Refused, call, follow, forget, keep, known, memory } from "./api.js";
import * as detail from "./detail.js";
import { at, say } from "./dom.js";
import * as health from "./health.js";
import * as table from "./table.js";

let begun = false;

function banner(text) {
  const place = at("banner");
  place.hidden = false;
  place.dataset.kind = "wrong";
  say(place, text);
}

function theme() {
  const settings = memory("localStorage");
  const chosen = settings.get("resumable-theme");
  if (chosen) document.documentElement.dataset.theme = chosen;
  at("theme").addEventListener("click", () => {
    const dark = document.documentElement.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
    const other = dark === "dark" ? "light" : "dark";
    document.documentElement.dataset.theme = other;
    settings.set("resumable-theme", other);
  });
}

/** Ask for the token until one is right. */
function login(wrong) {
  const dialog = at("login");
  say(at("token-wrong"), wrong);
  dialog.oncancel = (event) => event.preventDefault();
  at("token-form").onsubmit = async (event) => {
    event.preventDefault();
    keep(at("token").value.trim());
    at("token").value = "";
    dialog.close();
    await begin();
  };
  if (!dialog.open) dialog.showModal();
}

function refused(error) {
  if (error.status !== 401) {
    banner(error.message);
    return;
  }
  const tried = known() !== null;
  forget();
  login(tried ? "That isn't the token." : "");
}

/** Once for a page: all that heeds what somebody does. */
async function beginAll() {
  begun = true;
  await health.begin();
  table.begin(detail.show, () => {});
  detail.begin();
}

async function begin() {
  try {
    const status = await call("GET", "v1/status");
    at("banner").hidden = true;
    health.drawStatus(status);
    if (begun) table.restart();
    else await beginAll();
    table.counts(status);
    table.offer(health.remoteNames());
  } catch (error) {
    if (error instanceof Refused) refused(error);
    else {
      banner("The server doesn't answer. Trying again.");
      setTimeout(begin, 3000);
    }
    return;
  }
  follow("v1/status", {
    status(document) {
      health.drawStatus(document);
      table.counts(document);
      table.offer(health.remoteNames());
    },
    lost: health.drawLost,
    refused,
  });
}

theme();
begin();
