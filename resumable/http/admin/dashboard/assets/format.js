// Figures as people read them.

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

export function bytes(size) {
  if (size === null || size === undefined) return "unknown";
  let unit = 0;
  let left = size;
  while (left >= 1000 && unit < UNITS.length - 1) {
    left /= 1024;
    unit += 1;
  }
  return `${unit && left < 10 ? left.toFixed(1) : Math.round(left)} ${UNITS[unit]}`;
}

export const rate = (size) => `${bytes(size)}/s`;

export function percent(share) {
  if (share === null) return "";
  return `${Math.floor(Math.max(0, Math.min(1, share)) * 100)} %`;
}

export function span(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min`;
  if (whole < 86400) return `${Math.floor(whole / 3600)} h`;
  return `${Math.floor(whole / 86400)} d`;
}

export const since = (time) => (Date.now() - Date.parse(time)) / 1000;

export function moment(time) {
  return new Date(time).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" });
}

export const hour = (time) => new Date(time).toLocaleTimeString(undefined, { hour: "2-digit", minute: "2-digit" });

export const count = (number) => Math.round(number).toLocaleString();

export function plural(number, one, many = `${one}s`) {
  return `${count(number)} ${number === 1 ? one : many}`;
}

/** What its client called it; its id where it has no name. */
export function nameOf(upload) {
  const name = upload.metadata.filename ?? upload.metadata.name;
  return typeof name === "string" && name.trim() ? name : upload.id;
}

/** "10M" and the like as bytes; null: it is none. */
export function size(text) {
  const match = /^\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?\s*$/i.exec(text);
  return match ? Math.round(Number(match[1]) * 1024 ** " kmgt".indexOf(match[2].toLowerCase() || " ")) : null;
}
