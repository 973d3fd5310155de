// One upload, from the file that was chosen to the receipt.
//
// Its states: `unfinished` (from an earlier visit; its file is to be chosen again), `queued`, `looking`, `sending`,
// `processing` (all bytes are sent, the server finishes), `paused`, `waiting` (goes on by itself), `locked` (needs a
// token), `failed` (somebody has to do something), `storing` (received; being copied to remotes), `done`.
// tus-js-client makes the requests; when to try again is decided here, because nothing but a person ends it.
import { Upload } from 'tus-js-client'
import * as server from './server.js'
import { sample } from './source.js'
import { keep, kept } from './words.js'
import { Watch } from './watch.js'

const DELAYS = [1, 2, 4, 8, 15, 30, 60]
const SMALLEST = 1 << 16
const FIRST_PIECE = 64 << 20
const LARGE = 64 << 20
const CHUNK = `resumable-chunk ${server.BASE}`
const FRESH = 3000
const PARTS = 3
const RUNNING = new Set(['looking', 'sending', 'processing'])
const OVERTAKEN = new Set([409, 423])
const WORDS = new Set(['title', 'detail'])
const PASSING = new Set([408, 425, 429])

export class Sending {
  /** `record`: what is kept of it. `changed` is called after each change, `ended` when its turn is over. */
  constructor(record, { store, changed, ended, wantsParts }) {
    this.record = record
    this.file = null
    this.state = record.state === 'done' ? (record.stored ? 'done' : 'storing') : 'unfinished'
    this.sent = record.offset
    this.received = null
    this.replicas = []
    this.problem = null // {key, values}: a message
    this.trouble = false // whether the problem is one that somebody has to do something about
    this.attempts = 0
    this.retryAt = 0
    this.speeds = []
    this.stuckAt = -1
    this.stuck = 0
    Object.assign(this, { store, changed, ended, wantsParts })
    this.watch = new Watch(this)
    if (this.state === 'storing') this.watch.start()
  }

  get running() {
    return RUNNING.has(this.state)
  }

  get finished() {
    return this.state === 'done' || this.state === 'storing'
  }

  get size() {
    return this.record.size
  }

  /** Bytes that the server has. It tells; the browser itself knows only what it gave away, which may be megabytes more. */
  get arrived() {
    if (this.finished) return this.size
    return Math.min(this.size, this.isTold ? Math.min(this.sent, this.received) : this.sent)
  }

  get isTold() {
    return this.received !== null && (!this.running || performance.now() - this.toldAt < FRESH)
  }

  set(state, problem = null, trouble = false) {
    const was = this.state
    this.state = state
    this.problem = problem
    this.trouble = trouble
    if (!this.running) this.speeds = []
    if (RUNNING.has(was) && !this.running) this.ended(this)
    this.changed(this, was)
  }

  /** Bytes a second over the last seconds; 0: not known. */
  get speed() {
    const now = performance.now()
    this.speeds = this.speeds.filter(([at]) => now - at < 8000)
    const [first, last] = [this.speeds[0], this.speeds.at(-1)]
    return first && last[0] - first[0] > 500 ? Math.max(0, ((last[1] - first[1]) / (last[0] - first[0])) * 1000) : 0
  }

  /** Take this file, which is the record's. */
  take(file) {
    this.file = file
    this.set('queued')
  }

  /** Begin, or go on; it is this upload's turn. */
  async run() {
    this.set('looking', this.problem?.key === 'smaller' || this.problem?.key === 'lost' ? this.problem : null)
    this.claimed ??= await this.store.claim(this.record.id)
    if (!this.claimed) return this.set('failed', { key: 'elsewhere' }, true)
    if (!this.record.sample) {
      try {
        this.record.sample = await sample(this.file)
      } catch {
        return this.unreadable()
      }
    }
    if (this.state !== 'looking') return // it was paused or removed meanwhile
    this.set('sending', this.problem)
    this.begin()
    this.watch.start()
  }

  /** How many requests of it carry bytes at once. */
  get parts() {
    const { size, url, urls } = this.record
    const large = size >= LARGE && this.wantsParts() && server.extensions.has('concatenation')
    return urls ? urls.length : large && !url ? PARTS : 1
  }

  begin() {
    const { record, parts } = this
    this.lastMoved = null
    const chunk = Number(kept(CHUNK, 'sessionStorage')) || Infinity
    this.upload?.abort()
    const upload = new Upload(this.file, {
      endpoint: record.url ? null : server.endpoint(),
      uploadUrl: parts > 1 ? null : record.url,
      parallelUploads: parts,
      chunkSize: chunk,
      retryDelays: null,
      httpStack: new server.Stack(),
      metadata: this.metadata(),
      fingerprint: () => Promise.resolve(record.id),
      urlStorage: this.urlStorage(() => this.upload === upload),
      onProgress: (sent) => this.upload === upload && this.progress(sent),
      onError: (error) => this.upload === upload && this.failed(error),
      onSuccess: ({ lastResponse }) => this.upload === upload && this.succeeded(lastResponse),
    })
    this.upload = upload
    this.chunk = chunk
    if (record.urls) upload.resumeFromPreviousUpload({ parallelUploadUrls: [...record.urls] })
    upload.start()
  }

  metadata() {
    const { name, type, path } = this.record
    return { filename: name, filetype: type || 'application/octet-stream', ...(path ? { relativePath: path } : {}) }
  }

  /** tus-js-client waits for `addUpload` before it sends a byte: nothing is sent that a killed browser would forget. */
  urlStorage(current) {
    return {
      findAllUploads: async () => [],
      findUploadsByFingerprint: async () => [],
      removeUpload: async () => {},
      addUpload: async (id, { uploadUrl, parallelUploadUrls }) => {
        if (!current()) return id
        this.record.url = uploadUrl ?? null
        this.record.urls = parallelUploadUrls ? [...parallelUploadUrls] : null
        await this.keep()
        return id
      },
    }
  }

  keep() {
    this.keptAt = performance.now()
    this.record.offset = this.arrived
    return this.store.put({ ...this.record })
  }

  progress(sent) {
    this.sent = sent
    if (this.attempts && sent > this.attemptFrom) this.attempts = 0
    this.speeds.push([performance.now(), this.arrived])
    this.lastMoved = performance.now()
    this.look()
  }

  /** All bytes are there when the server says so; when they are given away, where it says nothing. */
  look() {
    const all = server.hasStatus() && this.record.url ? this.received === this.size : this.sent === this.size
    if (all && this.state === 'sending') return this.set('processing')
    if (performance.now() - (this.keptAt ?? 0) > 2000) this.keep()
    this.changed(this, this.state)
  }

  /** What the server says of it. */
  told(status) {
    this.replicas = status.replicas ?? []
    if (status.received !== this.received) this.lastMoved = performance.now()
    if (status.digest) this.record.digest = status.digest
    if (status.finished_at) this.record.finished = status.finished_at
    if (!this.finished) {
      this.received = status.received
      this.toldAt = performance.now()
      this.speeds.push([this.toldAt, this.arrived])
      return this.look()
    }
    const state = this.replicas.some((each) => each.required && each.state !== 'stored') ? 'storing' : 'done'
    this.record.stored = state === 'done'
    this.record.copies = this.replicas.length
    this.store.put({ ...this.record })
    this.set(state)
  }

  /** The server tells nothing of what it does with the upload. */
  untold() {
    this.received = null
    if (this.state !== 'storing') return
    // What isn't known isn't claimed: it is received; whether its copies are stored is asked at the next visit.
    if (this.record.copies) this.record.copies = 0
    else this.record.stored = true
    this.store.put({ ...this.record })
    this.set('done')
  }

  succeeded(response) {
    const { record } = this
    record.url = this.upload?.url ?? record.url
    record.urls = null
    record.state = 'done'
    record.finished ??= new Date().toISOString()
    record.digest ??= response?.getHeader('Repr-Digest') ?? null
    this.upload = this.file = null
    this.sent = this.size
    this.keep()
    this.claimed?.release()
    this.set('storing')
    this.watch.start()
  }

  async failed(error) {
    const response = error.originalResponse
    const status = response?.getStatus() ?? 0
    const method = error.originalRequest?.getMethod()
    const problem = read(response?.getBody() ?? '')
    const pause = Number(response?.getHeader('Retry-After')) || 0
    this.upload?.abort() // the other parts; it forgets the answer
    if (status === 0) return this.cut(error, method)
    const why = (problem?.detail || problem?.title || `HTTP ${status}`).replace(/\.$/, '')
    if (status === 401) return this.set('locked', { key: 'needsToken' }, true)
    if (status === 403) return this.set('failed', { key: 'denied', values: { why } }, true)
    if (status === 413 && !problem) return this.shrink()
    if (status === 413) return this.set('failed', { key: 'refused', values: { why } }, true)
    if ((status === 404 || status === 410) && (this.record.url || this.record.urls)) {
      // Proxies say that, too, while the server behind them starts: only its own word ends what has arrived.
      return response.getHeader('Tus-Resumable') ? this.restart() : this.wait({ key: 'serverBusy', values: { why } }, pause)
    }
    // An earlier request is not quite over, or the browser has repeated one by itself.
    if (OVERTAKEN.has(status)) return this.wait(null, pause)
    const key = status === 507 ? 'diskFull' : 'serverBusy'
    if (PASSING.has(status) || status >= 500) return this.wait({ key, values: { why } }, pause)
    this.set('failed', { key: 'refused', values: { why } }, true)
  }

  /** No answer came: the network, or the file itself, which the browser doesn't tell apart. */
  async cut(error, method) {
    try {
      await this.file.slice(0, 1).arrayBuffer()
    } catch {
      return this.unreadable()
    }
    if (!error.originalRequest) return this.set('failed', { key: 'broken', values: { why: error.message } }, true)
    if (method === 'PATCH') {
      // Some proxies hang up instead of answering 413: then each try ends where it began.
      const at = Number(error.originalRequest.getHeader('Upload-Offset'))
      this.stuck = at === this.stuckAt ? this.stuck + 1 : 1
      this.stuckAt = at
      if (this.stuck >= 3 && this.size - at > 1 << 20) {
        this.stuck = 0
        return this.shrink()
      }
    }
    this.wait({ key: 'offline' })
  }

  /** It has changed on the disk, or is gone: browsers then give no byte of it. */
  unreadable() {
    this.file = null
    this.set('failed', { key: 'changed' }, true)
  }

  /** Halve the pieces, and go on. */
  shrink() {
    const rest = Math.min(this.chunk, this.size)
    const next = Math.min(FIRST_PIECE, Math.floor(rest / 2))
    if (next < SMALLEST) return this.set('failed', { key: 'tooLargeWay' }, true)
    keep(CHUNK, String(next), 'sessionStorage')
    this.piece = next
    this.set('sending', { key: 'smaller', values: { bytes: next } })
    this.begin()
  }

  restart() {
    this.record.url = this.record.urls = this.received = null
    this.sent = 0
    this.set('sending', { key: 'lost' })
    this.begin()
  }

  /** Try again after a while, longer each time, for ever. */
  wait(problem, atLeast = 0) {
    const delay = DELAYS[Math.min(this.attempts, DELAYS.length - 1)] * (0.8 + Math.random() * 0.4)
    if (!this.attempts) this.attemptFrom = this.arrived
    this.attempts += 1
    this.keep()
    this.retryAt = performance.now() + Math.max(delay, atLeast) * 1000
    this.set('waiting', problem)
    clearTimeout(this.timer)
    this.timer = setTimeout(() => this.again(), Math.max(delay, atLeast) * 1000)
  }

  /** Back into the queue, if it waits for something that may be over. */
  again(...states) {
    if (![...states, 'waiting'].includes(this.state)) return
    clearTimeout(this.timer)
    this.set('queued')
  }

  /** Nothing moves and the server doesn't answer: the connection is dead, though nobody has said so. */
  check(now) {
    if (this.state === 'sending' && now - (this.lastMoved ?? now) > 60_000) {
      this.lastMoved = now
      this.stop()
      this.wait({ key: 'offline' })
    }
  }

  stop() {
    clearTimeout(this.timer)
    const { upload } = this
    this.upload = null
    upload?.abort()
    this.watch.stop()
  }

  pause() {
    if (this.finished || this.state === 'unfinished' || this.state === 'processing') return
    this.stop()
    this.keep()
    this.set('paused')
  }

  resume() {
    if (!this.file) return
    this.attempts = 0
    this.set('queued')
  }

  /** End it. The server deletes what it has, unless the upload is finished. */
  async remove() {
    const { record, finished } = this
    this.stop()
    this.set('removed')
    await this.store.remove(record.id)
    this.claimed?.release()
    const urls = [record.url, ...(record.urls ?? [])].filter(Boolean)
    if (!finished && server.extensions.has('termination')) await Promise.all(urls.map(server.terminate))
  }
}

/** The words of a problem document, RFC 9457; null: the answer is none, so something on the way gave it. */
function read(text) {
  try {
    const found = JSON.parse(text)
    const known = Object.entries(found ?? {}).filter(([name, value]) => WORDS.has(name) && typeof value === 'string')
    return known.length ? Object.fromEntries(known) : null
  } catch {
    return null
  }
}
