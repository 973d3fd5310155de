// The dashboard as an operator uses it: node dashboard.mjs CHROMIUM URL ADMIN TOKEN IDS
// One line of JSON for each scenario: {scenario, ...what was seen} or {scenario, error}.
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { chromium } from 'playwright-core'

const [executablePath, once, admin, token, given] = process.argv.slice(2)
const ids = JSON.parse(given)
const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8')
const browser = await chromium.launch({ executablePath, args: ['--no-sandbox', '--disable-gpu'] })

const row = (page, name) => page.locator('#rows tr', { has: page.locator('.name', { hasText: name }) })
const moving = (page) => page.waitForFunction(() => document.querySelectorAll('td.speed:not(:empty)').length > 0, null, { polling: 100 })

/** What axe finds, as "rule: element". */
async function found(page) {
  await page.evaluate((text) => { (0, eval)(text) }, axe).catch(async () => page.addScriptTag({ content: axe }))
  const { violations } = await page.evaluate(() => window.axe.run())
  return violations.flatMap(({ id, nodes }) => nodes.map(({ target }) => `${id}: ${target.join(' ')}`))
}

async function scenario(name, options, play) {
  const context = await browser.newContext({ locale: 'en-GB', bypassCSP: false, ...options })
  const errors = []
  const page = await context.newPage()
  page.on('console', (message) => { if (message.type() === 'error') errors.push(message.text()) })
  page.on('pageerror', (error) => errors.push(String(error)))
  page.setDefaultTimeout(60000)
  try {
    console.log(JSON.stringify({ scenario: name, ...(await play(page, context)), errors }))
  } catch (error) {
    console.log(JSON.stringify({ scenario: name, error: String(error), errors }))
  }
  return context
}

const relayed = await scenario('relayed', { viewport: { width: 1240, height: 800 } }, async (page, context) => {
  await page.goto(once)
  await moving(page)
  const address = page.url()
  const names = await page.locator('#rows .name').allTextContents()
  const cookies = await context.cookies()
  const before = await row(page, 'moving.bin').locator('.share').first().textContent()
  await page.waitForFunction((text) => [...document.querySelectorAll('#rows tr')].some((each) => each.textContent.includes('moving.bin') && !each.textContent.includes(text)), before)
  return {
    address, names, script: await page.evaluate(() => document.cookie),
    cookie: cookies.map(({ httpOnly, sameSite, path }) => ({ httpOnly, sameSite, path })),
    charts: await page.locator('.card svg[role=img]').count(), ready: await page.locator('#ready').textContent(),
  }
})

await scenario('second browser', {}, async (page) => ({ status: (await page.goto(once)).status() }))

const relay = relayed.pages()[0].url()
const page = relayed.pages()[0]
const say = (name, play) => play().then((seen) => console.log(JSON.stringify({ scenario: name, ...seen })), (error) => console.log(JSON.stringify({ scenario: name, error: String(error) })))

await say('filters', async () => {
  await page.getByRole('button', { name: /^Parked/ }).click()
  await row(page, 'taken.mov').waitFor()
  await page.waitForFunction(() => document.querySelectorAll('#rows tr').length === 1)
  await page.getByRole('button', { name: /^All/ }).click()
  await row(page, 'garden.jpg').waitFor()
  await page.locator('#search').fill('garden')
  const shown = await page.locator('#rows .name').allTextContents()
  await page.locator('#search').fill('')
  await page.getByRole('button', { name: 'Filters' }).click()
  await page.getByLabel('At least').fill('100M')
  await page.getByLabel('At least').press('Enter')
  await page.waitForFunction(() => document.querySelectorAll('#rows tr').length === 1)
  const large = await page.locator('#rows .name').allTextContents()
  await page.getByRole('button', { name: 'Clear' }).click()
  await row(page, 'garden.jpg').waitFor()
  return { shown, large }
})

await say('detail', async () => {
  await page.getByRole('button', { name: 'taken.mov' }).focus()
  await page.keyboard.press('Enter')
  await page.locator('.events li').first().waitFor()
  const text = await page.locator('#detail').textContent()
  await page.getByRole('button', { name: 'Retry', exact: true }).click()
  await page.keyboard.press('Escape')
  const asked = await page.locator('#banner').isHidden()
  await page.getByRole('button', { name: 'Retry', exact: true }).click()
  await page.locator('#ask').getByRole('button', { name: 'Retry' }).click()
  await page.locator('#banner', { hasText: '1 replica will be sent again' }).waitFor()
  const violations = await found(page)
  await page.keyboard.press('Escape')
  return { text, asked, violations, closed: !(await page.locator('#detail').isVisible()) }
})

await say('delete', async () => {
  await page.getByRole('button', { name: 'garden.jpg' }).click()
  await page.getByRole('button', { name: 'Delete' }).click()
  await page.locator('#ask').getByRole('button', { name: 'Cancel' }).click()
  const kept = await page.locator('#detail').isVisible()
  await page.getByRole('button', { name: 'Delete' }).click()
  await page.getByRole('button', { name: 'Delete the upload' }).click()
  await row(page, 'garden.jpg').waitFor({ state: 'detached' })
  return { kept }
})

await say('drain', async () => {
  await page.getByRole('button', { name: 'Drain' }).click()
  await page.locator('#ask').getByRole('button', { name: 'Drain' }).click()
  await page.locator('#ready', { hasText: 'draining' }).waitFor()
  await page.getByRole('button', { name: 'End the drain' }).click()
  await page.locator('#ask').getByRole('button', { name: 'End the drain' }).click()
  await page.locator('#ready', { hasText: /^ready/ }).waitFor()
  return {}
})

await say('replay', async () => {
  // an event is dead after many attempts only: the page is told that there are two
  await page.route('**/v1/hooks', (route) => route.fulfill({ json: { hooks: { billing: { waiting: 0, dead: 2, oldest: null } } } }))
  await page.locator('.place', { hasText: '2 dead events' }).getByRole('button', { name: 'Replay' }).click()
  await page.locator('#ask', { hasText: '2 events will be delivered again' }).getByRole('button', { name: 'Replay' }).click()
  await page.locator('#banner', { hasText: /\d+ events? will be delivered again/ }).waitFor()
  await page.unroute('**/v1/hooks')
  return {}
})

await say('foreign page', async () => {
  const other = await relayed.newPage()
  await other.route('https://evil.example/', (route) => route.fulfill({ body: '<p>evil</p>', contentType: 'text/html' }))
  await other.goto('https://evil.example/').catch(() => {})
  const got = await other.evaluate(async (url) => {
    try {
      const answer = await fetch(url, { method: 'PUT', mode: 'no-cors', credentials: 'include' })
      return answer.type
    } catch (error) {
      return String(error)
    }
  }, new URL('../v1/drain', relay).href)
  const { draining } = await page.evaluate(async (url) => (await fetch(url)).json(), new URL('../v1/drain', relay).href)
  await other.close()
  return { got, draining }
})

for (const [name, options] of Object.entries({
  light: { colorScheme: 'light', viewport: { width: 1240, height: 800 } },
  dark: { colorScheme: 'dark', viewport: { width: 1240, height: 800 } },
  phone: { colorScheme: 'light', viewport: { width: 360, height: 740 }, hasTouch: true },
})) {
  await scenario(name, options, async (page) => {
    await page.goto(`${admin}/`)
    await page.locator('#token').fill('wrong-wrong-wrong-wrong')
    await page.getByRole('button', { name: 'Open' }).click()
    await page.locator('#token-wrong', { hasText: "isn't the token" }).waitFor()
    const login = await found(page)
    await page.locator('#token').fill(token)
    await page.getByRole('button', { name: 'Open' }).click()
    await moving(page)
    const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth)
    return { login, violations: await found(page), wide }
  })
}

// Once its token is no longer good, a page goes on with another.
await scenario('token again', {}, async (page) => {
  const answers = [{ status: 200, contentType: 'text/event-stream', body: ':\n\n' }, { status: 401, json: {} }]
  const streamed = (route) => route.request().headers().accept === 'text/event-stream' && answers.length
  await page.route((url) => url.pathname === '/v1/status', (route) => (streamed(route) ? route.fulfill(answers.shift()) : route.continue()))
  await page.goto(admin)
  for (const wrong of ['', "isn't the token"]) {
    await page.locator('#token-wrong', { hasText: wrong }).waitFor({ state: 'attached' })
    await page.locator('#token').fill(token)
    await page.locator('#token').press('Enter')
    await row(page, 'moving.bin').waitFor()
  }
  await page.getByRole('button', { name: 'Filters' }).click()
  return { opened: await page.locator('#filters').isVisible(), left: answers.length }
})

await scenario('keeps nothing', {}, async (page) => {
  await page.addInitScript(() => {
    const refuse = { get() { throw new DOMException('denied', 'SecurityError') } }
    for (const name of ['localStorage', 'sessionStorage']) Object.defineProperty(window, name, refuse)
  })
  await page.goto(admin)
  await page.locator('#token').fill(token)
  await page.locator('#token').press('Enter')
  await row(page, 'moving.bin').waitFor()
  return {}
})

await scenario('direct', {}, async (page) => {
  await page.addInitScript((text) => sessionStorage.setItem('resumable-token', text), token)
  await page.goto(`${admin}/dashboard/#${ids['begun.zip']}`)
  await page.getByRole('button', { name: 'Stop' }).click()
  await page.getByRole('button', { name: 'Stop the upload' }).click()
  await page.locator('#banner', { hasText: 'was stopped' }).waitFor()
  return {}
})
await browser.close()
