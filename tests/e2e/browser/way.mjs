// The way between a browser and the server, on which a test makes trouble: it is cut, stands still after some bytes, or
// refuses large requests as a proxy does. It can take a prefix off the path.
import http from 'node:http'

export class Way {
  static async to(origin, prefix = '') {
    const way = new Way(new URL(origin), prefix)
    await new Promise((resolve) => way.server.listen(0, '127.0.0.1', resolve))
    way.origin = `http://127.0.0.1:${way.server.address().port}`
    return way
  }

  constructor(target, prefix) {
    this.requests = [] // {method, path, offset, length, accept}
    this.largest = Infinity
    this.streams = true // whether answers may be streams of events
    this.refusal = null // {method, status, problem}: what is answered in the server's place; `path`: ends so
    this.tooLarge = ['text/html', '<h1>413 Request Entity Too Large</h1>']
    this.torn = 0 // how many answers to GET of JSON end in their middle
    this.unstored = false // whether statuses say that no copy is stored
    this.underWay = [0, 0] // requests with bytes at once: now, at the most
    this.down = false
    this.left = Infinity
    this.sockets = new Set()
    this.server = http.createServer((request, answer) => this.forward(target, prefix, request, answer))
    this.server.on('connection', (socket) => {
      if (this.down) return socket.destroy()
      this.sockets.add(socket)
      socket.on('close', () => this.sockets.delete(socket))
    })
  }

  /** Let so many bytes of bodies through; answers when they are, and all that follows stands still. */
  standStillAfter(bytes) {
    this.left = bytes
    return new Promise((resolve) => (this.still = resolve))
  }

  cut() {
    this.down = true
    this.left = Infinity
    this.sockets.forEach((each) => each.destroy())
  }

  mend() {
    this.down = false
  }

  close() {
    this.cut()
    this.server.close()
  }

  of(method) {
    return this.requests.filter((each) => each.method === method)
  }

  forward(target, prefix, request, answer) {
    const { method, headers } = request
    if (!this.streams && headers.accept === 'text/event-stream') headers.accept = 'application/json'
    const length = Number(headers['content-length'] ?? 0)
    const path = request.url.startsWith(prefix) ? request.url.slice(prefix.length) : '/'
    this.requests.push({ method, path, length, accept: headers.accept, offset: Number(headers['upload-offset']) })
    if (length > this.largest) {
      request.resume()
      return answer.writeHead(413, { 'Content-Type': this.tooLarge[0] }).end(this.tooLarge[1])
    }
    if (method === 'GET' && this.torn > 0 && headers.accept === 'application/json') {
      this.torn -= 1
      answer.writeHead(200, { 'Content-Type': 'application/json', 'Content-Length': 100 }).write('{"received": 1')
      return setImmediate(() => answer.destroy())
    }
    if (this.refusal?.method === method && path.endsWith(this.refusal.path ?? '')) {
      request.resume()
      const { status, problem } = this.refusal
      return answer.writeHead(status, { 'Content-Type': 'application/problem+json' }).end(JSON.stringify(problem))
    }
    const { hostname, port } = target
    const onward = http.request({ hostname, port, method, path, headers, agent: false }, (reply) => {
      if (this.unstored && path.endsWith('/status')) return this.unsay(reply, answer)
      answer.writeHead(reply.statusCode, reply.rawHeaders)
      reply.pipe(answer)
    })
    if (method === 'PATCH') {
      this.underWay = [this.underWay[0] + 1, Math.max(this.underWay[1], this.underWay[0] + 1)]
      answer.on('close', () => (this.underWay[0] -= 1))
    }
    onward.on('error', () => answer.destroy())
    answer.on('close', () => onward.destroy())
    request.on('data', (data) => this.pass(request, onward, data))
    request.on('end', () => onward.end())
    onward.flushHeaders()
  }

  unsay(reply, answer) {
    answer.writeHead(reply.statusCode, { 'Content-Type': reply.headers['content-type'] })
    reply.on('data', (data) => answer.write(String(data).replaceAll(/"state": ?"stored"/g, '"state":"open"')))
    reply.on('end', () => answer.end())
  }

  pass(request, onward, data) {
    const now = data.subarray(0, this.left)
    this.left -= now.length
    if (now.length && !onward.write(now)) {
      request.pause()
      onward.once('drain', () => this.left && request.resume())
    }
    if (this.left > 0) return
    request.pause() // for good: only a cut ends it
    this.still?.()
    this.still = null
  }
}
