/** One chunk of a stream. */
export interface Chunk<Content = unknown> {
  /** What the step sent. Over SSE, an object or a list without metadata is parsed; other values are text. */
  content: Content;
  /** The content as text, unchanged. */
  text: string;
  /** The event's name; null if it has none. `gap` reports missing chunks: its content is {from, to}. */
  event: string | null;
  /** The chunk's id; null if it has none. */
  id: string | null;
  /** The chunk's metadata; null if it has none. */
  metadata: Record<string, unknown> | null;
}

/** What the end marker says, such as {chunks, elapsedMs}. Empty in formats without an end marker. */
export type End = Record<string, unknown>;

/** `waiting`: the connection was lost, and the stream is resumed after a delay. */
export type State = "new" | "connecting" | "streaming" | "waiting" | "done" | "stopped" | "failed";

export interface Options<Content = unknown> {
  /** Default: GET without a body, POST with one. */
  method?: string;
  /** An object or a list is sent as JSON, anything else as `fetch` sends it. */
  body?: BodyInit | object | null;
  /** Headers of each request; a function is called for each, so that it can return a fresh token. */
  headers?: HeadersInit | (() => HeadersInit | Promise<HeadersInit>);
  /** As for `fetch`: "include" sends cookies to another origin. */
  credentials?: RequestCredentials;
  /** The `Accept` header. Default: SSE, then NDJSON, then text. */
  format?: string;
  /** Stops reading. To the server this is a lost connection: a resumable run waits for its client. See `stop()`. */
  signal?: AbortSignal;
  /**
   * The first request may be repeated if its response was lost. Default: true for GET. Set it for a POST endpoint with
   * `streaming.resume`: repeated requests have the same `Idempotency-Key`, which begins one run only.
   */
  idempotent?: boolean;
  /** Failures in a row, without a chunk between them, before the stream fails. Default: 10. */
  retries?: number;
  /** Milliseconds before the first retry; doubles up to 30 s, with full jitter. `retry:` of the server sets it. Default: 1000. */
  retryDelay?: number;
  /** Milliseconds without a byte before the connection counts as lost; 0 turns it off. Default: 45000, three heartbeats. */
  stallTimeout?: number;
  /** Where the stream's id is stored, so that `resume` finds it after a reload. */
  store?: Pick<Storage, "getItem" | "setItem" | "removeItem">;
  /** The name under which the id is stored. Default: the URL. */
  key?: string;
  /** False for an endpoint with `streaming: {done: false}`: a clean end of SSE is the stream's end. */
  done?: boolean;
  /** The path of the server's streams, for an application that is mounted under a prefix. Default: `/_streams`. */
  streams?: string;
  /** In place of the global `fetch`. */
  fetch?: typeof globalThis.fetch;
  onChunk?(chunk: Chunk<Content>, stream: Stream<Content>): void;
  onState?(state: State, stream: Stream<Content>): void;
  onRetry?(error: StreamError, stream: Stream<Content>): void;
  onDone?(end: End, stream: Stream<Content>): void;
  onError?(error: unknown, stream: Stream<Content>): void;
  /** Called for a 401; return true to send the request once more, with the headers that `headers` then returns. */
  onUnauthorized?(response: Response): boolean | Promise<boolean>;
}

/** A failed stream or request. A stream that ended early fails with the code `stream-lost`. */
export class StreamError extends Error {
  readonly name: "StreamError";
  /** The code of the server's error, `stream-lost`, or `http-status`. */
  readonly code: string;
  readonly status?: number;
  /** The faults of the inputs, of a 400. */
  readonly errors?: { in: string; name: string; message: string }[];
  readonly run?: string;
}

/** A stream, read once: by `for await`, by `finished()` or by `text()`. */
export interface Stream<Content = unknown> extends AsyncIterable<Chunk<Content>> {
  /** The id of a resumable stream, once it is known. */
  readonly id: string | null;
  readonly state: State;
  /** Chunks so far. */
  readonly count: number;
  /** Milliseconds from the request to the first chunk. */
  readonly firstChunkTime: number | null;
  /** 0 to 1, if the metadata of chunks has `totalChunks` or `total`. */
  readonly progress: number | null;
  /** What the end marker says, once the stream is complete. */
  readonly end: End | null;
  /** Read to the end, with the callbacks. */
  finished(): Promise<End>;
  /** Read to the end; resolves to the text of all chunks without an event name. */
  text(): Promise<string>;
  /** Cancel the run on the server, and end the iteration. */
  stop(): Promise<void>;
}

/** Begin a stream. The request is sent when it is read. */
export function stream<Content = unknown>(url: string | URL, options?: Options<Content>): Stream<Content>;

/** Continue, from its first stored chunk, the stream whose id `store` holds; null if it holds none. */
export function resume<Content = unknown>(
  url: string | URL,
  options: Options<Content> & Required<Pick<Options, "store">>,
): Stream<Content> | null;
