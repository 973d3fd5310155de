// The page: what people do with it, and what it tells them.
import { LANGUAGES } from './messages.js'
import { Queue } from './queue.js'
import { make, message, receipt, Row, write } from './row.js'
import * as server from './server.js'
import { dropped } from './source.js'
import { currentLanguage, duration, percent, setLanguage, size, t, whole } from './words.js'

const MOST_ROWS = 100
const get = (id) => document.getElementById(id)
const rows = new Map()
const SECTIONS = { unfinished: get('unfinished'), now: get('now'), sent: get('sent') }
const UNDER_WAY = new Set(['sending', 'processing', 'looking', 'queued', 'waiting'])
const MANY = 50
const stale = new Set() // uploads whose rows are to be written anew
const together = new Set() // those that were begun before all others were done: the total is theirs
let waitingForPaint = false
let chosenFor = null
let announcements = []

const queue = new Queue(changed)

function sectionOf({ state, finished }) {
  return state === 'unfinished' ? 'unfinished' : finished ? 'sent' : 'now'
}

// --- what is shown ---------------------------------------------------------------------------------------------------

function changed(sending, was) {
  if (sending.state !== was) tell(sending, was)
  stale.add(sending)
  if (waitingForPaint) return
  waitingForPaint = true
  // A page in the background isn't painted, and its title is all there is to see.
  if (document.hidden) setTimeout(paint, 1000)
  else if (queue.all.length > MANY) setTimeout(paint, 200)
  else requestAnimationFrame(paint)
}

function paint() {
  waitingForPaint = false
  for (const [sending, row] of rows) if (!queue.all.includes(sending)) discard(sending, row)
  for (const [name, section] of Object.entries(SECTIONS)) show(name, section)
  document.body.classList.toggle('busy', queue.all.length > 0)
  showTotal()
  get('access').hidden = !queue.in('locked').length
  stale.clear()
}

function show(name, section) {
  const inside = queue.all.filter((each) => sectionOf(each) === name)
  if (name === 'sent') inside.sort((one, other) => (one.record.finished < other.record.finished ? 1 : -1))
  section.hidden = !inside.length
  const list = section.querySelector('.rows')
  inside.slice(0, MOST_ROWS).forEach((sending, index) => {
    let row = rows.get(sending)
    if (!row) rows.set(sending, (row = new Row(sending, act)))
    if (stale.has(sending)) row.update()
    if (list.children[index] !== row.element) place(list, row.element, index)
  })
  const shown = Math.min(inside.length, MOST_ROWS)
  while (list.children.length > shown) list.lastChild.remove()
  write(section.querySelector('.more'), inside.length > shown ? t('more', { n: inside.length - shown }) : '')
}

function place(list, element, index) {
  const focused = element.contains(document.activeElement) ? document.activeElement : null
  list.insertBefore(element, list.children[index] ?? null)
  focused?.focus()
}

function discard(sending, row) {
  const list = row.element.parentElement
  const focused = row.element.contains(document.activeElement)
  const next = row.element.nextElementSibling ?? row.element.previousElementSibling
  row.element.remove()
  rows.delete(sending)
  if (focused) (next?.querySelector('button, a') ?? (list?.children.length ? null : get('choose')))?.focus()
}

function showTotal() {
  const live = queue.all.filter((each) => sectionOf(each) === 'now')
  live.forEach((each) => together.add(each))
  if (!live.length) together.clear()
  for (const each of together) if (each.state === 'removed') together.delete(each)
  const bytes = [...together].reduce((sum, each) => sum + each.size, 0)
  const arrived = [...together].reduce((sum, each) => sum + each.arrived, 0)
  const speed = live.reduce((sum, each) => sum + (each.state === 'sending' ? each.speed : 0), 0)
  get('pause-all').hidden = !live.some((each) => UNDER_WAY.has(each.state) && each.state !== 'processing')
  get('resume-all').hidden = !live.some((each) => each.state === 'paused')
  const total = get('total')
  total.hidden = together.size < 2
  const [bar, line] = total.children
  bar.value = bytes ? arrived / bytes : 0
  bar.setAttribute('aria-label', t('total'))
  const left = speed > 0 && (bytes - arrived) / speed
  write(
    line,
    [
      t('count', { n: live.length }),
      t('of', { done: size(arrived), all: size(bytes) }),
      speed > 0 && t('rate', { size: size(speed) }),
      left >= 1 && whole(t('left', { time: duration(left) })),
    ]
      .filter(Boolean)
      .join(' · '),
  )
  const some = live.some((each) => UNDER_WAY.has(each.state))
  document.title = some && bytes ? `${percent(arrived, bytes)} – ${t('title')}` : t('title')
}

function translate() {
  document.documentElement.lang = currentLanguage()
  for (const element of document.querySelectorAll('[data-t]')) element.textContent = t(element.dataset.t)
  for (const sending of rows.keys()) stale.add(sending)
  paint()
}

// --- what is said to screen readers: changes of state, never figures ---------------------------------------------------

function say(text) {
  announcements.push(text)
  if (announcements.length > 1) return
  setTimeout(() => {
    get('say').textContent = announcements.slice(-3).join(' ')
    announcements = []
  }, 700)
}

function tell(sending, was) {
  const { name } = sending.record
  const { state } = sending
  if (state === 'storing' && was === 'processing') say(t('saySent', { name }))
  if (state === 'done' && was) say(t(sending.record.copies ? 'sayStored' : 'saySent', { name }))
  if (state === 'failed') say(`${name}: ${message(sending.problem)}`)
  if (state === 'waiting' && sending.attempts === 1 && sending.problem) say(sending.problem.key === 'offline' ? t('sayOffline') : `${name}: ${message(sending.problem)}`)
  if (state === 'sending' && sending.attempts && was === 'looking' && !queue.in('waiting').length) say(t('sayOnline'))
  if (state === 'locked' && queue.in('locked').length === 1) askForToken()
}

// --- what people do ----------------------------------------------------------------------------------------------------

async function act(name, sending) {
  const { record } = sending
  if (name === 'pause') sending.pause()
  if (name === 'resume') sending.resume()
  if (name === 'retry') sending.again('failed')
  if (name === 'chooseAgain') choose(sending)
  if (name === 'copyLink') return copy(record.url)
  if (name === 'copyReceipt') return copy(receipt(record).map(([term, text]) => `${term}: ${text}`).join('\n'))
  if (name === 'forget') await sending.remove()
  if (name === 'remove') {
    const asks = sending.arrived > 0
    const text = t('askRemoveText', { percent: percent(sending.arrived, sending.size) })
    if (asks && !(await ask(t('askRemove', { name: record.name }), text, t('remove')))) return null
    await sending.remove()
    say(t('sayRemoved', { name: record.name }))
  }
  return null
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text)
  } catch {
    // pages of http have no clipboard of their own
    const field = make('textarea', { class: 'unseen', 'aria-hidden': 'true' })
    const focused = document.activeElement
    field.value = text
    document.body.append(field)
    field.select()
    document.execCommand('copy')
    field.remove()
    focused?.focus()
  }
  say(t('copied'))
  return t('copied')
}

/** A question with two answers; whether it was the second. */
function ask(title, text, yes) {
  const dialog = get('ask')
  get('ask-title').textContent = title
  get('ask-text').textContent = text
  get('ask-yes').textContent = yes
  dialog.returnValue = ''
  dialog.showModal()
  return new Promise((resolve) => dialog.addEventListener('close', () => resolve(dialog.returnValue === 'yes'), { once: true }))
}

function choose(sending) {
  chosenFor = sending
  get('same').click()
}

async function chose(input) {
  const files = [...input.files]
  input.value = ''
  if (input.id !== 'same') return added(await queue.addChosen(files))
  const sending = chosenFor
  chosenFor = null
  if (!files.length || !sending) return null
  const problem = await queue.chooseAgain(sending, files[0])
  if (problem) {
    sending.set(sending.state, problem, true)
    say(message(problem))
  }
  return null
}

function added({ added: count, duplicates }) {
  if (count) say(t('sayAdded', { count: t('count', { n: count }) }))
  for (const name of duplicates) say(t('duplicate', { name }))
}

function askForToken() {
  get('access').hidden = false
  get('token-help').textContent = t(server.token() ? 'tokenWrong' : 'tokenHelp')
  get('token').value = ''
  get('token').focus()
}

function drops() {
  let depth = 0
  const carriesFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes('Files')
  const over = (more) => {
    depth = Math.max(0, depth + more)
    get('drop').classList.toggle('over', depth > 0)
  }
  addEventListener('dragenter', (event) => carriesFiles(event) && over(1))
  addEventListener('dragleave', (event) => carriesFiles(event) && over(-1))
  addEventListener('dragover', (event) => {
    if (!carriesFiles(event)) return
    event.preventDefault()
    event.dataTransfer.dropEffect = 'copy'
  })
  addEventListener('drop', async (event) => {
    if (!carriesFiles(event)) return
    event.preventDefault()
    over(-depth)
    const files = await dropped(event.dataTransfer, (name) => say(`${name}: ${t('directory')}`))
    added(await queue.add(files))
  })
}

function buttons() {
  get('choose').onclick = () => get('files').click()
  get('choose-folder').onclick = () => get('folder').click()
  for (const id of ['files', 'folder', 'same']) get(id).onchange = (event) => chose(event.target)
  get('pause-all').onclick = () => queue.live.forEach((each) => each.pause())
  get('resume-all').onclick = () => queue.in('paused').forEach((each) => each.resume())
  get('remove-all').onclick = async () => {
    if (!(await ask(t('askRemoveAll'), t('askRemoveAllText'), t('removeAll')))) return
    const open = queue.all.filter((each) => sectionOf(each) === 'now')
    await Promise.all(open.map((each) => each.remove()))
    get('choose').focus()
  }
  get('clear').onclick = async () => {
    if (!(await ask(t('askClear'), t('askClearText'), t('clear')))) return
    await Promise.all(queue.in('done').map((each) => each.remove()))
    get('choose').focus()
  }
  get('ask-no').onclick = () => get('ask').close('')
  get('ask-yes').onclick = () => get('ask').close('yes')
  get('token-form').onsubmit = (event) => {
    event.preventDefault()
    server.setToken(get('token').value.trim())
    queue.unlock()
    get('choose').focus()
  }
}

function settings() {
  const select = get('language')
  select.append(...Object.entries(LANGUAGES).map(([value, text]) => make('option', { value, text, lang: value })))
  select.value = currentLanguage()
  select.onchange = () => {
    setLanguage(select.value)
    translate()
  }
  get('parts-choice').hidden = !server.extensions.has('concatenation')
  get('parts-choice').title = t('partsHelp')
  get('parts').checked = queue.parts
  get('parts').onchange = (event) => (queue.parts = event.target.checked)
  get('choose-folder').hidden = !('webkitdirectory' in get('folder'))
}

buttons()
drops()
settings()
translate()
queue.load().then(paint)
// Speed and time left change while nothing else does.
setInterval(() => queue.live.filter((each) => each.running).forEach((each) => changed(each, each.state)), 1000)
