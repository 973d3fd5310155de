// One picture of the last hour: a value now, a line or bars, and the value under the pointer.

import { h, s, say } from "./dom.js";
import { hour } from "./format.js";

const WIDTH = 360;
const HEIGHT = 64;

/** `series`: {name, kind: "area" | "line" | "bars", tone, of: document => values}; `format`: a value in words;
 *  `least`: what the axis reaches at least; `most`: document => where it ends; `total`: the value is the hour's sum. */
export function chart({ title, series, format, least, most, note, total }) {
  const value = h("p", { class: "value" });
  const under = h("p", { class: "note" });
  const shapes = s("g");
  const cursor = s("line", { class: "cursor", y1: 0, y2: HEIGHT, visibility: "hidden" });
  const picture = s("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" }, shapes, cursor);
  const top = h("span");
  const card = h("article", { class: "card" }, h("h2", {}, title), value, under, h("div", { class: "plot" }, picture), h("p", { class: "axis" }, h("span", {}, "1 h ago"), top, h("span", {}, "now")));
  let last = null;

  function words(index) {
    return series.map((each) => {
      const values = each.of(last);
      const found = values[index] ?? null;
      return found === null ? "not known" : format(found, each);
    });
  }

  const sums = () => series.map((each) => format(each.of(last).reduce((all, value) => all + (value ?? 0), 0)));

  function show(index) {
    const at = index ?? (last?.at.length ?? 0) - 1;
    if (at < 0) {
      say(value, "—");
      say(under, "the first point comes after 20 seconds");
      return;
    }
    const found = total && index === undefined ? sums() : words(at);
    value.replaceChildren(...found.map((text, number) => h("span", { "data-tone": series[number].tone }, text, series[number].name ? h("small", {}, series[number].name) : null)));
    say(under, index === undefined ? note?.(last) ?? "" : `at ${hour(last.at[at])}`);
  }

  function draw(document) {
    last = document;
    const step = WIDTH / (document.most - 1);
    const first = document.most - document.at.length;
    const sets = series.map((each) => each.of(document));
    const peak = Math.max(least ?? 1, most?.(document) ?? 0, ...sets.flat().map((each) => each ?? 0));
    const y = (number) => HEIGHT - 1 - (number / peak) * (HEIGHT - 4);
    const x = (index) => (first + index) * step;
    shapes.replaceChildren(...sets.flatMap((values, number) => {
      const { kind, tone } = series[number];
      if (kind === "bars") {
        return values.map((each, index) => (each ? s("rect", { "data-tone": tone, class: "fill", x: x(index) - step / 2, width: Math.max(step, 1.5), y: y(each), height: HEIGHT - y(each) }) : null)).filter(Boolean);
      }
      const runs = [];
      values.forEach((each, index) => {
        if (each === null) return;
        if (index === 0 || values[index - 1] === null) runs.push([]);
        runs.at(-1).push([x(index), y(each)]);
      });
      return runs.flatMap((run) => {
        const line = run.map(([across, down]) => `${across.toFixed(1)},${down.toFixed(1)}`).join("L");
        const stroke = s("path", { "data-tone": tone, class: "stroke", d: `M${line}` });
        if (kind === "line") return [stroke];
        return [s("path", { "data-tone": tone, class: "fill", d: `M${run[0][0].toFixed(1)},${HEIGHT}L${line}L${run.at(-1)[0].toFixed(1)},${HEIGHT}Z` }), stroke];
      });
    }));
    say(top, `up to ${format(peak, series[0])}`);
    const now = document.at.length ? (total ? sums() : words(document.at.length - 1)).map((text, number) => `${text} ${series[number].name}`).join(", ") : "no figures yet";
    picture.setAttribute("aria-label", `${title}: ${now}; at most ${format(peak, series[0])} in the last hour`);
    show();
  }

  picture.addEventListener("pointermove", (event) => {
    if (!last?.at.length) return;
    const box = picture.getBoundingClientRect();
    const place = Math.round(((event.clientX - box.left) / box.width) * (last.most - 1));
    const index = Math.max(0, Math.min(last.at.length - 1, place - (last.most - last.at.length)));
    const across = ((last.most - last.at.length + index) * WIDTH) / (last.most - 1);
    cursor.setAttribute("x1", across);
    cursor.setAttribute("x2", across);
    cursor.setAttribute("visibility", "visible");
    show(index);
  });
  picture.addEventListener("pointerleave", () => {
    cursor.setAttribute("visibility", "hidden");
    show();
  });
  show();
  return { card, draw };
}
