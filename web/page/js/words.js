// Words, numbers and times in the reader's language.
import { LANGUAGES, TABLES } from './messages.js'

const KEPT = 'resumable-language'
let language = first()
let plural = new Intl.PluralRules(language)

function first() {
  const asked = new URLSearchParams(location.search).get('lang')
  const wanted = [asked, kept(KEPT), ...navigator.languages].filter(Boolean)
  return wanted.map((each) => each.slice(0, 2).toLowerCase()).find((each) => each in LANGUAGES) ?? 'en'
}

/** A value that the browser keeps; null where it keeps none. */
export function kept(name, storage = 'localStorage') {
  try {
    return window[storage].getItem(name)
  } catch {
    return null
  }
}

export function keep(name, value, storage = 'localStorage') {
  try {
    if (value === null) window[storage].removeItem(name)
    else window[storage].setItem(name, value)
  } catch {
    // a browser that keeps nothing works all the same
  }
}

export const currentLanguage = () => language

export function setLanguage(name) {
  language = name
  plural = new Intl.PluralRules(name)
  keep(KEPT, name)
}

/** The message of this key, with its values put in. */
export function t(key, values = {}) {
  const table = TABLES[language]
  const text = table[key] ?? table[`${key}.${plural.select(values.n ?? 0)}`] ?? TABLES.en[key] ?? key
  return text.replace(/\{(\w+)\}/g, (whole, name) => {
    const value = values[name] ?? whole
    return typeof value === 'number' ? number(value) : value
  })
}

/** The text as one that no line ends in, such as a number and its unit. */
export const whole = (text) => text.replaceAll(' ', '\u00a0')
const formats = new Map()

/** Making a format takes longer than everything else that is done for a row. */
function format(options) {
  const key = JSON.stringify([language, options])
  if (!formats.has(key)) formats.set(key, new Intl.NumberFormat(language, options))
  return formats.get(key)
}

const number = (value, options) => whole(format(options).format(value))
const UNITS = ['byte', 'kilobyte', 'megabyte', 'gigabyte', 'terabyte', 'petabyte']

/** Bytes as people write them: 1.2 GB. */
export function size(bytes) {
  let step = 0
  while (bytes >= 999.95 && step < UNITS.length - 1) {
    bytes /= 1000
    step += 1
  }
  const maximumFractionDigits = step < 2 || bytes >= 100 ? 0 : 1
  const unitDisplay = step ? 'short' : 'long'
  return number(bytes, { style: 'unit', unit: UNITS[step], unitDisplay, maximumFractionDigits })
}

/** All digits of a number. */
export const exact = (value) => number(value)

/** A part of a whole: never 100 % before all is there. */
export function percent(part, whole) {
  const value = whole ? Math.floor((part / whole) * 100) / 100 : 1
  return number(Math.min(1, value), { style: 'percent' })
}

/** A duration, in one unit or two. */
export function duration(seconds) {
  const unit = (value, name) => number(value, { style: 'unit', unit: name, unitDisplay: 'short' })
  seconds = Math.max(1, Math.round(seconds))
  if (seconds < 60) return unit(seconds, 'second')
  const minutes = Math.round(seconds / 60)
  if (minutes < 60) return unit(minutes, 'minute')
  const hours = Math.floor(minutes / 60)
  if (hours < 48) return `${unit(hours, 'hour')} ${unit(minutes % 60, 'minute')}`
  return unit(Math.round(hours / 24), 'day')
}

export const when = (time) =>
  new Intl.DateTimeFormat(language, { dateStyle: 'medium', timeStyle: 'short' }).format(new Date(time))
