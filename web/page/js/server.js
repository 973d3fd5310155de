// The server of this page: its address, what it can do, its answers. All addresses are the page's own, whatever host and
// prefix the server believes to have: so the page works behind any proxy, and its policy needs no other host.
import { DefaultHttpStack } from 'tus-js-client'
import { keep, kept } from './words.js'

const TOKEN = 'resumable-token'
const { dataset } = document.documentElement

export const BASE = new URL('.', location.href).pathname
export const extensions = new Set(dataset.extensions.split(' '))
export const hasDownloads = Boolean(dataset.downloads)
const statusPath = dataset.status

/** Where uploads are made; what a signed address of the page allows goes along. */
export const endpoint = () => new URL(location.origin + BASE + ticket()).href

function ticket() {
  const token = new URLSearchParams(location.search).get('token')
  return token ? `?${new URLSearchParams({ token })}` : ''
}

export const token = () => kept(TOKEN, 'sessionStorage')
export const setToken = (text) => keep(TOKEN, text, 'sessionStorage')

function authorization() {
  const value = token()
  return value ? { Authorization: `Bearer ${value}` } : {}
}

/** The upload's address as this page sees it, from the server's Location. */
export function own(address) {
  const { pathname, search } = new URL(address, endpoint())
  return new URL(pathname.slice(pathname.lastIndexOf('/') + 1) + search, location.origin + BASE).href
}

/** tus-js-client's requests, with the token, and Location made `own`. */
export class Stack extends DefaultHttpStack {
  createRequest(method, url) {
    const request = super.createRequest(method, url)
    for (const [name, value] of Object.entries(authorization())) request.setHeader(name, value)
    const send = request.send.bind(request)
    request.send = async (body) => {
      const response = await send(body)
      const header = response.getHeader.bind(response)
      response.getHeader = (name) => {
        const value = header(name)
        return name === 'Location' && value ? own(value) : value
      }
      return response
    }
    return request
  }
}

const ask = (method, url, headers = {}, more = {}) =>
  fetch(url, { method, headers: { 'Tus-Resumable': '1.0.0', ...authorization(), ...headers }, cache: 'no-store', ...more })

/** The largest upload that the server takes, in bytes; Infinity: any. */
export async function maxSize() {
  try {
    const answer = await ask('OPTIONS', endpoint())
    return Number(answer.headers.get('Tus-Max-Size')) || Infinity
  } catch {
    return Infinity
  }
}

/** How many bytes of an upload are there; null: the server didn't say; -1: it is gone. */
export async function offsetOf(url) {
  try {
    const answer = await ask('HEAD', url)
    if (answer.status === 404 || answer.status === 410) return -1
    const offset = answer.headers.get('Upload-Offset')
    return answer.ok && offset !== null ? Number(offset) : null
  } catch {
    return null
  }
}

/** End an upload; whether the server no longer has it. */
export async function terminate(url) {
  try {
    const answer = await ask('DELETE', url)
    return answer.ok || answer.status === 404 || answer.status === 410
  } catch {
    return false
  }
}

export const hasStatus = () => Boolean(statusPath)

function statusOf(url) {
  const address = new URL(url)
  address.pathname += `/${statusPath}`
  return address.href
}

/** The upload's status; null: the server can't be reached, or its answer was cut. Throws `NoStatus` where there is none
 *  to be had. */
export async function status(url) {
  try {
    const answer = await ask('GET', statusOf(url), { Accept: 'application/json' }, { signal: AbortSignal.timeout?.(20_000) })
    if (answer.status === 429 || answer.status >= 500) return null
    if (!answer.ok) throw new NoStatus(answer.status)
    const document = await answer.json()
    return document && 'received' in document ? document : null
  } catch (error) {
    if (error instanceof NoStatus) throw error
    return null
  }
}

export class NoStatus extends Error {}

/** Each status that the server sends by itself, until it ends that, or `signal` is aborted; whether it sends any. */
export async function statusEvents(url, signal, each) {
  const answer = await ask('GET', statusOf(url), { Accept: 'text/event-stream' }, { signal })
  if (!answer.ok || !answer.headers.get('Content-Type')?.startsWith('text/event-stream')) {
    await answer.body?.cancel()
    return !answer.ok
  }
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader()
  let text = ''
  for (;;) {
    const { value, done } = await reader.read()
    if (done) return true
    text += value
    const events = text.split(/\r?\n\r?\n/)
    text = events.pop()
    for (const event of events) {
      const lines = event.split(/\r?\n/).filter((line) => line.startsWith('data:'))
      const document = lines.length ? JSON.parse(lines.map((line) => line.slice(5)).join('\n')) : null
      if (document && 'received' in document) each(document)
    }
  }
}
