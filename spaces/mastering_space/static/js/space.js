/**
 * The Space's page: which section is shown, and the trip from a song to its master.
 * @module
 *
 * @typedef {import("./types.js").Job} Job
 * @typedef {import("./types.js").Report} Report
 * @typedef {import("./call.js").Event} Event
 * @typedef {import("./choice.js").Choice} Choice
 */
import { Refusal, unreachable } from "./api.js";
import { jobUrl, master, newJob, put } from "./call.js";
import { chosenSong, forgetSong, openChoice, outputKinds } from "./choice.js";
import { find, make, say } from "./dom.js";
import { Downloads } from "./downloads.js";
import { closePlayer, openPlayer } from "./player_view.js";
import { showReport } from "./report_view.js";
import { size, stageTitle } from "./words.js";

/** @typedef {"choose" | "work" | "result"} Section */
const SECTIONS = /** @type {const} */ (["choose", "work", "result"]);

const view = {
  alert: find("alert", HTMLElement),
  status: find("status", HTMLElement),
  title: find("work-title", HTMLElement),
  bar: find("bar", HTMLProgressElement),
  live: find("live", HTMLElement),
  percent: find("percent", HTMLElement),
};

/** @type {AbortController} of the trip now under way */
let trip = new AbortController();
/** @type {string | null} the job that the Space may hold something of */
let held = null;

/** @param {Section} wanted */
function show(wanted) {
  const isNew = find(wanted, HTMLElement).hidden;
  for (const section of SECTIONS) find(section, HTMLElement).hidden = section !== wanted;
  view.alert.replaceChildren();
  if (wanted !== "work") say(view.status, wanted === "result" ? "Your master" : "");
  if (wanted !== "result") closePlayer();
  if (!isNew) return;
  window.scrollTo(0, 0);
  find(`${wanted}-title`, HTMLElement).focus({ preventScroll: true });
}

/**
 * @param {string} title
 * @param {string} detail
 */
function showMistake(title, detail) {
  view.alert.replaceChildren(make("div", { class: "notice bad" }, make("strong", {}, title), make("p", {}, detail)));
  view.alert.scrollIntoView({ block: "nearest" });
}

/**
 * @param {string} title
 * @param {string} line
 * @param {number | null} fraction null while it can't be known
 */
function showWork(title, line, fraction) {
  say(view.title, title);
  say(view.status, title);
  say(view.live, line);
  say(view.percent, fraction === null ? "" : `${Math.floor(fraction * 100)} %`);
  if (fraction === null) view.bar.removeAttribute("value");
  else view.bar.value = fraction * 100;
}

/** @param {Choice} choice */
async function start({ song, reference, settings }) {
  trip.abort();
  trip = new AbortController();
  const { signal } = trip;
  const job = newJob();
  held = job;
  say(find("work-name", HTMLElement), song.name);
  show("work");
  window.addEventListener("beforeunload", askToStay);
  try {
    if (reference) await send(job, "references/0", reference, signal);
    await send(job, "audio", song, signal);
    showWork("Waiting for a free place", "The song is there and waits for its turn.", null);
    const last = await master(job, settings, { onEvent: showEvent, signal });
    showWork("Finishing", "Your browser fetches the master.", 1);
    await showMaster(job, last, song.name);
  } catch (error) {
    if (signal.aborted) return;
    const refusal = error instanceof Refusal ? error : unreachable();
    show("choose");
    showMistake(refusal.problem.title || "That did not work", refusal.message);
    if (!(error instanceof Refusal)) throw error;
  } finally {
    window.removeEventListener("beforeunload", askToStay);
    await forget(job);
  }
}

/**
 * @param {string} job
 * @param {string} part
 * @param {File} file
 * @param {AbortSignal} signal
 */
async function send(job, part, file, signal) {
  const what = part === "audio" ? "Uploading" : "Uploading the reference";
  /** @param {number} sent */
  const onProgress = (sent) => showWork(what, `${size(sent)} of ${size(file.size)}`, sent / file.size);
  onProgress(0);
  await put(`${jobUrl(job)}/${part}`, file, {
    onProgress,
    onBusy: () => showWork("Waiting for a free place", "Other songs fill this Space. It goes on by itself.", null),
    signal,
  });
}

/** @param {Event} event */
function showEvent(event) {
  if (event.type === "accepted") showWork("Mastering", "The render starts.", 0);
  else if (event.type === "progress") showWork("Mastering", stageTitle(event.stage ?? null), event.fraction ?? 0);
}

/**
 * The browser takes all files at once, so that the Space can forget them.
 * @param {string} id
 * @param {Event} last
 * @param {string} name of the song, which only this browser knows
 */
async function showMaster(id, last, name) {
  const kinds = outputKinds();
  const outputs = (last.outputs ?? []).map((output) => ({
    format: output.format,
    url: `${jobUrl(id)}/outputs/${output.format}`,
    size_bytes: output.size,
    media_type: "",
    extension: kinds[output.format]?.extension ?? "",
  }));
  const job = /** @type {Job} */ (/** @type {unknown} */ ({ id, outputs, report: last.report }));
  const downloads = new Downloads(job, name, (refusal) => showMistake(refusal.problem.title || "The download stopped", refusal.message));
  await Promise.all(outputs.map((output) => downloads.fetch(output.format)));
  show("result");
  say(find("result-name", HTMLElement), name);
  downloads.show(kinds);
  showReport(/** @type {Report} */ (last.report));
  await openPlayer(job, chosenSong(), (format) => downloads.fetch(format));
}

/**
 * Nothing stays behind, however the trip ended.
 * @param {string} job
 */
async function forget(job) {
  if (held !== job) return;
  await fetch(jobUrl(job), { method: "DELETE", keepalive: true }).catch(() => undefined);
  if (held === job) held = null;
}

/**
 * Leaving would lose the master that is on its way.
 * @param {BeforeUnloadEvent} event
 */
function askToStay(event) {
  event.preventDefault();
}

function back() {
  const job = held;
  trip.abort();
  if (job) void forget(job);
  show("choose");
}

openChoice({ onStart: (choice) => void start(choice), onMistake: showMistake, onChoice: () => view.alert.replaceChildren() });
find("cancel", HTMLButtonElement).addEventListener("click", back);
find("again", HTMLButtonElement).addEventListener("click", back);
find("fresh", HTMLButtonElement).addEventListener("click", () => {
  forgetSong();
  back();
});
window.addEventListener("pagehide", () => {
  if (held) void fetch(jobUrl(held), { method: "DELETE", keepalive: true }).catch(() => undefined);
});
