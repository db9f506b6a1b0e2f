/**
 * One job on the Space: the files go by PUT, the call and its events by Gradio's plain protocol, the job by DELETE.
 * @module
 *
 * @typedef {import("./types.js").Report} Report
 * @typedef {{format: string, size: number, sha256: string}} Announced
 * @typedef {{
 *   type: string, stage?: string, fraction?: number, code?: string, message?: string, report?: Report,
 *   outputs?: Announced[],
 * }} Event
 */
import { Refusal, delay, refusalOf, unreachable } from "./api.js";
import { quotaHeaders } from "./quota.js";

const BUSY_PAUSE_MS = 4000;
const BUSY_TRIES = 45;

export function newJob() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** @param {string} job */
export function jobUrl(job) {
  return `v1/jobs/${job}`;
}

/**
 * Waits for its turn where the Space is full.
 * @param {string} url
 * @param {File} file only its bytes travel
 * @param {{onProgress: (sentBytes: number) => void, onBusy: () => void, signal: AbortSignal}} listener
 */
export async function put(url, file, listener) {
  for (let tries = 1; ; tries++) {
    try {
      return await putOnce(url, file, listener);
    } catch (error) {
      const isBusy = error instanceof Refusal && error.problem.status === 503 && error.problem.code === "busy";
      if (!isBusy || tries >= BUSY_TRIES || listener.signal.aborted) throw error;
    }
    listener.onBusy();
    await delay(BUSY_PAUSE_MS, listener.signal);
  }
}

/**
 * @param {string} url
 * @param {File} file
 * @param {{onProgress: (sentBytes: number) => void, signal: AbortSignal}} listener
 * @returns {Promise<void>}
 */
function putOnce(url, file, { onProgress, signal }) {
  return new Promise((resolve, reject) => {
    if (signal.aborted) return reject(signal.reason);
    const request = new XMLHttpRequest();
    const stop = () => request.abort();
    request.upload.addEventListener("progress", (event) => onProgress(event.loaded));
    request.addEventListener("loadend", () => {
      signal.removeEventListener("abort", stop);
      if (signal.aborted) reject(signal.reason);
      else if (request.status === 0) reject(unreachable());
      else if (request.status >= 400) reject(refusalOf(request.status, request.responseText));
      else resolve();
    });
    signal.addEventListener("abort", stop);
    request.open("PUT", url);
    request.setRequestHeader("Content-Type", "application/octet-stream");
    request.send(file);
  });
}

/**
 * Calls /master and follows it to its last event.
 * @param {string} job
 * @param {Record<string, unknown>} settings
 * @param {{onEvent: (event: Event) => void, signal: AbortSignal}} listener
 * @returns {Promise<Event>} of type end; rejects with a Refusal where there is no master
 */
export async function master(job, settings, { onEvent, signal }) {
  const response = await fetch("gradio_api/call/master", {
    method: "POST",
    headers: { "Content-Type": "application/json", ...(await quotaHeaders()) },
    body: JSON.stringify({ data: [job, settings, null] }),
    signal,
  }).catch((error) => {
    throw signal.aborted ? error : unreachable();
  });
  if (!response.ok) throw refusalOf(response.status, await response.text());
  /** @type {{event_id: string}} */
  const { event_id: event } = await response.json();
  const last = await listen(`gradio_api/call/master/${event}`, onEvent, signal);
  if (last.type === "end") return last;
  throw new Refusal({ code: last.code ?? "internal", title: "No master this time", detail: last.message ?? "" }, last.code === "busy");
}

/**
 * @param {string} url
 * @param {(event: Event) => void} onEvent
 * @param {AbortSignal} signal
 * @returns {Promise<Event>}
 */
function listen(url, onEvent, signal) {
  return new Promise((resolve, reject) => {
    const source = new EventSource(url);
    /** @type {Event | null} */
    let last = null;
    /** @param {() => void} then */
    const finish = (then) => {
      source.close();
      signal.removeEventListener("abort", onAbort);
      then();
    };
    const onAbort = () => finish(() => reject(signal.reason));
    signal.addEventListener("abort", onAbort);
    /** @param {MessageEvent<string>} message */
    const take = (message) => {
      /** @type {(Event | null)[] | null} */
      const data = JSON.parse(message.data);
      if (data?.[0]?.type) {
        last = data[0];
        onEvent(last);
      }
      return last;
    };
    source.addEventListener("generating", take);
    source.addEventListener("complete", (message) => {
      const end = take(message);
      finish(() => (end && (end.type === "end" || end.type === "fault") ? resolve(end) : reject(unreachable())));
    });
    source.addEventListener("error", (message) => {
      const isGradios = message instanceof MessageEvent && typeof message.data === "string";
      finish(() => reject(isGradios ? refusalOfGradio(message.data) : unreachable()));
    });
  });
}

/**
 * Gradio's own errors, ZeroGPU's quota among them: {error, title}.
 * @param {string} text
 */
function refusalOfGradio(text) {
  try {
    /** @type {{error?: string | null, title?: string} | null} */
    const said = JSON.parse(text);
    if (said?.error) return new Refusal({ code: "gradio", title: said.title ?? "No master this time", detail: said.error }, true);
  } catch {
    // Not JSON: the sentence below stands for it.
  }
  return new Refusal({ code: "internal", title: "No master this time", detail: "The Space failed on this song. Try again in a minute; your song is still in this browser." }, true);
}
