/**
 * Sends a song as a raw body with progress, and goes on where it stopped after a lost connection.
 * Only the bytes travel: the file's name stays in this browser.
 * @module
 *
 * @typedef {import("./types.js").Job} Job
 * @typedef {{onProgress: (sentBytes: number) => void, onLost: (isLost: boolean) => void, signal: AbortSignal}} UploadListener
 */
import { Refusal, ask, delay, getJob, jobUrl, refusalOf, unreachable } from "./api.js";

const TRIES_WITHOUT_PROGRESS = 8;
const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 8000;
const STALLED_MS = 30000;
/** The service and the page disagree about what has arrived: asking again settles it. */
const CONTINUES_ELSEWHERE = new Set(["offset_mismatch", "upload_in_progress"]);

/**
 * @param {string} id of the job
 * @param {Blob} song
 * @param {UploadListener} listener
 * @returns {Promise<void>} when the service has all of it; rejects with a Refusal
 */
export async function uploadSong(id, song, listener) {
  let offset = 0;
  let tries = 0;
  for (;;) {
    try {
      await putFrom(id, song, offset, listener);
      return;
    } catch (error) {
      if (listener.signal.aborted || !(error instanceof Refusal)) throw error;
      if (!error.mayPass && !CONTINUES_ELSEWHERE.has(error.problem.code)) throw error;
      if (++tries > TRIES_WITHOUT_PROGRESS) throw error;
    }
    listener.onLost(true);
    await delay(Math.min(FIRST_PAUSE_MS * 2 ** (tries - 1), LONGEST_PAUSE_MS), listener.signal);
    const held = await heldBytes(id, song.size);
    if (held === "all") return;
    if (held === null) continue;
    if (held > offset) tries = 0;
    offset = held;
  }
}

/**
 * How much of the song the service holds.
 * @param {string} id
 * @param {number} sizeBytes
 * @returns {Promise<number | "all" | null>} null while it can't be asked
 */
async function heldBytes(id, sizeBytes) {
  try {
    const job = await getJob(id);
    if (job.error) throw new Refusal(job.error);
    if (job.state !== "received") return "all";
    const response = await ask(`${jobUrl(id)}/audio`, { method: "HEAD" });
    const offset = Number(response.headers.get("Upload-Offset"));
    return Number.isSafeInteger(offset) && offset >= 0 && offset <= sizeBytes ? offset : 0;
  } catch (error) {
    if (error instanceof Refusal && error.mayPass) return null;
    throw error;
  }
}

/**
 * @param {string} id
 * @param {Blob} song
 * @param {number} offset
 * @param {UploadListener} listener
 * @returns {Promise<void>}
 */
function putFrom(id, song, offset, { onProgress, onLost, signal }) {
  return new Promise((resolve, reject) => {
    if (signal.aborted) return reject(signal.reason);
    const request = new XMLHttpRequest();
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    let watchdog;
    const watch = () => {
      clearTimeout(watchdog);
      watchdog = setTimeout(() => request.abort(), STALLED_MS);
    };
    const stop = () => request.abort();
    request.upload.addEventListener("progress", (event) => {
      watch();
      onLost(false);
      onProgress(offset + event.loaded);
    });
    // From here the service is reading what it got; a long song takes it a while.
    request.upload.addEventListener("load", () => clearTimeout(watchdog));
    request.addEventListener("loadend", () => {
      clearTimeout(watchdog);
      signal.removeEventListener("abort", stop);
      if (signal.aborted) reject(signal.reason);
      else if (request.status === 0) reject(unreachable());
      else if (request.status >= 400) reject(refusalOf(request.status, request.responseText));
      else resolve();
    });
    signal.addEventListener("abort", stop);
    request.open("PUT", `${jobUrl(id)}/audio`);
    request.setRequestHeader("Content-Type", "application/octet-stream");
    if (offset > 0) request.setRequestHeader("Upload-Offset", String(offset));
    watch();
    request.send(song.slice(offset));
  });
}
