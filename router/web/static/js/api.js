/**
 * The service's HTTP API. Every failure, of the network too, becomes a `Refusal` with a sentence for the person.
 * @module
 *
 * @typedef {import("./types.js").Job} Job
 * @typedef {import("./types.js").Options} Options
 * @typedef {import("./types.js").Problem} Problem
 * @typedef {import("./types.js").Wish} Wish
 */

const TERMINAL = new Set(["mastered", "delivered", "failed", "cancelled", "expired", "wiped"]);
const LONGEST_PAUSE_MS = 8000;

/** A request that did not get what it asked for. */
export class Refusal extends Error {
  /**
   * @param {Problem} problem
   * @param {boolean} mayPass another try may succeed without a change
   */
  constructor(problem, mayPass = false) {
    super(problem.detail);
    this.problem = problem;
    this.mayPass = mayPass;
  }
}

export function unreachable() {
  return new Refusal({
    code: "unreachable",
    title: "No connection",
    detail: "The service can’t be reached. Check the connection and try again; your song is still in this browser.",
  }, true);
}

/**
 * @param {number} status
 * @param {string} body
 */
export function refusalOf(status, body) {
  const mayPass = status >= 500 || status === 429 || status === 408;
  try {
    /** @type {Partial<Problem>} */
    const problem = JSON.parse(body);
    if (problem.code && problem.detail) {
      return new Refusal({ title: problem.title ?? "", status, code: problem.code, detail: problem.detail }, mayPass);
    }
  } catch {
    // Not ours: a proxy's page, say. The sentence below stands for it.
  }
  const detail = `The service gave an answer that this page can’t read (HTTP ${status}). Try again in a minute; your song is still in this browser.`;
  return new Refusal({ status, code: "unreadable", title: "Something is wrong between here and the service", detail }, true);
}

/**
 * @param {string} url
 * @param {RequestInit} [init]
 */
export async function ask(url, init = {}) {
  /** @type {Response} */
  let response;
  try {
    response = await fetch(url, init);
  } catch (error) {
    if (init.signal?.aborted) throw error;
    throw unreachable();
  }
  if (!response.ok) throw refusalOf(response.status, await response.text().catch(() => ""));
  return response;
}

/** @returns {Promise<Options>} */
export async function getOptions() {
  return (await ask("/v1/options")).json();
}

/**
 * The key makes a repeated request, after an answer that got lost, give the same job.
 * @param {Wish} wish
 * @param {number} sizeBytes
 * @returns {Promise<Job>}
 */
export async function createJob(wish, sizeBytes) {
  /** @type {RequestInit} */
  const init = {
    method: "POST",
    headers: { "Content-Type": "application/json", "Idempotency-Key": randomKey() },
    body: JSON.stringify({ ...wish, size_bytes: sizeBytes }),
  };
  const response = await ask("/v1/jobs", init).catch((error) => {
    if (error instanceof Refusal && error.problem.code === "unreachable") return ask("/v1/jobs", init);
    throw error;
  });
  return response.json();
}

/**
 * @param {string} id
 * @returns {Promise<Job>}
 */
export async function getJob(id) {
  return (await ask(jobUrl(id), { headers: { Accept: "application/json" } })).json();
}

/**
 * @param {string} id
 * @returns {Promise<{receipt: import("./types.js").Receipt | null}>}
 */
export async function deleteJob(id) {
  return (await ask(jobUrl(id), { method: "DELETE" })).json();
}

/** @param {string} id */
export function jobUrl(id) {
  return `/v1/jobs/${encodeURIComponent(id)}`;
}

/** @param {string} state */
export function isTerminal(state) {
  return TERMINAL.has(state);
}

/**
 * Follows a job to its end. The browser's own EventSource reconnects by itself; where it gives up, the job is read
 * by an ordinary request and followed again.
 * @param {string} id
 * @param {{onJob: (job: Job) => void, onSilence: (isSilent: boolean) => void, signal: AbortSignal}} listener
 * @returns {Promise<Job>} the job in its last state
 */
export async function followJob(id, { onJob, onSilence, signal }) {
  for (let pause = 500; ; pause = Math.min(pause * 2, LONGEST_PAUSE_MS)) {
    const last = await listen(id, (job) => {
      pause = 500;
      onSilence(false);
      onJob(job);
    }, onSilence, signal);
    if (last) return last;
    onSilence(true);
    await delay(pause, signal);
    const job = await getJob(id).catch((error) => {
      if (error instanceof Refusal && error.mayPass) return null;
      throw error;
    });
    if (job && isTerminal(job.state)) return job;
  }
}

/**
 * @param {string} id
 * @param {(job: Job) => void} onJob
 * @param {(isSilent: boolean) => void} onSilence
 * @param {AbortSignal} signal
 * @returns {Promise<Job | null>} null when the stream can't be had
 */
function listen(id, onJob, onSilence, signal) {
  return new Promise((resolve, reject) => {
    if (signal.aborted) return reject(signal.reason);
    const source = new EventSource(jobUrl(id));
    /** @param {() => void} then */
    const finish = (then) => {
      source.close();
      signal.removeEventListener("abort", onAbort);
      then();
    };
    const onAbort = () => finish(() => reject(signal.reason));
    signal.addEventListener("abort", onAbort);
    source.addEventListener("job", (event) => {
      /** @type {Job} */
      const job = JSON.parse(event.data);
      if (isTerminal(job.state)) finish(() => resolve(job));
      else onJob(job);
    });
    source.addEventListener("error", () => {
      if (source.readyState === EventSource.CLOSED) finish(() => resolve(null));
      else onSilence(true);
    });
  });
}

/**
 * @param {number} milliseconds
 * @param {AbortSignal} signal
 * @returns {Promise<void>} at once when the browser comes back online
 */
export function delay(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    if (signal.aborted) return reject(signal.reason);
    const done = () => {
      clearTimeout(timer);
      window.removeEventListener("online", done);
      signal.removeEventListener("abort", stop);
      resolve();
    };
    const stop = () => {
      done();
      reject(signal.reason);
    };
    const timer = setTimeout(done, milliseconds);
    window.addEventListener("online", done);
    signal.addEventListener("abort", stop);
  });
}

function randomKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
