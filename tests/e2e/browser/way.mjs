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
    this.refusal = null // {method, status, problem}: what is answered in the server's place
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
      return answer.writeHead(413, { 'Content-Type': 'text/html' }).end('<h1>413 Request Entity Too Large</h1>')
    }
    if (this.refusal?.method === method) {
      request.resume()
      const { status, problem } = this.refusal
      return answer.writeHead(status, { 'Content-Type': 'application/problem+json' }).end(JSON.stringify(problem))
    }
    const { hostname, port } = target
    const onward = http.request({ hostname, port, method, path, headers, agent: false }, (reply) => {
      answer.writeHead(reply.statusCode, reply.rawHeaders)
      reply.pipe(answer)
    })
    onward.on('error', () => answer.destroy())
    answer.on('close', () => onward.destroy())
    request.on('data', (data) => this.pass(request, onward, data))
    request.on('end', () => onward.end())
    onward.flushHeaders()
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
