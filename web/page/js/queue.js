// All uploads of this page: whose turn it is, what the network and the screen do meanwhile.
import { chosen, looksLike, sample } from './source.js'
import * as server from './server.js'
import { Sending } from './sending.js'
import { Store } from './store.js'
import { keep, kept } from './words.js'

const AT_ONCE = 3 // requests with bytes: HTTP/1.1 has six connections
const PARTS = 'resumable-parts'
const LIVE = new Set(['queued', 'looking', 'sending', 'processing', 'waiting', 'locked'])
const GOES_ON = new Set(['queued', 'looking', 'sending', 'processing', 'waiting'])

export class Queue {
  /** `changed(sending, was)` is called after each change of an upload; `was`: its state before, null for a new one. */
  constructor(changed) {
    this.changed = changed
    this.all = []
    this.store = new Store(server.BASE)
    this.most = Infinity
    this.offline = false
    const back = () => this.all.forEach((each) => each.again())
    addEventListener('online', back)
    addEventListener('beforeunload', (event) => {
      if (this.all.some((each) => GOES_ON.has(each.state))) event.preventDefault()
    })
    document.addEventListener('visibilitychange', () => {
      this.stayAwake()
      if (!document.hidden && this.offline) back()
    })
    setInterval(() => this.all.forEach((each) => each.check(performance.now())), 5000)
  }

  /** What this browser remembers, less what another tab has. */
  async load() {
    const [records, elsewhere] = [await this.store.all(), await this.store.elsewhere()]
    records.sort((one, other) => (one.created < other.created ? -1 : 1))
    for (const record of records) if (!elsewhere.has(record.id)) this.enter(record)
    server.maxSize().then((most) => (this.most = most))
    await Promise.all(this.in('unfinished').map((each) => this.look(each)))
  }

  /** How far an unfinished upload really is. */
  async look(sending) {
    const urls = sending.record.urls ?? [sending.record.url]
    if (!urls[0]) return
    const offsets = await Promise.all(urls.map(server.offsetOf))
    if (sending.state !== 'unfinished' || offsets.includes(null)) return
    sending.sent = offsets.reduce((sum, each) => sum + Math.max(0, each), 0)
    if (sending.record.url && sending.sent === sending.size) return sending.succeeded(null)
    this.changed(sending, sending.state)
  }

  enter(record) {
    const sending = new Sending(record, {
      store: this.store,
      changed: (each, was) => this.moved(each, was),
      ended: () => this.next(),
      wantsParts: () => this.parts,
    })
    this.all.push(sending)
    this.changed(sending, null)
    return sending
  }

  get parts() {
    return kept(PARTS) === 'yes'
  }

  set parts(on) {
    keep(PARTS, on ? 'yes' : null)
  }

  in(...states) {
    return this.all.filter((each) => states.includes(each.state))
  }

  moved(sending, was) {
    if (sending.state === 'removed') this.all = this.all.filter((each) => each !== sending)
    if (sending.state === 'waiting' && sending.problem?.key === 'offline') this.offline = true
    else if (sending.state === 'sending' && sending.sent > (sending.attemptFrom ?? 0)) this.offline = false
    this.changed(sending, was)
    if (sending.state !== was) {
      this.next()
      this.stayAwake()
    }
  }

  /** Let those run whose turn it is. */
  next() {
    for (;;) {
      const first = this.all.find((each) => each.state === 'queued')
      const free = AT_ONCE - this.all.reduce((sum, each) => sum + (each.running ? each.parts : 0), 0)
      if (!first || free <= 0 || (free < AT_ONCE && first.parts > free)) return
      first.run() // it is no longer queued when this returns
    }
  }

  /** New files, or ones that are unfinished: [{file, path}]. Answers {added, duplicates}. */
  async add(files) {
    const [fresh, duplicates] = [[], []]
    for (const { file, path } of files) {
      const alike = this.all.filter((each) => !each.finished && looksLike(file, each.record))
      if (alike.some((each) => each.file && each.record.path === path)) {
        duplicates.push(file.name)
        continue
      }
      const again = await this.match(file, alike.filter((each) => !each.file))
      if (again) again.take(file)
      else fresh.push(this.create(file, path))
    }
    await this.store.put(...fresh.map((each) => ({ ...each.record })))
    fresh.forEach((each) => this.admit(each))
    return { added: files.length - duplicates.length, duplicates }
  }

  async match(file, alike) {
    for (const each of alike) {
      if (!each.record.sample || each.record.sample === (await sample(file).catch(() => ''))) return each
    }
    return null
  }

  create(file, path) {
    const { name, size, type, lastModified: modified } = file
    const id = crypto.randomUUID?.() ?? `${Date.now()}-${Math.random().toString(36).slice(2)}`
    const record = { id, name, size, type, modified, path, offset: 0, url: null, urls: null, sample: null }
    const sending = this.enter({ ...record, digest: null, state: 'open', created: new Date().toISOString() })
    sending.file = file
    return sending
  }

  admit(sending) {
    if (sending.size > this.most) sending.set('failed', { key: 'tooLarge', values: { bytes: this.most } }, true)
    else sending.set('queued')
  }

  /** Whether this file is the unfinished upload's: null, and it goes on; or the message that says why not. */
  async chooseAgain(sending, file) {
    const { record } = sending
    const name = record.name
    if (file.name !== name) return { key: 'otherName', values: { name, other: file.name } }
    if (file.size !== record.size) return { key: 'otherSize', values: { name, otherBytes: file.size, bytes: record.size } }
    if (record.sample && (await sample(file).catch(() => '')) !== record.sample) return { key: 'otherContent', values: { name } }
    if (file.lastModified !== record.modified) return { key: 'otherTime', values: { name, time: file.lastModified } }
    sending.take(file)
    return null
  }

  addChosen(list) {
    return this.add(chosen(list))
  }

  unlock() {
    this.in('locked').forEach((each) => each.again('locked'))
  }

  /** The screen stays on while something is sent, so that the computer doesn't fall asleep. */
  async stayAwake() {
    const wanted = !document.hidden && this.all.some((each) => each.running || each.state === 'queued')
    if (wanted && !this.awake) {
      this.awake = true
      try {
        this.lock = await navigator.wakeLock?.request('screen')
        this.lock?.addEventListener('release', () => (this.awake = false))
      } catch {
        this.awake = false // the battery is low, or the browser has no such thing
      }
    } else if (!wanted && this.lock) {
      this.lock.release().catch(() => {})
      this.lock = null
      this.awake = false
    }
  }

  get live() {
    return this.all.filter((each) => LIVE.has(each.state))
  }
}
