// What this browser remembers of its uploads. IndexedDB: unlike localStorage it has a record on its way to the disk when
// `put` is done, so it is there after the browser was killed. Where there is none, nothing is remembered.

const TABLE = 'uploads'

const done = (request) =>
  new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result)
    request.onerror = () => reject(request.error)
  })

const ended = (transaction) =>
  new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve()
    transaction.onerror = transaction.onabort = () => reject(transaction.error)
  })

/** The records, each with an `id`, of uploads to the collection at `base`. */
export class Store {
  constructor(base) {
    this.base = base
    this.opened = this.open()
  }

  async open() {
    try {
      const request = indexedDB.open(`resumable ${this.base}`, 1)
      request.onupgradeneeded = () => request.result.createObjectStore(TABLE, { keyPath: 'id' })
      return await done(request)
    } catch {
      return null
    }
  }

  async change(what) {
    const database = await this.opened
    if (!database) return
    try {
      const transaction = database.transaction(TABLE, 'readwrite', { durability: 'strict' })
      what(transaction.objectStore(TABLE))
      await ended(transaction)
    } catch {
      // a full disk must not end an upload
    }
  }

  put(...records) {
    return this.change((table) => records.forEach((record) => table.put(record)))
  }

  remove(...ids) {
    return this.change((table) => ids.forEach((id) => table.delete(id)))
  }

  async all() {
    const database = await this.opened
    if (!database) return []
    return done(database.transaction(TABLE).objectStore(TABLE).getAll())
  }

  /** Whether this tab is the one that has the upload; it stays so until the tab is closed, or `release` is called. */
  claim(id) {
    if (!navigator.locks) return Promise.resolve({ release() {} })
    return new Promise((resolve) => {
      navigator.locks
        .request(`${this.base}#${id}`, { ifAvailable: true }, (lock) => {
          if (!lock) return resolve(null)
          return new Promise((release) => resolve({ release }))
        })
        .catch(() => resolve({ release() {} }))
    })
  }

  /** The ids of uploads that other tabs have. */
  async elsewhere() {
    if (!navigator.locks) return new Set()
    const { held } = await navigator.locks.query().catch(() => ({ held: [] }))
    const start = `${this.base}#`
    return new Set(held.filter(({ name }) => name.startsWith(start)).map(({ name }) => name.slice(start.length)))
  }
}
