// Elements, made and changed. Text is never parsed as HTML.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((each) => each !== null && each !== undefined && each !== false));
  return element;
}

export const h = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
export const s = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);
export const at = (id) => document.getElementById(id);

/** Set a text, unless it is that already: screen readers and the layout have less to do. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** A bar of up to two layers, each from 0 to 1. */
export function bar(label) {
  const soft = h("i", { class: "soft" });
  const full = h("i", { class: "full" });
  const track = h("span", { class: "track", role: "progressbar", "aria-label": label, "aria-valuemin": 0, "aria-valuemax": 100 }, soft, full);
  const text = h("span", { class: "share" });
  const whole = h("span", { class: "progress" }, track, text);
  return {
    whole,
    set(share, ahead, words, kind) {
      const part = Math.max(0, Math.min(1, share ?? 0));
      full.style.width = `${part * 100}%`;
      soft.style.width = `${Math.max(part, Math.min(1, ahead ?? 0)) * 100}%`;
      if (share === null) track.removeAttribute("aria-valuenow");
      else track.setAttribute("aria-valuenow", Math.floor(part * 100));
      track.setAttribute("aria-valuetext", words);
      if (whole.dataset.kind !== kind) whole.dataset.kind = kind;
      say(text, words);
    },
  };
}

/** Ask before something is done. Resolves to whether it was confirmed. */
export function ask({ title, text, confirm, danger }) {
  const dialog = at("ask");
  return new Promise((resolve) => {
    const done = (answer) => {
      dialog.onclose = null;
      if (dialog.open) dialog.close();
      resolve(answer);
    };
    const cancel = h("button", { type: "button", onclick: () => done(false) }, "Cancel");
    dialog.replaceChildren(
      h("h2", { id: "ask-title" }, title),
      ...text.map((line) => h("p", {}, line)),
      h("p", { class: "choices" }, cancel, h("button", { type: "button", class: danger ? "danger" : "primary", onclick: () => done(true) }, confirm)),
    );
    dialog.onclose = () => done(false);
    dialog.showModal();
    cancel.focus();
  });
}

let fading = 0;

/** Tell what came of an action. */
export function tell(text, wrong = false) {
  const banner = at("banner");
  banner.hidden = false;
  banner.dataset.kind = wrong ? "wrong" : "good";
  say(banner, text);
  clearTimeout(fading);
  fading = setTimeout(() => { banner.hidden = true; }, wrong ? 12000 : 5000);
}
