// Files as they are chosen and dropped, and how one is recognised.

const PIECE = 1 << 16
const PIECES = 16

/** A digest of pieces that are spread over the file, its beginning and its end among them. */
export async function sample(file) {
  const step = Math.max(PIECE, (file.size - PIECE) / (PIECES - 1))
  const parts = []
  for (let start = 0; start < file.size && parts.length < PIECES; start += step) {
    const from = Math.floor(start)
    parts.push(file.slice(from, from + PIECE))
  }
  const data = new Uint8Array(await new Blob(parts).arrayBuffer())
  if (!crypto.subtle) return `plain-${weak(data)}` // pages of http have none, except those of this machine
  const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', data))
  return hex(digest)
}

// FNV-1a, twice: it tells files of one name, size and time apart, and nobody attacks it but oneself.
function weak(data) {
  let [one, two] = [0x811c9dc5, 0x9747b28c]
  for (const byte of data) {
    one = Math.imul(one ^ byte, 0x01000193)
    two = Math.imul(two ^ byte, 0x85ebca6b)
  }
  return hex(new Uint8Array(new Uint32Array([one, two]).buffer))
}

export const hex = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('')

/** What a file has in common with its record, without a look inside. */
export const looksLike = (file, record) =>
  file.name === record.name && file.size === record.size && file.lastModified === record.modified

/** The files of a drop, those in folders too: [{file, path}]. `unreadable` gets the names of what can't be read. */
export async function dropped(transfer, unreadable) {
  const entries = [...transfer.items].filter((each) => each.kind === 'file').map((each) => each.webkitGetAsEntry?.())
  if (!entries.some(Boolean)) return chosen(transfer.files)
  const found = []
  for (const entry of entries) {
    if (entry) await collect(entry, '', found, unreadable)
  }
  return found
}

async function collect(entry, folder, found, unreadable) {
  const path = folder + entry.name
  try {
    if (entry.isFile) {
      found.push({ file: await new Promise((resolve, reject) => entry.file(resolve, reject)), path: folder && path })
      return
    }
    const reader = entry.createReader()
    for (;;) {
      const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject))
      if (!some.length) return
      for (const each of some) await collect(each, `${path}/`, found, unreadable)
    }
  } catch {
    unreadable(entry.name)
  }
}

export const chosen = (files) => Array.from(files, (file) => ({ file, path: file.webkitRelativePath || '' }))
