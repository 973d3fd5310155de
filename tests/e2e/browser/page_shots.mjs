// Pictures of the upload page: node page_shots.mjs CHROMIUM SERVER DIRECTORY DOCS
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { chromium } from 'playwright-core'
import { small } from './small.mjs'

const [executablePath, origin, directory, docs] = process.argv.slice(2)
const SHOTS = {
  'page.png': { colorScheme: 'light', viewport: { width: 880, height: 600 } },
  'page-dark.png': { colorScheme: 'dark', viewport: { width: 880, height: 600 } },
  'page-phone.png': { colorScheme: 'light', viewport: { width: 360, height: 600 }, deviceScaleFactor: 1.5, hasTouch: true },
}
const file = (name) => join(directory, name)
const at = (name, state) => `.row[data-state=${state}]:has(.name:text-is("${name}"))`

const browser = await chromium.launch({ executablePath, args: ['--no-sandbox', '--disable-gpu'] })
for (const [name, options] of Object.entries(SHOTS)) {
  const context = await browser.newContext({ locale: 'en-GB', timezoneId: 'UTC', ...options })
  const page = await context.newPage()
  const line = await context.newCDPSession(page)
  const speed = (uploadThroughput) =>
    line.send('Network.emulateNetworkConditions', { offline: false, latency: 0, downloadThroughput: -1, uploadThroughput })
  await page.goto(origin)
  await page.setInputFiles('#files', [file('garden.jpg'), file('thesis.pdf')])
  await page.waitForSelector(at('garden.jpg', 'done'))
  await page.waitForSelector(at('thesis.pdf', 'done'))
  if (!options.hasTouch) await page.locator('.row', { hasText: 'thesis.pdf' }).locator('summary').click()
  await speed(12_000_000)
  await page.setInputFiles('#files', [file('Iceland in June.mp4'), file('songs.flac')])
  await page.waitForFunction(() => [...document.querySelectorAll('#now .received')].at(-1)?.value > 0.3, null, { polling: 50 })
  await page.getByRole('button', { name: 'Pause: songs.flac' }).click()
  await page.waitForFunction(() => {
    const [received, stored] = document.querySelectorAll('#now .row progress')
    return received.value > 0.4 && stored?.value > 0.2
  }, null, { polling: 50 })
  await page.mouse.move(0, 0)
  writeFileSync(join(docs, name), small(await page.screenshot({ fullPage: true, animations: 'disabled' })))
  await page.evaluate(() => addEventListener('beforeunload', (event) => event.stopImmediatePropagation(), { capture: true }))
  await context.close()
}
await browser.close()
