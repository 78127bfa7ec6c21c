// Reads streams of a streamstack server: SSE, NDJSON and text, resumed after a lost connection. Types: streamstack.d.ts

// Formats that mark the end of a stream come first: a response that a proxy has cut off is then never taken for a whole one.
const ACCEPT = "text/event-stream, application/x-ndjson;q=0.9, text/plain;q=0.8";
const PREFIX = "streamstack:";

export class StreamError extends Error {
  name = "StreamError";
  constructor(code, message, fields) {
    super(message || code);
    Object.assign(this, fields, { code });
  }
}

export const stream = (url, options) => new Stream(url, options);

export function resume(url, options) {
  const id = options.store.getItem(PREFIX + (options.key ?? url));
  return id ? new Stream(url, options, id) : null;
}

class Stream {
  count = 0;
  end = null;
  firstChunkTime = null;
  progress = null;
  state = "new";
  #abort = new AbortController();
  #last = ""; // the id of the last chunk that was taken
  #next = 0; // the number that the next chunk has
  #retry;
  #idempotent;
  #key;
  #options;
  #signal;
  #url;

  constructor(url, options = {}, id = null) {
    const { body, key = url, signal } = options;
    this.id = id;
    this.#url = new URL(url, globalThis.location?.href);
    this.#options = { method: body == null ? "GET" : "POST", retries: 10, retryDelay: 1000, stallTimeout: 45000, ...options, key: PREFIX + key };
    this.#retry = this.#options.retryDelay;
    this.#signal = AbortSignal.any([this.#abort.signal, ...(signal ? [signal] : [])]);
    this.#idempotent = options.idempotent ?? this.#options.method === "GET";
  }

  async finished() {
    for await (const _ of this);
    return this.end;
  }

  async text() {
    let text = "";
    for await (const chunk of this) if (!chunk.event) text += chunk.text;
    return text;
  }

  async stop() {
    if (/done|failed|stopped/.test(this.state)) return;
    this.#enter("stopped");
    this.#abort.abort();
    // To the server, a lost connection cancels a run only where it can't be resumed.
    if (this.id) await this.#fetch(this.#own, { method: "DELETE", keepalive: true });
  }

  async *[Symbol.asyncIterator]() {
    if (this.state !== "new") throw new Error("a stream can be read once");
    const { onChunk, onDone, onError, onRetry, retries } = this.#options;
    const begun = performance.now();
    let slice = begun;
    try {
      for (let failures = 0; ; failures++) {
        try {
          for await (const chunk of this.#connect()) {
            failures = 0;
            this.firstChunkTime ??= performance.now() - begun;
            if (chunk.event !== "gap") this.count++;
            const total = chunk.metadata?.totalChunks ?? chunk.metadata?.total;
            if (total) this.progress = Math.min(1, this.count / total);
            onChunk?.(chunk, this);
            yield chunk;
            // A burst of chunks leaves the page time for its own work.
            if (performance.now() - slice > 20) {
              await new Promise((resolve) => setTimeout(resolve));
              slice = performance.now();
            }
          }
          if (this.state === "stopped") return;
          this.#enter("done");
          onDone?.(this.end, this);
          return;
        } catch (error) {
          if (this.state === "stopped") return;
          this.#signal.throwIfAborted();
          if (!error.again || failures >= retries) throw error;
          this.#enter("waiting");
          onRetry?.(error, this);
          const delay = Math.random() * Math.min(30000, this.#retry * 2 ** failures);
          await this.#wait(Math.max(error.after || 0, delay));
        }
      }
    } catch (error) {
      this.#enter("failed");
      onError?.(error, this);
      throw error;
    } finally {
      this.#abort.abort(); // the loop may have been left
    }
  }

  #enter(state) {
    const { key, onState, store } = this.#options;
    this.state = state;
    if (state === "streaming") this.id && store?.setItem(key, this.id);
    else if (/done|failed|stopped/.test(state)) store?.removeItem(key);
    onState?.(state, this);
  }

  get #own() {
    return new URL(`${this.#options.streams ?? "/_streams"}/${this.id}`, this.#url);
  }

  async #fetch(url, { headers, ...init }) {
    const { credentials, fetch = globalThis.fetch, headers: given } = this.#options;
    const all = new Headers(headers);
    new Headers(typeof given === "function" ? await given() : given).forEach((value, name) => all.set(name, value));
    return fetch(url, { cache: "no-store", credentials, headers: all, ...init });
  }

  // Yield what one response has of the stream; throw where that is not all.
  async *#connect() {
    const { done = true, stallTimeout } = this.#options;
    const stall = new AbortController();
    let timer;
    const watch = () => {
      clearTimeout(timer);
      if (stallTimeout) timer = setTimeout(() => stall.abort(new Error("the server was silent for too long")), stallTimeout);
    };
    const signal = AbortSignal.any([this.#signal, stall.signal]);
    let reader;
    this.#enter("connecting");
    try {
      watch();
      const response = await this.#request(signal);
      if (response.status === 204) return;
      const type = response.headers.get("Content-Type") ?? "";
      const sse = type.includes("event-stream");
      // Chromium takes a head that was cut off as a whole one, without a body. `Date` is the last of its lines.
      if (!sse && !/GMT$/.test(response.headers.get("Date"))) throw new Error("the response was cut off");
      const id = response.headers.get("X-Stream-Id");
      if (id?.length === 22) this.id = id;
      this.#enter("streaming");
      reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      const read = async () => {
        watch();
        const { value } = await reader.read();
        clearTimeout(timer); // a slow consumer is no stall
        return value;
      };
      for await (const chunk of sse ? this.#events(read) : type.includes("ndjson") ? this.#values(read) : pieces(read)) {
        yield chunk;
      }
      // Of a stream that can be resumed, the server says whether it has ended: by 204.
      if (!this.end && (this.id || (sse && done))) throw new Error("the response ended before the stream did");
      this.end ??= {};
    } catch (error) {
      if (error instanceof StreamError) throw error;
      const again = !!this.id || (this.#idempotent && !this.count);
      throw new StreamError("stream-lost", (stall.signal.reason ?? error).message, { again, cause: error });
    } finally {
      clearTimeout(timer);
      reader?.cancel().catch(() => {});
    }
  }

  async #request(signal) {
    const { body, format = ACCEPT, method, onUnauthorized } = this.#options;
    const headers = { Accept: format };
    const init = { headers, method, signal };
    if (this.id) {
      init.method = "GET";
      if (this.#last) headers["Last-Event-ID"] = this.#last;
    } else if (body != null) {
      const plain = /^(Object|Array)$/.test(body.constructor?.name);
      init.body = plain ? JSON.stringify(body) : body;
      if (plain) headers["Content-Type"] = "application/json";
      headers["Idempotency-Key"] = this.#key ??= crypto.getRandomValues(new Uint32Array(4)).join("-");
    }
    for (let tries = 0; ; tries++) {
      const response = await this.#fetch(this.id ? this.#own : this.#url, init);
      const { ok, status } = response;
      if (ok) return response;
      if (status === 401 && !tries && (await onUnauthorized?.(response))) continue;
      const problem = await response.json().catch(() => ({}));
      const wait = response.headers.get("Retry-After");
      // 429 and 503 say that nothing has begun.
      const again = status === 429 || status === 503 || (status > 500 && (!!this.id || this.#idempotent));
      throw new StreamError(problem.code ?? "http-status", problem.detail ?? `the server answered ${status}`, {
        ...problem, status, again, after: wait && (wait * 1000 || Date.parse(wait) - Date.now()),
      });
    }
  }

  #wait(time) {
    const { addEventListener, document, navigator, removeEventListener } = globalThis;
    const signal = this.#signal;
    return new Promise((resolve) => {
      let timer;
      const go = () => {
        clearTimeout(timer);
        signal.removeEventListener("abort", go);
        removeEventListener?.("online", go);
        document?.removeEventListener("visibilitychange", go);
        resolve();
      };
      signal.addEventListener("abort", go);
      addEventListener?.("online", go);
      document?.addEventListener("visibilitychange", go);
      if (navigator?.onLine !== false) timer = setTimeout(go, time);
    });
  }

  *#take(event, content, text, id, metadata = null) {
    if (event === "error") throw new StreamError(content.code, content.message, content);
    if (event === "done") return void (this.end = content?.constructor === Object ? content : { content });
    if (this.id && id) {
      const number = +id.split("/").pop();
      if (event === "gap") this.#next = content.to;
      else {
        // What the server no longer had when a reload read the stream from its beginning.
        if (number > this.#next) yield* this.#take("gap", { from: this.#next, to: number }, "", `${number}`);
        this.#next = number + 1;
      }
    }
    yield { content, event: event || null, id: id || null, metadata, text };
    if (this.id && id?.includes("/")) this.#last = id;
  }

  async *#events(read) {
    let data = [];
    let event, id;
    for await (const line of lines(read, /\r\n|\n|\r(?!$)/)) {
      const [, field, value] = /^([^:]*):? ?(.*)$/s.exec(line);
      if (field === "data") data.push(value);
      else if (field === "event") event = value;
      else if (field === "id") id = value;
      else if (field === "retry") this.#retry = +value || this.#retry;
      else if (!line) {
        if (data.length) {
          const text = data.join("\n");
          let content = text;
          if (/^[[{]/.test(text)) try { content = JSON.parse(text); } catch {}
          if (content?.constructor === Object && Object.keys(content).join() === "content,metadata")
            yield* this.#take(event, content.content, asText(content.content), id, content.metadata);
          else yield* this.#take(event, content, text, id);
          if (this.end) return;
        }
        data = [];
        event = id = "";
      }
    }
  }

  async *#values(read) {
    for await (const line of lines(read, "\n")) {
      if (!line) continue;
      const value = JSON.parse(line);
      const names = Object.keys(value ?? "").filter((name) => name !== "id").join();
      if (/^(error|done|gap)$/.test(names)) yield* this.#take(names, value[names], "", value.id);
      else if (/^(event,)?content(,metadata)?$/.test(names))
        yield* this.#take(value.event, value.content, asText(value.content), value.id, value.metadata);
      else yield* this.#take("", value, asText(value));
    }
  }
}

const asText = (value) => (typeof value === "string" ? value : JSON.stringify(value));

async function* lines(read, end) {
  let rest = "";
  for (let piece; (piece = await read()) != null; ) {
    const all = (rest + piece).split(end);
    rest = all.pop();
    yield* all;
  }
}

async function* pieces(read) {
  for (let text; (text = await read()) != null; ) yield { content: text, event: null, id: null, metadata: null, text };
}
