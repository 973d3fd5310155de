// What people do with tus-js-client: node scenarios.mjs SCENARIO ENDPOINT FILE
// The variable PROTOCOL names the one that it speaks, tus 1.0 if it is not set.
// Prints one JSON object on the last line of its output; events that a test waits for come before, one a line.
import { createReadStream, readFileSync } from 'node:fs'
import { Readable } from 'node:stream'
import * as tus from 'tus-js-client'
import Uppy from '@uppy/core'
import UppyTus from '@uppy/tus'

const [scenario, endpoint, file] = process.argv.slice(2)
const data = readFileSync(file)
const protocol = process.env.PROTOCOL ?? 'tus-v1'
const METHODS = []

const say = (event) => process.stdout.write(`${JSON.stringify(event)}\n`)

// Start an upload; the promise is kept when it ends, broken with its error.
function upload(source, options, during = {}) {
  let it
  const done = new Promise((resolve, reject) => {
    it = new tus.Upload(source, {
      endpoint,
      protocol,
      retryDelays: [0, 100, 300, 500, 1000, 1000, 2000, 2000, 3000, 3000, 3000],
      onBeforeRequest: (req) => {
        METHODS.push(`${req.getMethod()}${req.getHeader('X-HTTP-Method-Override') ?? ''}`)
      },
      onSuccess: () => resolve(it),
      onError: reject,
      ...options,
      ...during,
    })
  })
  return { it: () => it, done }
}

async function run(source, options) {
  const { it, done } = upload(source, options)
  it().start()
  return done
}

// Runs until `at` bytes were taken, then calls `act` once.
async function interrupted(source, options, at, act) {
  let acted = false
  const { it, done } = upload(source, options, {
    onChunkComplete: (_size, accepted) => {
      if (!acted && accepted >= at) {
        acted = true
        act(it(), accepted)
      }
    },
  })
  it().start()
  return { it, done }
}

const metadata = { filename: 'naïve – 文件 🎈.bin', filetype: 'application/octet-stream', empty: '' }

const scenarios = {
  plain: () => run(data, { metadata }),
  chunked: () => run(data, { chunkSize: 300_000 }),
  file_stream: () => run(createReadStream(file), {}),
  parallel: () => run(data, { parallelUploads: 3, metadata }),
  // A client that gives up at once: its error says what the final upload was answered with.
  parallel_once: () => run(data, { parallelUploads: 3, metadata, retryDelays: null }),
  uppy: () => uppy({ chunkSize: 400_000 }),
  uppy_parallel: () => uppy({ parallelUploads: 3 }),
  uppy_parallel_once: () => uppy({ parallelUploads: 3, retryDelays: null }),
  deferred: () => run(Readable.from(pieces(data)), { uploadLengthDeferred: true, chunkSize: 250_000 }),
  with_creation: () => run(data, { uploadDataDuringCreation: true }),
  with_creation_chunked: () => run(data, { uploadDataDuringCreation: true, chunkSize: 400_000 }),
  override: () => run(data, { overridePatchMethod: true, chunkSize: 400_000 }),

  async pause() {
    let resume
    const paused = new Promise((resolve) => { resume = resolve })
    const { it, done } = await interrupted(data, { chunkSize: 200_000 }, 400_000, async (u) => {
      await u.abort()
      resume()
    })
    await paused
    say({ paused: true })
    it().start()
    return done
  },

  async terminate() {
    const gone = new Promise((resolve, reject) => {
      interrupted(data, { chunkSize: 200_000 }, 400_000, (u) => u.abort(true).then(() => resolve(u), reject))
    })
    return gone
  },

  async terminate_finished() {
    const it = await run(data, {})
    await tus.Upload.terminate(it.url, { ...tus.defaultOptions, protocol })
    return it
  },

  // Tells the test when to kill the service; then goes on by its own retries.
  async killed() {
    const { it, done } = upload(data, { chunkSize: 500_000 }, {
      onChunkComplete: (_size, accepted) => say({ accepted }),
    })
    it().start()
    return done
  },

  // A new process that knows the URL goes on.
  resume_url: () => run(data, { uploadUrl: process.env.UPLOAD_URL, chunkSize: 500_000 }),
}

// Uppy's queue round the same client.
function uppy(options) {
  return new Promise((resolve, reject) => {
    const it = new Uppy().use(UppyTus, {
      endpoint,
      protocol,
      retryDelays: [0, 100, 300, 500, 1000, 1000, 2000, 2000, 3000],
      onBeforeRequest: (req) => { METHODS.push(req.getMethod()) },
      ...options,
    })
    it.on('upload-success', (_file, response) => resolve({ url: response.uploadURL }))
    it.on('upload-error', (_file, error) => reject(error))
    it.addFile({ name: 'source.bin', data, size: data.length })
    it.upload().catch(reject)
  })
}

function* pieces(buffer) {
  for (let at = 0; at < buffer.length; at += 70_000) yield buffer.subarray(at, at + 70_000)
}

try {
  const it = await scenarios[scenario]()
  say({ url: it.url, methods: METHODS })
} catch (error) {
  say({ error: String(error), methods: METHODS })
  process.exit(1)
}
