// What people do with the upload page: node page.mjs CHROMIUM SERVER GUARDED TOKEN DIRECTORY [SCENARIO...]
// SERVER has a remote; GUARDED wants a token. DIRECTORY has the files. Prints one JSON object a line: {scenario, ...what
// came of it} or {scenario, error}; `faults` has what the browser complained of.
import { spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { chromium } from 'playwright-core'
import { Way } from './way.mjs'

const [executablePath, origin, guarded, token, directory, ...wanted] = process.argv.slice(2)
const ARGS = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--disable-background-networking', '--disable-component-update']
const AXE = readFileSync(fileURLToPath(new URL('node_modules/axe-core/axe.min.js', import.meta.url)), 'utf8')
const file = (name) => join(directory, name)
const [FILM, OTHER, NOTES, LONG] = ['film.mp4', 'other/film.mp4', 'notes.txt', `${'a very long name '.repeat(8)}.bin`].map(file)
const DATES = { touched: 'touched/film.mp4' }
const HALF = 1_000_000

const row = (page, name) => page.locator('.row', { has: page.locator('.name', { hasText: name }) }).first()
const inState = (page, name, state) => page.locator(`.row[data-state=${state}]`, { has: page.locator('.name', { hasText: name }) }).waitFor()
const linkOf = (page, name) => row(page, name).locator('a[download]').getAttribute('href')
const button = (page, name) => page.getByRole('button', { name, exact: true })
const trouble = (page, name) => row(page, name).locator('.trouble')

async function open(page, way, path = '/files/') {
  await page.goto(way.origin + path)
  await page.locator('#language option').first().waitFor({ state: 'attached' }) // its script has run
  await page.evaluate(() => new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve))))
}

/** Send a file until the way stands still in its middle. */
async function halfway(page, way, path = FILM, bytes = HALF) {
  const still = way.standStillAfter(bytes)
  await page.setInputFiles('#files', path)
  await still
}

async function again(page, name, path) {
  const chooser = page.waitForEvent('filechooser')
  await button(page, `Choose it again: ${name}`).click()
  await (await chooser).setFiles(path)
}

const lineOf = (page, name, hasText) => row(page, name).locator('.line', { hasText }).textContent()
const resumedAt = (way) => way.of('PATCH').map((each) => each.offset)

const scenarios = {
  async sent({ page, way }) {
    await page.goto(way.origin) // it leads to the page
    await page.setInputFiles('#files', [FILM, NOTES])
    await inState(page, 'film.mp4', 'done')
    await inState(page, 'notes.txt', 'done')
    const line = await row(page, 'film.mp4').locator('.line').textContent()
    await row(page, 'film.mp4').locator('summary').click()
    const [urls, facts] = [[await linkOf(page, 'film.mp4'), await linkOf(page, 'notes.txt')], await row(page, 'film.mp4').locator('dd').allTextContents()]
    await button(page, 'Copy link: film.mp4').click()
    const copied = await page.evaluate(() => navigator.clipboard.readText())
    await row(page, 'film.mp4').getByText('Copy receipt').click()
    await page.waitForFunction((text) => navigator.clipboard.readText().then((now) => now !== text), copied)
    const receipt = await page.evaluate(() => navigator.clipboard.readText())
    await page.reload()
    await inState(page, 'film.mp4', 'done')
    const kept = await page.locator('#sent .row').count()
    await button(page, 'Clear this list').click()
    await page.locator('#ask-yes').click()
    await page.locator('#sent').waitFor({ state: 'hidden' })
    return { urls, facts, copied, receipt, line, kept, at: page.url() }
  },

  async folder({ page, way }) {
    await open(page, way)
    await page.setInputFiles('#folder', file('folder'))
    await inState(page, 'folder/deep/inner.txt', 'done')
    const names = await page.locator('.row .name').allTextContents()
    return { names: names.sort(), url: await linkOf(page, 'folder/deep/inner.txt') }
  },

  async dropped({ page, way }) {
    await open(page, way)
    const transfer = await page.evaluateHandle(() => {
      const transfer = new DataTransfer()
      transfer.items.add(new File(['dropped'], 'dropped.txt'))
      return transfer
    })
    await page.dispatchEvent('#drop', 'dragenter', { dataTransfer: transfer })
    const over = await page.locator('#drop.over').count()
    await page.dispatchEvent('#drop', 'drop', { dataTransfer: transfer })
    await inState(page, 'dropped.txt', 'done')
    return { over, url: await linkOf(page, 'dropped.txt') }
  },

  async cut({ page, way }) {
    await open(page, way)
    await halfway(page, way)
    way.cut()
    await inState(page, 'film.mp4', 'waiting')
    const said = await trouble(page, 'film.mp4').textContent()
    way.mend()
    await inState(page, 'film.mp4', 'done')
    return { said, offsets: resumedAt(way), url: await linkOf(page, 'film.mp4') }
  },

  async reloaded({ page, way }) {
    const warnings = []
    page.on('dialog', (dialog) => warnings.push(dialog.type()) && dialog.accept())
    await open(page, way)
    await page.locator('h1').click() // a page that nobody has touched may not warn
    await halfway(page, way)
    way.left = Infinity
    await page.reload()
    await inState(page, 'film.mp4', 'unfinished')
    const line = await lineOf(page, 'film.mp4', /[1-9]%.*has arrived/)
    const refusals = []
    for (const path of [NOTES, OTHER, file(DATES.touched)]) {
      await again(page, 'film.mp4', path)
      const before = refusals.at(-1) ?? ''
      await page.waitForFunction((text) => ![text, ''].includes(document.querySelector('.trouble').textContent), before)
      refusals.push(await trouble(page, 'film.mp4').textContent())
    }
    const untouched = resumedAt(way).length
    await again(page, 'film.mp4', FILM)
    await inState(page, 'film.mp4', 'done')
    return { warnings, line, refusals, untouched, offsets: resumedAt(way), url: await linkOf(page, 'film.mp4') }
  },

  async killed({ way }) {
    const home = await mkdtemp(join(tmpdir(), 'page-'))
    let [first, second] = []
    try {
      first = await browserOf(home)
      let page = await first.page()
      await open(page, way)
      await halfway(page, way)
      await inState(page, 'film.mp4', 'sending')
      first.kill()
      way.left = Infinity
      second = await browserOf(home)
      page = await second.page()
      await open(page, way)
      await inState(page, 'film.mp4', 'unfinished')
      const line = await lineOf(page, 'film.mp4', /[1-9]%.*has arrived/)
      await page.setInputFiles('#files', FILM) // with the big button, or dropped: it is recognised
      await inState(page, 'film.mp4', 'done')
      return { line, offsets: resumedAt(way), made: way.of('POST').length, url: await linkOf(page, 'film.mp4') }
    } finally {
      first?.kill()
      second?.kill()
      await rm(home, { recursive: true, force: true, maxRetries: 5 })
    }
  },

  async streamed({ page, way }) {
    await open(page, way)
    await halfway(page, way)
    await row(page, 'film.mp4').locator('.label', { hasText: 'Stored' }).waitFor()
    const figure = await page.locator('.figure', { hasText: /^39/ }).first().textContent() // what has come, not what was sent
    way.cut()
    way.mend()
    await inState(page, 'film.mp4', 'done')
    const asked = way.of('GET').filter((each) => each.path.endsWith('/status'))
    return { figure, asked: asked.map((each) => each.accept), url: await linkOf(page, 'film.mp4') }
  },

  async polled({ page, way }) {
    way.streams = false
    return scenarios.streamed({ page, way })
  },

  async limited({ page, way }) {
    way.largest = 400_000
    await open(page, way)
    await page.setInputFiles('#files', FILM)
    await trouble(page, 'film.mp4').filter({ hasText: 'smaller pieces' }).waitFor()
    await inState(page, 'film.mp4', 'done')
    const lengths = way.of('PATCH').map((each) => each.length)
    return { lengths, made: way.of('POST').length, url: await linkOf(page, 'film.mp4') }
  },

  async refused({ page, way }) {
    way.refusal = { method: 'POST', status: 403, problem: { title: 'Forbidden', detail: 'Your quota is used up.' } }
    await open(page, way)
    await page.setInputFiles('#files', NOTES)
    await inState(page, 'notes.txt', 'failed')
    const denied = await trouble(page, 'notes.txt').textContent()
    way.refusal = { method: 'PATCH', status: 507, problem: { title: 'Insufficient Storage' } }
    await button(page, 'Try again: notes.txt').click()
    await inState(page, 'notes.txt', 'waiting')
    const full = await trouble(page, 'notes.txt').textContent()
    way.refusal = null
    await inState(page, 'notes.txt', 'done')
    return { denied, full, url: await linkOf(page, 'notes.txt') }
  },

  // Words of programs on the way, which are not the server's.
  async misunderstood({ page, way }) {
    way.largest = 1_500_000
    way.tooLarge = ['application/json', '{"message": "Request size limit exceeded"}']
    await open(page, way)
    await page.setInputFiles('#files', FILM)
    await trouble(page, 'film.mp4').filter({ hasText: 'smaller pieces' }).waitFor()
    await inState(page, 'film.mp4', 'done')
    way.refusal = { method: 'POST', status: 422, problem: { detail: [{ msg: 'no such field' }] } }
    await page.setInputFiles('#files', NOTES)
    await inState(page, 'notes.txt', 'failed')
    return { said: await trouble(page, 'notes.txt').textContent() }
  },

  async astray({ page, way }) {
    await open(page, way)
    await halfway(page, way)
    way.refusal = { method: 'HEAD', status: 404, problem: {} }
    way.cut()
    way.mend()
    await trouble(page, 'film.mp4').filter({ hasText: 'HTTP 404' }).waitFor()
    way.refusal = null
    await inState(page, 'film.mp4', 'done')
    return { made: way.of('POST').length, offsets: resumedAt(way), url: await linkOf(page, 'film.mp4') }
  },

  async torn({ page, way }) {
    way.streams = false
    way.torn = 3
    await open(page, way)
    await page.setInputFiles('#files', [FILM])
    await inState(page, 'film.mp4', 'done')
    return { left: way.torn }
  },

  async untold({ page, way }) {
    way.unstored = true
    await open(page, way)
    await page.setInputFiles('#files', NOTES)
    await inState(page, 'notes.txt', 'storing')
    await row(page, 'notes.txt').locator('.line', { hasText: 'copied to the store' }).waitFor()
    way.refusal = { method: 'GET', path: '/status', status: 401, problem: { title: 'Unauthorized' } }
    await page.reload()
    await inState(page, 'notes.txt', 'done')
    const unknown = await lineOf(page, 'notes.txt', /./)
    way.refusal = null
    way.unstored = false
    await page.reload()
    return { unknown, known: await lineOf(page, 'notes.txt', /Stored/) }
  },

  // A connection that nobody ends, while others work: the server answers that nothing has come.
  async still({ page, way }) {
    way.streams = false
    await page.clock.install()
    await open(page, way)
    await halfway(page, way)
    way.left = Infinity // for what is new
    await inState(page, 'film.mp4', 'sending')
    for (let step = 0; step < 80 && way.of('PATCH').length < 2; step += 1) {
      await page.clock.runFor(1000)
      await page.evaluate(() => fetch('?').then((answer) => answer.text())) // what was asked meanwhile has its answer
    }
    const offsets = resumedAt(way)
    await inState(page, 'film.mp4', 'done')
    return { offsets, url: await linkOf(page, 'film.mp4') }
  },

  // What is done already counts.
  async total({ page, way }) {
    await open(page, way)
    await halfway(page, way)
    way.left = Infinity // for what is new
    await page.setInputFiles('#files', LONG)
    await inState(page, 'a very long name', 'done')
    await page.waitForFunction(() => /^[56]/.test(document.title))
    return { title: await page.title(), line: await page.locator('#total p').textContent(), shown: await page.locator('#total').isVisible() }
  },

  async crowded({ page, way }) {
    await open(page, way)
    await page.locator('#parts').check()
    await page.setInputFiles('#files', ['large.bin', 'larger.bin'].map(file))
    await inState(page, 'large.bin', 'done')
    await inState(page, 'larger.bin', 'done')
    return { most: way.underWay[1] }
  },

  async parallel({ page, way }) {
    await open(page, way)
    await page.locator('#parts').check()
    await halfway(page, way, file('large.bin'), 30_000_000)
    const [before, parts] = [resumedAt(way).length, way.of('POST').length]
    way.cut()
    await inState(page, 'large.bin', 'waiting')
    way.mend()
    await inState(page, 'large.bin', 'done')
    return { parts, posts: way.of('POST').length, offsets: resumedAt(way).slice(before), url: await linkOf(page, 'large.bin') }
  },

  async paused({ page, way }) {
    await open(page, way)
    const still = way.standStillAfter(HALF)
    await page.setInputFiles('#files', [FILM, LONG])
    await still
    await button(page, 'Pause all').click()
    await inState(page, 'film.mp4', 'paused')
    way.left = Infinity
    await button(page, 'Resume: film.mp4').click()
    await inState(page, 'film.mp4', 'done')
    const [kept, addresses] = [await linkOf(page, 'film.mp4'), way.of('PATCH').map((each) => each.path)]
    await button(page, 'Remove all').click()
    await page.locator('#ask-yes').click()
    await page.locator('#now').waitFor({ state: 'hidden' })
    const deleted = way.of('DELETE').map((each) => each.path)
    return { kept, deleted, addresses, offsets: resumedAt(way) }
  },

  // What one tab sends the other doesn't offer.
  async tabs({ page, way, context }) {
    await open(page, way)
    await halfway(page, way)
    way.left = Infinity // for what is new
    const other = await context.newPage()
    await open(other, way)
    await other.setInputFiles('#files', NOTES)
    await inState(other, 'notes.txt', 'done')
    return { names: await other.locator('.name').allTextContents() }
  },

  async token({ page, way }) {
    await open(page, way)
    await page.setInputFiles('#files', NOTES)
    await inState(page, 'notes.txt', 'locked')
    const field = page.getByLabel('Access token')
    await field.fill('wrong-wrong-wrong-wrong')
    await field.press('Enter')
    await page.locator('#token-help', { hasText: 'does not accept' }).waitFor()
    await field.fill(token)
    await field.press('Enter')
    await inState(page, 'notes.txt', 'done')
    return { hidden: await page.locator('#access').isHidden() }
  },

  async keyboard({ page, way }) {
    await open(page, way)
    const press = (key) => page.keyboard.press(key)
    const focused = () => page.evaluate(() => document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent)
    await press('Tab')
    const order = [await focused()]
    const chooser = page.waitForEvent('filechooser')
    const still = way.standStillAfter(HALF)
    await press('Enter')
    await (await chooser).setFiles(FILM)
    await still
    while (order.at(-1) !== 'Pause: film.mp4' && order.length < 9) {
      await press('Tab')
      order.push(await focused())
    }
    await press('Enter')
    await inState(page, 'film.mp4', 'paused')
    const afterPause = await focused()
    way.left = Infinity
    await press('Enter')
    await inState(page, 'film.mp4', 'done')
    await page.locator('#say', { hasText: /film\.mp4 has been (received|stored)/ }).waitFor()
    return { order, afterPause, url: await linkOf(page, 'film.mp4') }
  },

  async narrow({ page, way }) {
    await page.setViewportSize({ width: 360, height: 740 })
    await open(page, way)
    const widths = []
    const measure = async () => widths.push(await page.evaluate(() => document.documentElement.scrollWidth))
    await measure()
    await page.setInputFiles('#files', [NOTES, LONG])
    await inState(page, 'a very long name', 'done')
    await row(page, 'a very long name').locator('summary').click()
    await measure()
    await halfway(page, way)
    await measure()
    return { widths }
  },

  async german({ page, way }) {
    await open(page, way)
    const told = async () => [await page.locator('html').getAttribute('lang'), await page.locator('h1').textContent(), await page.title()]
    const german = await told()
    await page.locator('#language').selectOption('en')
    const english = await told()
    await page.reload()
    return { german, english, remembered: await told() }
  },

  async prefixed({ page, way }) {
    await open(page, way, '/a/prefix/files')
    await page.setInputFiles('#files', NOTES)
    await inState(page, 'notes.txt', 'done')
    return { url: await linkOf(page, 'notes.txt'), at: page.url(), content: await page.evaluate((url) => fetch(url).then((answer) => answer.text()), await linkOf(page, 'notes.txt')) }
  },

  light: ({ page, way }) => accessible(page, way),
  dark: ({ page, way }) => accessible(page, way),
}

const OPTIONS = {
  german: { locale: 'de-AT' },
  dark: { colorScheme: 'dark' },
  narrow: { reducedMotion: 'reduce' },
}
const WAYS = { token: () => Way.to(guarded), prefixed: () => Way.to(origin, '/a/prefix') }

/** What axe finds, in each state that the page can be in. */
async function accessible(page, way) {
  const found = []
  const look = async (state) => {
    await page.evaluate(AXE)
    const { violations } = await page.evaluate(() => axe.run(document, { resultTypes: ['violations'] }))
    found.push(...violations.map(({ id, nodes }) => `${state}: ${id}: ${nodes.map(({ target, any }) => `${target} ${any[0]?.message ?? ''}`)}`))
  }
  page.on('dialog', (dialog) => dialog.accept())
  await open(page, way)
  await look('empty')
  await page.setInputFiles('#files', NOTES)
  await inState(page, 'notes.txt', 'done')
  await row(page, 'notes.txt').locator('summary').click()
  const still = way.standStillAfter(HALF)
  await page.setInputFiles('#files', [FILM, LONG])
  await still
  await row(page, 'film.mp4').locator('.tiers .label').first().waitFor()
  await look('sending')
  await button(page, 'Remove all').click()
  await look('question')
  await page.locator('#ask-no').click()
  way.cut()
  await inState(page, 'film.mp4', 'waiting')
  await look('waiting')
  way.mend()
  await page.reload()
  await page.locator('#unfinished .row').first().waitFor()
  await look('unfinished')
  await page.evaluate(() => (document.getElementById('access').hidden = false))
  await look('token')
  return { found }
}

/** A browser in a process of its own that can be killed, with its memory in `home`. */
async function browserOf(home) {
  const flags = ['--headless=new', '--remote-debugging-port=0', `--user-data-dir=${home}`, '--no-first-run', ...ARGS, 'about:blank']
  const child = spawn(executablePath, flags, { detached: true, stdio: ['ignore', 'ignore', 'pipe'] })
  const kill = () => {
    try {
      process.kill(-child.pid, 'SIGKILL')
    } catch {
      // it is no more
    }
  }
  const address = await new Promise((resolve, reject) => {
    let said = ''
    child.stderr.on('data', (data) => {
      said += data
      const match = /DevTools listening on (ws:\S+)/.exec(said)
      if (match) resolve(match[1])
    })
    child.on('exit', () => reject(new Error(`Chromium ended: ${said.slice(-500)}`)))
  })
  const browser = await chromium.connectOverCDP(address)
  const gone = new Promise((resolve) => child.on('exit', resolve))
  return {
    page: async () => {
      const page = await browser.contexts()[0].newPage()
      page.setDefaultTimeout(60_000)
      return page
    },
    kill: () => (kill(), gone),
  }
}

const browser = await chromium.launch({ executablePath, args: ARGS })

// Each has a browser context, so a storage and a cache, of its own, and a way of its own.
async function play(scenario) {
  const context = await browser.newContext({ locale: 'en-GB', ...OPTIONS[scenario] })
  context.setDefaultTimeout(60_000)
  await context.grantPermissions(['clipboard-read', 'clipboard-write'])
  const faults = []
  await context.exposeFunction('fault', (text) => faults.push(text))
  await context.addInitScript(() => {
    document.addEventListener('securitypolicyviolation', (event) => window.fault(`policy: ${event.violatedDirective} ${event.blockedURI}`))
  })
  const way = await (WAYS[scenario] ?? (() => Way.to(origin)))()
  const page = await context.newPage()
  page.on('pageerror', (error) => faults.push(String(error.stack)))
  page.on('console', (message) => /Content.Security.Policy/i.test(message.text()) && faults.push(message.text()))
  page.on('filechooser', () => {}) // from now on no chooser is shown
  let outcome
  try {
    outcome = await scenarios[scenario]({ page, way, context })
  } catch (error) {
    outcome = { error: String(error.stack), shown: await page.locator('main').innerText().catch(() => '') }
  }
  process.stdout.write(`${JSON.stringify({ scenario, faults, ...outcome })}\n`)
  way.close()
  await context.close()
}

try {
  for (const scenario of wanted.length ? wanted : Object.keys(scenarios)) await play(scenario)
} finally {
  await browser.close()
}
process.exit(0)
