// What people do in a browser: node scenarios.mjs CHROMIUM ENDPOINT STRICT_ENDPOINT EXAMPLE GUIDE DIRECTORY [SCENARIO...]
// The page comes from an origin of its own. Prints one JSON object a line: {scenario, ...what came of it} or {scenario, error}.
// DIRECTORY holds the files to upload and takes what is downloaded. GUIDE is the page of the docs with code for browsers.
// The second endpoint allows only pages of http://127.0.0.1 at any port, with cookies, and lets in who has the right one.
import { createReadStream, readFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { basename, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { chromium } from 'playwright-core'

const [executablePath, endpoint, strict, example, guide, directory, ...wanted] = process.argv.slice(2)
const here = (path) => fileURLToPath(new URL(`node_modules/${path}`, import.meta.url))
const UPPY = { 'uppy.min.mjs': 'text/javascript', 'uppy.min.css': 'text/css' }
const SOURCE = join(directory, 'naïve 文件 🎈.bin')
const MORE = ['one.bin', 'two.bin', 'three.bin'].map((name) => join(directory, name))

const PAGE = `<!doctype html><meta charset="utf-8"><title>elsewhere</title>
<input type="file" multiple><a>download</a><script src="/tus.min.js"></script><script>${script()}</script>`

// Runs in the page.
function script() {
  return `
    const methods = []
    const retryDelays = [0, 100, 300, 1000, 1000, 1000]
    const chosen = () => document.querySelector('input').files[0]
    function options(more) {
      const { name: filename, type: filetype } = chosen()
      return { retryDelays, metadata: { filename, filetype }, onBeforeRequest: (r) => methods.push(r.getMethod()), ...more }
    }
    const upload = (source, more) => new Promise((resolve, reject) => {
      const it = new tus.Upload(source, options({ onSuccess: () => resolve(it.url), onError: reject, ...more }))
      it.start()
    })
    // Aborted after the first chunk; another Upload finds it by its fingerprint.
    async function resumed(endpoint, more) {
      await new Promise((resolve, reject) => {
        const onChunkComplete = () => it.abort().then(resolve, reject)
        const it = new tus.Upload(chosen(), options({ endpoint, chunkSize: 100_000, onChunkComplete, ...more }))
        it.start()
      })
      methods.length = 0
      return new Promise((resolve, reject) => {
        const it = new tus.Upload(chosen(), options({ endpoint, onSuccess: () => resolve(it.url), onError: reject, ...more }))
        it.findPreviousUploads().then((found) => { it.resumeFromPreviousUpload(found[0]); it.start() })
      })
    }
    async function refused(endpoint, more) {
      const error = await upload(new Blob([new Uint8Array(3_000_000)]), { endpoint, retryDelays: null, ...more }).then(() => null, (e) => e)
      const body = error.originalResponse?.getBody()
      return { status: error.originalResponse?.getStatus() ?? 0, problem: body ? JSON.parse(body) : null }
    }
    // Refused by its header, while most of the body is still to be sent.
    async function overflowing(endpoint) {
      const common = { 'Tus-Resumable': '1.0.0' }
      const made = await fetch(endpoint, { method: 'POST', headers: { ...common, 'Upload-Length': '10' } })
      const headers = { ...common, 'Upload-Offset': '0', 'Content-Type': 'application/offset+octet-stream' }
      const body = new Uint8Array(8_000_000)
      const answer = await fetch(made.headers.get('Location'), { method: 'PATCH', headers, body })
      return { status: answer.status, type: answer.headers.get('Content-Type'), problem: await answer.json() }
    }
    // What a page may read of answers, of an error as well, and not without a CORS header.
    async function readable(endpoint) {
      const ask = async (method, more) => {
        const answer = await fetch(endpoint, { method, headers: { 'Tus-Resumable': '1.0.0', ...more } })
        return { status: answer.status, ...Object.fromEntries(answer.headers) }
      }
      return [await ask('POST', { 'Upload-Length': '3', 'X-Request-ID': 'from-the-page' }), await ask('POST', {})]
    }
    // Code from the docs, with what it leaves to the page.
    async function guided(code, endpoint) {
      const body = code.replace('https://up.example.org/files/', endpoint).replaceAll('alert(', 'reject(')
      const { Uppy, Tus } = await import('/uppy.min.mjs')
      const link = document.querySelector('a')
      link.removeAttribute('href')
      const start = 'return (async () => {' + body + '; return typeof uppy === "undefined" ? null : uppy })()'
      const run = new Function('tus', 'Uppy', 'Tus', 'file', 'reject', start)
      return new Promise((resolve, reject) => {
        new MutationObserver(() => resolve(link.href)).observe(link, { attributes: true })
        run(tus, Uppy, Tus, chosen(), reject).then((uppy) => {
          if (!uppy) return
          uppy.on('error', reject)
          uppy.addFile({ name: chosen().name, data: chosen() })
          uppy.upload()
        }, reject)
      })
    }
    async function looked(url) {
      const answer = await fetch(url)
      return { disposition: answer.headers.get('Content-Disposition'), size: (await answer.arrayBuffer()).byteLength }
    }
    // Three files at a time, all paused in the middle and resumed.
    async function uppy(endpoint) {
      const { Uppy, Tus } = await import('/uppy.min.mjs')
      const it = new Uppy().use(Tus, { endpoint, retryDelays, chunkSize: 100_000, limit: 3 })
      for (const file of document.querySelector('input').files) it.addFile({ name: file.name, type: file.type, data: file })
      let paused = 0
      it.on('upload-progress', (_file, progress) => {
        if (paused === 0 && progress.bytesUploaded > 0) {
          paused = it.getFiles().filter((file) => !file.progress.uploadComplete).length
          it.pauseAll()
          setTimeout(() => it.resumeAll(), 300)
        }
      })
      const result = await it.upload()
      if (result.failed.length) throw new Error(result.failed.map((file) => file.error).join())
      return { paused, urls: Object.fromEntries(result.successful.map((file) => [file.name, file.uploadURL])) }
    }`
}

const server = createServer((request, response) => {
  const name = basename(new URL(request.url, 'http://localhost').pathname)
  const file = name === 'tus.min.js' ? here('tus-js-client/dist/tus.min.js') : UPPY[name] && here(`uppy/dist/${name}`)
  const page = { '': PAGE, 'browser.html': readFileSync(example) }[name]
  if (file) {
    response.setHeader('Content-Type', UPPY[name] ?? 'text/javascript')
    createReadStream(file).pipe(response)
  } else {
    response.writeHead(page ? 200 : 404, { 'Content-Type': 'text/html' }).end(page)
  }
})
await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
const site = `http://localhost:${server.address().port}/`

// The same of the IETF draft, in the two versions that tus-js-client speaks.
const drafts = (protocol) => {
  const run = (more) => (page) => page.evaluate(([endpoint, more]) => upload(chosen(), { endpoint, ...more }), [endpoint, { protocol, ...more }]).then(ended(page))
  return {
    [`${protocol}_chunked`]: run({ chunkSize: 100_000 }),
    [`${protocol}_with_creation`]: run({ uploadDataDuringCreation: true }),
    [`${protocol}_resumed`]: (page) => page.evaluate(([endpoint, more]) => resumed(endpoint, more), [endpoint, { protocol }]).then(ended(page)),
    [`${protocol}_deferred`]: (page) => page.evaluate(([endpoint, protocol]) => upload(chosen().stream().getReader(), {
      endpoint, protocol, uploadLengthDeferred: true, chunkSize: 100_000,
    }), [endpoint, protocol]).then(ended(page)),
    [`${protocol}_refused`]: (page) => page.evaluate(([endpoint, more]) => refused(endpoint, more), [endpoint, { protocol }]),
  }
}

const scenarios = {
  ...drafts('ietf-draft-03'),
  ...drafts('ietf-draft-05'),
  chunked: (page) => page.evaluate((endpoint) => upload(chosen(), { endpoint, chunkSize: 100_000 }), endpoint).then(ended(page)),
  parallel: (page) => page.evaluate((endpoint) => upload(chosen(), { endpoint, parallelUploads: 2 }), endpoint).then(ended(page)),
  resumed: (page) => page.evaluate((endpoint) => resumed(endpoint), endpoint).then(ended(page)),
  deferred: (page) => page.evaluate((endpoint) => upload(chosen().stream().getReader(), {
    endpoint, uploadLengthDeferred: true, chunkSize: 100_000,
  }), endpoint).then(ended(page)),

  async custom_header(page) {
    const asked = []
    page.on('request', (request) => asked.push(request.allHeaders()))
    const headers = { 'X-CSRF-Token': 'opensesame' }
    const url = await page.evaluate(([endpoint, headers]) => upload(chosen(), { endpoint, headers }), [endpoint, headers])
    return { url, sent: (await Promise.all(asked)).filter((each) => each['x-csrf-token']).length }
  },

  refused: (page) => page.evaluate((endpoint) => refused(endpoint), endpoint),
  overflowing: (page) => page.evaluate((endpoint) => overflowing(endpoint), endpoint),
  other_origin: (page) => page.evaluate((endpoint) => refused(endpoint), strict),
  readable: async (page) => ({ answers: await page.evaluate((endpoint) => readable(endpoint), endpoint) }),

  // Both pieces of code in the docs, on a page that is listed by a pattern, in somebody's session.
  async cookies(page) {
    await page.goto(site.replace('localhost', '127.0.0.1'))
    await page.setInputFiles('input', SOURCE)
    const codes = [...readFileSync(guide, 'utf8').matchAll(/^```js\n([^]*?)^```$/gm)].map((match) => match[1])
    const without = await page.evaluate(([code, endpoint]) => guided(code, endpoint).catch(String), [codes[0], strict])
    await page.context().addCookies([{ name: 'session', value: 'opensesame', domain: '127.0.0.1', path: '/' }])
    const urls = []
    for (const code of codes) urls.push(await page.evaluate(([code, endpoint]) => guided(code, endpoint), [code, strict]))
    return { without, urls }
  },

  async download(page) {
    const url = await page.evaluate((endpoint) => upload(chosen(), { endpoint }), endpoint)
    const seen = await page.evaluate((url) => looked(url), url)
    const [download] = await Promise.all([page.waitForEvent('download'), page.evaluate((url) => {
      Object.assign(document.querySelector('a'), { href: url }).click()
    }, url)])
    await download.saveAs(join(directory, 'downloaded'))
    return { ...seen, url, name: download.suggestedFilename() }
  },

  async uppy(page) {
    await page.setInputFiles('input', MORE)
    return page.evaluate((endpoint) => uppy(endpoint), endpoint)
  },

  // The page that is shown to people. A slow line, so that there is a middle: it is reloaded there, and the file chosen again.
  async example(page) {
    const methods = []
    page.on('request', (request) => request.url().startsWith(endpoint) && methods.push(request.method()))
    await page.context().route('https://releases.transloadit.com/**', (route) => {
      const name = basename(new URL(route.request().url()).pathname)
      return route.fulfill({ path: here(`uppy/dist/${name}`), contentType: UPPY[name], headers: { 'Access-Control-Allow-Origin': '*' } })
    })
    const choose = async (uploadThroughput) => {
      await page.goto(`${site}browser.html?endpoint=${encodeURIComponent(endpoint)}`)
      await speed(uploadThroughput)
      await page.locator('input[type=file]').first().setInputFiles(MORE[0])
      await page.getByRole('button', { name: /^Upload/ }).click()
    }
    const line = await page.context().newCDPSession(page)
    const speed = (uploadThroughput) => line.send('Network.emulateNetworkConditions', {
      offline: false, latency: 0, downloadThroughput: -1, uploadThroughput,
    })
    await choose(300_000)
    await page.locator('.uppy-StatusBar-statusPrimary', { hasText: /[1-9]%/ }).waitFor()
    const interrupted = methods.splice(0)
    await choose(-1)
    const link = page.locator('#finished a')
    await link.waitFor()
    return { url: await link.getAttribute('href'), name: await link.textContent(), interrupted, methods }
  },
}

const ended = (page) => async (url) => ({ url, methods: await page.evaluate('methods') })

const browser = await chromium.launch({
  executablePath,
  args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--disable-background-networking', '--disable-component-update'],
})
// Each has a browser context, so a storage and a cache, of its own.
async function play(scenario) {
  const context = await browser.newContext()
  context.setDefaultTimeout(30_000)
  const page = await context.newPage()
  const said = []
  page.on('console', (message) => said.push(message.text()))
  let outcome
  try {
    await page.goto(site)
    await page.setInputFiles('input', SOURCE)
    outcome = await scenarios[scenario](page)
  } catch (error) {
    outcome = { error: String(error), said }
  }
  process.stdout.write(`${JSON.stringify({ scenario, ...outcome })}\n`)
  await context.close()
}

try {
  await Promise.all((wanted.length ? wanted : Object.keys(scenarios)).map(play))
} finally {
  await browser.close()
  server.close()
}
