// The row of one upload. It is made once and changed in place, so that the focus stays where it is.
import * as server from './server.js'
import { hex } from './source.js'
import { duration, exact, percent, size, t, when, whole } from './words.js'

const SVG = 'http://www.w3.org/2000/svg'
const ICONS = {
  pause: 'M7 4.5v11M13 4.5v11',
  resume: 'M6.5 4.2v11.6l9-5.8z',
  retry: 'M15.6 8.2A6 6 0 1 0 16 10.9M15.8 4v4.4h-4.4',
  remove: 'M5 5l10 10M15 5 5 15',
  forget: 'M5 5l10 10M15 5 5 15',
  copyLink: 'M8.4 11.6l3.2-3.2M9.3 6.2l1.5-1.5a3.2 3.2 0 0 1 4.5 4.5l-1.5 1.5M10.7 13.8l-1.5 1.5a3.2 3.2 0 0 1-4.5-4.5l1.5-1.5',
  download: 'M10 3.8v8.6m0 0 3.6-3.6M10 12.4 6.4 8.8M4.5 15.8h11',
  done: 'M4.5 10.5l3.7 3.7 7.3-8',
}

/** An element. `about`: its attributes; `text`, `hidden` and listeners such as `onclick` are set as properties. */
export function make(name, about = {}, ...children) {
  const element = document.createElement(name)
  for (const [key, value] of Object.entries(about)) {
    if (key === 'text') element.textContent = value
    else if (key.startsWith('on') || key === 'hidden' || key === 'max') element[key] = value
    else element.setAttribute(key, value)
  }
  element.append(...children)
  return element
}

function icon(name) {
  const svg = document.createElementNS(SVG, 'svg')
  svg.setAttribute('viewBox', '0 0 20 20')
  svg.setAttribute('aria-hidden', 'true')
  const path = document.createElementNS(SVG, 'path')
  path.setAttribute('d', ICONS[name])
  svg.append(path)
  return svg
}

/** Set the text of an element, if it is another: else screen readers and selections would be disturbed. */
export function write(element, text) {
  if (element.textContent !== text) element.textContent = text
  element.hidden = !text
}

const badgeOf = (name) => (/\.([a-z0-9]{1,4})$/i.exec(name)?.[1] ?? '').toUpperCase()
const KNOWN = new Set(['pause', 'resume', 'retry', 'chooseAgain', 'download', 'copyLink', 'remove', 'forget'])

/** What can be done with an upload, in the order of the buttons. */
function actionsOf({ state, file, record, trouble }) {
  const link = record.url && server.hasDownloads && !server.token()
  if (state === 'unfinished') return ['chooseAgain', 'remove']
  if (state === 'failed') return [file ? 'retry' : 'chooseAgain', 'remove']
  if (state === 'paused') return ['resume', 'remove']
  if (state === 'waiting') return ['retry', 'pause', 'remove']
  if (state === 'processing') return []
  if (state === 'done' || state === 'storing') return [...(link ? ['download'] : []), ...(record.url ? ['copyLink'] : []), 'forget']
  return trouble ? ['remove'] : ['pause', 'remove']
}

export class Row {
  /** `act(name, sending)` is called for each button, and answers a promise of what is said beside it. */
  constructor(sending, act) {
    this.sending = sending
    this.buttons = new Map()
    this.act = act
    this.copies = []
    this.badge = make('span', { class: 'badge', 'aria-hidden': 'true' })
    this.name = make('p', { class: 'name', id: `name-${sending.record.id}` })
    this.label = make('span', { class: 'label' })
    this.figure = make('span', { class: 'figure' })
    this.bar = make('progress', { class: 'received', max: 1 })
    this.tiers = make('div', { class: 'tiers' }, this.label, this.bar, this.figure)
    this.line = make('p', { class: 'line' })
    this.trouble = make('p', { class: 'trouble', hidden: true })
    this.actions = make('div', { class: 'actions' })
    this.receipt = this.makeReceipt()
    const body = make('div', { class: 'body' }, this.name, this.tiers, this.line, this.trouble)
    this.element = make('li', { class: 'row', 'aria-labelledby': this.name.id }, this.badge, body, this.actions, this.receipt)
    this.update()
  }

  makeReceipt() {
    this.facts = make('dl')
    this.copyReceipt = make('button', { class: 'link', type: 'button', onclick: () => this.press('copyReceipt') })
    this.summary = make('summary')
    return make('details', { class: 'receipt', hidden: true }, this.summary, this.facts, this.copyReceipt)
  }

  async press(name) {
    const button = name === 'copyReceipt' ? this.copyReceipt : this.buttons.get(name)
    const said = await this.act(name, this.sending)
    if (!said || !button) return
    button.dataset.said = said
    setTimeout(() => delete button.dataset.said, 1600)
  }

  update() {
    const { sending } = this
    const { record, state } = sending
    const { name } = record
    this.element.dataset.state = state
    this.element.classList.toggle('trouble-some', sending.trouble)
    if (state === 'done') this.badge.replaceChildren(icon('done'))
    else write(this.badge, badgeOf(name) || '·')
    write(this.name, record.path || name)
    this.name.title = record.path || name
    this.tiers.hidden = state === 'done'
    this.bar.value = sending.size ? sending.arrived / sending.size : Number(sending.finished)
    this.bar.setAttribute('aria-label', t('receivedOf', { name }))
    write(this.label, sending.replicas.length ? t('received') : '')
    write(this.figure, percent(sending.arrived, sending.size))
    write(this.line, this.words())
    write(this.trouble, message(sending.problem))
    this.updateCopies()
    this.updateActions()
    this.updateReceipt()
  }

  words() {
    const { sending } = this
    const { state, record } = sending
    const all = size(sending.size)
    if (state === 'unfinished') {
      const key = record.url || record.urls ? 'again' : 'againNothing'
      return join(t(key, { percent: percent(sending.arrived, sending.size) }), all)
    }
    if (state === 'done') return join(t(record.copies ? 'doneStored' : 'doneReceived'), all, whole(when(record.finished)))
    if (state === 'storing') return this.storing()
    if (state === 'sending') {
      const { speed, arrived } = sending
      const left = speed > 0 ? (sending.size - arrived) / speed : 0
      return join(
        t('sending'),
        t('of', { done: size(arrived), all }),
        speed > 0 && t('rate', { size: size(speed) }),
        left >= 1 && Number.isFinite(left) && whole(t('left', { time: duration(left) })),
      )
    }
    const some = sending.arrived > 0 && sending.arrived < sending.size
    return join(t(state === 'locked' || state === 'failed' ? 'paused' : state), some ? t('of', { done: size(sending.arrived), all }) : all)
  }

  storing() {
    const troubles = this.sending.replicas.map((each) => each.trouble)
    if (troubles.includes('failed')) return t('parked')
    if (troubles.includes('retrying')) return t('retrying')
    const stores = this.sending.replicas.length
    if (!stores) return join(t('doneReceived'), size(this.sending.size))
    return stores > 1 ? t('storingMany', { n: stores }) : t('storing')
  }

  /** The second tier: a line for each remote. */
  updateCopies() {
    const { sending } = this
    const shown = sending.state === 'done' ? [] : sending.replicas
    while (this.copies.length < shown.length) {
      const copy = { label: make('span', { class: 'label' }), bar: make('progress', { max: 1 }), figure: make('span', { class: 'figure' }) }
      this.copies.push(copy)
      this.tiers.append(copy.label, copy.bar, copy.figure)
    }
    shown.forEach((replica, index) => {
      const { label, bar, figure } = this.copies[index]
      const text = replica.remote ?? (shown.length > 1 ? t('copy', { n: index + 1 }) : t('stored'))
      const stored = replica.state === 'stored' ? sending.size : replica.confirmed
      write(label, text)
      bar.value = sending.size ? stored / sending.size : 1
      bar.setAttribute('aria-label', t('copyOf', { name: sending.record.name, copy: text }))
      write(figure, percent(stored, sending.size))
    })
  }

  updateActions() {
    const wanted = actionsOf(this.sending)
    for (const action of KNOWN) {
      const button = this.buttons.get(action)
      if (!wanted.includes(action)) {
        if (!button) continue
        const focused = button === document.activeElement
        button.remove()
        this.buttons.delete(action)
        if (focused) this.lostFocus = true
      } else if (!button) {
        this.buttons.set(action, this.button(action))
      }
    }
    const order = wanted.map((action) => this.buttons.get(action))
    if (order.some((each, index) => this.actions.children[index] !== each)) this.actions.append(...order)
    for (const [action, button] of this.buttons) {
      const label = t('actionOf', { action: t(action), name: this.sending.record.name })
      button.setAttribute('aria-label', label)
      if (action === 'chooseAgain') button.textContent = t(action)
      else button.title = t(action)
      if (action === 'download') button.href = this.sending.record.url
    }
    if (this.lostFocus) {
      this.lostFocus = false
      ;(order[0] ?? document.getElementById('choose')).focus()
    }
  }

  button(action) {
    if (action === 'download') return make('a', { class: 'icon', download: this.sending.record.name }, icon(action))
    const about = { type: 'button', class: action === 'chooseAgain' ? 'plain small' : 'icon', onclick: () => this.press(action) }
    return make('button', about, ...(action === 'chooseAgain' ? [] : [icon(action)]))
  }

  updateReceipt() {
    const { sending } = this
    this.receipt.hidden = !sending.finished
    if (!sending.finished) return
    write(this.summary, t('receipt'))
    write(this.copyReceipt, t('copyReceipt'))
    const facts = receipt(sending.record)
    const now = facts.flat().join('\n')
    if (now === this.known) return
    this.known = now
    this.facts.replaceChildren(...facts.flatMap(([term, text]) => [make('dt', { text: term }), make('dd', { text })]))
  }
}

const join = (...parts) => parts.filter(Boolean).join(' · ')

/** A problem in words. */
export function message(problem) {
  if (!problem) return ''
  const { bytes, otherBytes, time, ...values } = problem.values ?? {}
  if (bytes !== undefined) values.size = size(bytes)
  if (otherBytes !== undefined) values.other = bytes === undefined || size(bytes) !== size(otherBytes) ? size(otherBytes) : t('rBytes', { n: exact(otherBytes) })
  if (bytes !== undefined && otherBytes !== undefined && size(bytes) === size(otherBytes)) values.size = t('rBytes', { n: exact(bytes) })
  if (time !== undefined) values.other = when(time)
  return t(problem.key, values)
}

/** What is worth keeping of a finished upload: [term, text]. */
export function receipt(record) {
  return [
    [t('rName'), record.path || record.name],
    [t('rSize'), t('rBytes', { n: exact(record.size) })],
    ...digests(record.digest).map(([name, digest]) => [`${t('rDigest')} (${name})`, digest]),
    [t('rTime'), new Date(record.finished).toISOString().replace(/\.\d+Z/, 'Z')],
    ...(record.url ? [[t('rLink'), record.url]] : []),
  ]
}

/** As programs such as sha256sum write them; RFC 9530 has Base64. */
function digests(text) {
  return [...(text ?? '').matchAll(/([a-z0-9-]+)=:([A-Za-z0-9+/=]+):/g)].map(([, name, base64]) => [
    name.toUpperCase(),
    hex(Uint8Array.from(atob(base64), (each) => each.charCodeAt(0))),
  ])
}
