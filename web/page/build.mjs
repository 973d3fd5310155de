// Makes the files of the upload page from their sources: node build.mjs DIRECTORY
// page.js begins with the digest of all sources and of the lock file: tests see by it that it was made of these.
import { createHash } from 'node:crypto'
import { copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'

const here = dirname(fileURLToPath(import.meta.url))
const out = resolve(process.argv[2])
mkdirSync(out, { recursive: true })

const sources = ['build.mjs', 'icon.svg', 'index.html', 'package-lock.json', 'package.json', 'page.css']
sources.push(...readdirSync(join(here, 'js')).filter((name) => name.endsWith('.js')).map((name) => `js/${name}`))
const digest = createHash('sha256')
for (const name of sources.sort()) digest.update(`${name}\0`).update(readFileSync(join(here, name))).update('\0')

const common = { absWorkingDir: here, bundle: true, minify: true, charset: 'utf8', legalComments: 'none', write: true }
const made = await build({
  ...common,
  entryPoints: ['js/main.js'],
  outfile: join(out, 'page.js'),
  format: 'esm',
  platform: 'browser',
  target: ['es2022'],
  metafile: true,
  banner: { js: `/*! sources ${digest.digest('hex')}; licenses: licenses.txt */` },
})
await build({ ...common, entryPoints: ['page.css'], outfile: join(out, 'page.css'), target: ['chrome111', 'firefox113', 'safari16.4'] })
for (const name of ['index.html', 'icon.svg']) copyFileSync(join(here, name), join(out, name))
writeFileSync(join(out, 'licenses.txt'), licenses(Object.keys(made.metafile.inputs)))

// The licenses of all packages that are in the bundle.
function licenses(inputs) {
  const names = inputs.map((path) => /^node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(path)?.[1]).filter(Boolean)
  const texts = [...new Set(names)].sort().map((name) => {
    const place = join(here, 'node_modules', name)
    const { version, license } = JSON.parse(readFileSync(join(place, 'package.json'), 'utf8'))
    const file = ['LICENSE', 'LICENSE.md', 'LICENSE.txt', 'license'].map((each) => join(place, each)).find(existsSync)
    const text = file ? readFileSync(file, 'utf8').trim() : `It has no file with its license, ${license}.`
    return `${name} ${version} (${license})\n\n${text}\n`
  })
  const rule = `\n${'-'.repeat(78)}\n\n`
  return [`The upload page has these libraries in its script:\n`, ...texts].join(rule)
}
