// Pictures of the dashboard: node dashboard_shots.mjs CHROMIUM ADMIN TOKEN DOCS
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { chromium } from 'playwright-core'
import { small } from './small.mjs'

const [executablePath, admin, token, docs] = process.argv.slice(2)
const SHOTS = {
  'dashboard-light.png': { colorScheme: 'light', viewport: { width: 1240, height: 760 } },
  'dashboard-dark.png': { colorScheme: 'dark', viewport: { width: 1240, height: 760 } },
  'dashboard-upload.png': { colorScheme: 'dark', viewport: { width: 1240, height: 760 }, open: 'taken.mov' },
  'dashboard-phone.png': { colorScheme: 'light', viewport: { width: 380, height: 760 }, deviceScaleFactor: 1.5 },
}

/** An hour of figures: the daemon of the pictures is a minute old. */
function hour(real) {
  const points = 360
  const end = Date.parse(real.at.at(-1) ?? new Date().toISOString())
  const wave = (index, slow, sharp) => (Math.sin(index / slow) + 1) / 2 + 0.35 * (Math.sin(index / sharp) + 1) / 2
  const series = (of) => Array.from({ length: points }, (_, index) => of(index))
  const outage = (index) => Math.max(0, Math.min(1, (index - 200) / 30)) * Math.max(0, Math.min(1, (270 - index) / 25))
  return {
    interval: 10, most: points,
    at: series((index) => new Date(end - (points - 1 - index) * 10000).toISOString()),
    received: series((index) => 1e6 * (4 + 9 * wave(index, 40, 6.3))),
    sent: series((index) => (outage(index) > 0.5 ? 1e5 : 1e6 * (4 + 8 * wave(index - 4, 40, 7.1)))),
    requests: series((index) => 3 + 2 * wave(index, 20, 3)),
    refused: series(() => 0),
    failed: series((index) => (index === 214 ? 1 : 0)),
    retries: series((index) => (outage(index) > 0.5 && index % 3 === 0 ? 1 + (index % 4) : 0)),
    complaints: series(() => 0),
    lag: series((index) => 6e6 + 9e8 * outage(index) + 4e6 * wave(index, 9, 3)),
    lag_seconds: series((index) => 300 * outage(index)),
    free: series((index) => 4.1e11 - index * 1e8), used: series((index) => 5.9e11 + index * 1e8),
    appending: series(() => 2), queued: series(() => 0),
  }
}

const browser = await chromium.launch({ executablePath, args: ['--no-sandbox', '--disable-gpu'] })
for (const [name, { open, ...options }] of Object.entries(SHOTS)) {
  const context = await browser.newContext({ locale: 'en-GB', timezoneId: 'UTC', ...options })
  const page = await context.newPage()
  page.on('console', (message) => { if (message.type() === 'error') console.error(message.text()) })
  await page.addInitScript((text) => sessionStorage.setItem('resumable-token', text), token)
  await page.route('**/v1/history', async (route) => {
    const answer = await route.fetch()
    await route.fulfill({ response: answer, json: hour(await answer.json()) })
  })
  await page.goto(`${admin}/dashboard/`)
  await page.waitForFunction(() => document.querySelectorAll('td.speed:not(:empty)').length > 1, null, { polling: 100 })
  if (open) {
    await page.getByRole('button', { name: open }).click()
    await page.waitForSelector('.events li')
  }
  writeFileSync(join(docs, name), small(await page.screenshot({ animations: 'disabled' })))
  await context.close()
}
await browser.close()
