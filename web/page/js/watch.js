// Looks at how far an upload is, on the server and in its remotes: the server tells by itself where it can, and is asked
// each second or so where it can't.
import * as server from './server.js'

// HTTP/1.1 has six connections for all of a browser's tabs: uploads need three.
const MOST_STREAMS = 2
let streams = 0
let tellsByItself = true
let watching = 0
const STORED = new Set(['done', 'storing'])
const WATCHED = new Set(['sending', 'processing', ...STORED])
const DIGEST_TRIES = 5

export class Watch {
  constructor(sending) {
    this.sending = sending
    this.tries = 0
  }

  start() {
    if (!server.hasStatus()) return this.sending.untold()
    if (this.aborter && !this.aborter.signal.aborted) return this.wake?.()
    this.aborter = new AbortController()
    this.tries = 0
    this.go(this.aborter.signal)
  }

  stop() {
    this.aborter?.abort()
  }

  async go(signal) {
    watching += 1
    try {
      await this.follow(signal)
    } finally {
      watching -= 1
      if (this.aborter?.signal === signal) this.aborter.abort()
    }
  }

  async follow(signal) {
    while (!signal.aborted && this.wanted()) {
      const { url } = this.sending.record
      if (url && this.sending.state !== 'done' && tellsByItself && streams < MOST_STREAMS) await this.stream(url, signal)
      if (signal.aborted || !this.wanted()) break
      if (url && !(await this.ask(url, signal))) break
      await new Promise((resolve) => {
        this.wake = resolve
        setTimeout(resolve, this.pause())
      })
    }
  }

  /** What there still is to learn: how far it is, and, for a while, its digest. */
  wanted() {
    const { state, record } = this.sending
    return WATCHED.has(state) && (state !== 'done' || (!record.digest && this.tries < DIGEST_TRIES))
  }

  /** All together ask ten times a second at the most, however many files there are: sending goes first. */
  pause() {
    const { state } = this.sending
    const share = watching * 100
    if (state === 'done') return Math.max(share, 500 * 2 ** this.tries)
    if (state === 'storing') return Math.max(share, Math.min(10_000, 1000 + this.tries * 250))
    return 1000
  }

  async stream(url, signal) {
    const own = new AbortController()
    const end = () => own.abort()
    signal.addEventListener('abort', end)
    streams += 1
    try {
      tellsByItself = await server.statusEvents(url, own.signal, (status) => {
        this.sending.told(status)
        if (!this.wanted() || this.sending.state === 'done') end()
      })
    } catch {
      // the connection was lost, or it is no longer needed
    } finally {
      streams -= 1
      signal.removeEventListener('abort', end)
    }
  }

  /** Whether it makes sense to ask again. */
  async ask(url, signal) {
    try {
      const status = await server.status(url)
      if (status && !signal.aborted) this.sending.told(status)
    } catch (error) {
      if (!(error instanceof server.NoStatus)) throw error
      this.sending.untold()
      return false
    }
    if (STORED.has(this.sending.state)) this.tries += 1
    return true
  }
}
