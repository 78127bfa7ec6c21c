// Opens one YAML text in yaml-language-server, and answers questions about it: JSON on stdin, JSON on stdout.
import { spawn } from 'node:child_process'
import { createRequire } from 'node:module'

const { root, file, schemas, text, hovers, completions } = JSON.parse(await new Response(process.stdin).text())
const server = spawn(process.execPath, [createRequire(import.meta.url).resolve('yaml-language-server/bin/yaml-language-server'), '--stdio'])
let buffer = Buffer.alloc(0), id = 0
const waiting = new Map()
let diagnostics
const diagnosed = new Promise(resolve => (diagnostics = resolve))
server.stdout.on('data', data => {
  buffer = Buffer.concat([buffer, data])
  for (;;) {
    const end = buffer.indexOf('\r\n\r\n')
    if (end < 0) return
    const size = Number(/Content-Length: (\d+)/.exec(buffer.subarray(0, end))[1])
    if (buffer.length < end + 4 + size) return
    const message = JSON.parse(buffer.subarray(end + 4, end + 4 + size))
    buffer = buffer.subarray(end + 4 + size)
    if (message.method === 'textDocument/publishDiagnostics') diagnostics(message.params.diagnostics)
    else if (message.method && message.id !== undefined)
      send({ id: message.id, result: message.method === 'workspace/configuration' ? message.params.items.map(({ section }) => (section === 'yaml' ? settings : null)) : null })
    else if (message.id !== undefined) waiting.get(message.id)?.(message.result)
  }
})
const send = message => {
  const body = JSON.stringify({ jsonrpc: '2.0', ...message })
  server.stdin.write(`Content-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`)
}
const ask = (method, params) => new Promise(resolve => { waiting.set(++id, resolve); send({ id, method, params }) })
const settings = { hover: true, completion: true, validate: true, schemas, schemaStore: { enable: false } }
const uri = `${root}/${file}`
await ask('initialize', { processId: process.pid, rootUri: root, workspaceFolders: [{ uri: root, name: 'project' }], capabilities: { textDocument: { completion: { completionItem: { snippetSupport: true } }, hover: { contentFormat: ['markdown'] } } } })
send({ method: 'initialized', params: {} })
send({ method: 'workspace/didChangeConfiguration', params: { settings: { yaml: settings } } })
send({ method: 'textDocument/didOpen', params: { textDocument: { uri, languageId: 'yaml', version: 1, text } } })
const place = ([line, character]) => ({ textDocument: { uri }, position: { line, character } })
const answer = { diagnostics: (await diagnosed).map(each => ({ line: each.range.start.line, message: each.message })), hovers: [], completions: [] }
for (const each of hovers ?? []) answer.hovers.push((await ask('textDocument/hover', place(each)))?.contents?.value ?? '')
for (const each of completions ?? [])
  answer.completions.push(((await ask('textDocument/completion', place(each)))?.items ?? []).map(({ label, insertText, textEdit, documentation }) => ({ label, insert: textEdit?.newText ?? insertText, documentation: documentation?.value ?? documentation })))
process.stdout.write(JSON.stringify(answer))
server.kill()
process.exit(0)
