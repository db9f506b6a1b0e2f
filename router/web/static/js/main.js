/**
 * The page's one joiner: which section is shown, and the trip from a song to its master. Longer than the others
 * because the sections share one state; what each shows is drawn elsewhere.
 * @module
 *
 * @typedef {import("./types.js").Job} Job
 * @typedef {import("./types.js").Options} Options
 * @typedef {import("./types.js").Receipt} Receipt
 * @typedef {import("./types.js").Wish} Wish
 */
import { Refusal, createJob, deleteJob, followJob, getJob, getOptions, isTerminal } from "./api.js";
import { find, make, say } from "./dom.js";
import { Downloads } from "./downloads.js";
import { chosenSong, fillForm, forgetSong, openForm } from "./form.js";
import { fitFrame } from "./framed.js";
import { forget, recall, remember } from "./memory.js";
import { closePlayer, openPlayer } from "./player_view.js";
import { showReport } from "./report_view.js";
import { uploadSong } from "./upload.js";
import { endWork, showJob, showSilence, showUpload } from "./work_view.js";
import { clock, span } from "./words.js";

/** @typedef {"welcome" | "choose" | "work" | "result" | "gone"} Section */
const SECTIONS = /** @type {const} */ (["welcome", "choose", "work", "result", "gone"]);

/** @type {Options | null} */
let options = null;
/** @type {AbortController} of the trip now under way */
let trip = new AbortController();
/** @type {Job | null} the job whose master is shown */
let mastered = null;
/** @type {(() => void) | null} what "Try again" does */
let onRetry = null;
/** @type {ReturnType<typeof setInterval> | undefined} */
let countdown;
/** The focus moves with the sections, but stays where the browser put it when the page opens. */
let hasShown = false;

/** @param {Section} wanted */
function show(wanted) {
  const isNew = find(wanted, HTMLElement).hidden;
  for (const section of SECTIONS) find(section, HTMLElement).hidden = section !== wanted;
  clearMistake();
  if (wanted !== "work") endWork(wanted === "result" ? "Your master" : "");
  if (wanted !== "result") closePlayer();
  const isFirst = !hasShown;
  hasShown = true;
  if (!isNew || isFirst) return;
  window.scrollTo(0, 0);
  find(`${wanted}-title`, HTMLElement).focus({ preventScroll: true });
}

/**
 * @param {string} title
 * @param {string} detail
 */
function showMistake(title, detail) {
  find("alert", HTMLElement).replaceChildren(make("div", { class: "notice bad" }, make("strong", {}, title), make("p", {}, detail)));
  find("alert", HTMLElement).scrollIntoView({ block: "nearest" });
}

function clearMistake() {
  find("alert", HTMLElement).replaceChildren();
}

/**
 * The trip is over without a master to show.
 * @param {string} title
 * @param {string} text
 * @param {{facts?: Node[], retry?: (() => void) | null}} [more]
 */
function showGone(title, text, { facts = [], retry = null } = {}) {
  clearInterval(countdown);
  mastered = null;
  forget();
  show("gone");
  say(find("gone-title", HTMLElement), title);
  say(find("gone-text", HTMLElement), text);
  find("gone-facts", HTMLElement).replaceChildren(...facts.map((fact) => make("li", {}, fact)));
  onRetry = retry;
  find("retry", HTMLButtonElement).hidden = retry === null;
}

/**
 * @param {unknown} error
 * @param {(() => void) | null} retry
 */
function showRefusal(error, retry) {
  if (!(error instanceof Refusal)) throw error;
  if (error.problem.code === "sign_in") return show("welcome");
  const { title, detail } = error.problem;
  showGone(title || "That did not work", detail, { retry: error.mayPass ? retry : null });
}

/**
 * @param {File} song
 * @param {Wish} wish
 */
async function start(song, wish) {
  trip.abort();
  trip = new AbortController();
  const { signal } = trip;
  const earlier = recall();
  find("start", HTMLButtonElement).disabled = true;
  try {
    const job = await createJob(wish, song.size);
    // The new one has its place: what an earlier setting made is not kept beside it.
    if (earlier) deleteJob(earlier.job).catch(() => undefined);
    remember({ job: job.id, name: song.name, sizeBytes: song.size });
    say(find("work-name", HTMLElement), song.name);
    show("work");
    showUpload(0, song.size);
    window.addEventListener("beforeunload", askToStay);
    await uploadSong(job.id, song, { signal, onLost: showSilence, onProgress: (sent) => showUpload(sent, song.size) });
    window.removeEventListener("beforeunload", askToStay);
    await follow(job.id, signal);
  } catch (error) {
    if (signal.aborted) return;
    if (!find("choose", HTMLElement).hidden && error instanceof Refusal) showMistake(error.problem.title || "That did not work", error.message);
    else showRefusal(error, () => void start(song, wish));
  } finally {
    window.removeEventListener("beforeunload", askToStay);
    find("start", HTMLButtonElement).disabled = false;
  }
}

/**
 * Leaving during an upload would lose it.
 * @param {BeforeUnloadEvent} event
 */
function askToStay(event) {
  event.preventDefault();
}

/**
 * @param {string} id
 * @param {AbortSignal} signal
 */
async function follow(id, signal) {
  show("work");
  showOutcome(await followJob(id, { signal, onJob: showJob, onSilence: showSilence }));
}

/** @param {Job} job in its last state */
function showOutcome(job) {
  if ((job.state === "mastered" || job.state === "delivered") && job.report) return showMaster(job);
  const song = chosenSong();
  const retry = song ? () => void start(song, job.settings) : null;
  if (job.error && job.state !== "cancelled") {
    const isOurFault = (job.error.status ?? 0) >= 500;
    return showGone(job.error.title || "No master this time", job.error.detail, { facts: receiptFacts(job.receipt), retry: isOurFault ? retry : null });
  }
  if (job.state === "cancelled") return showGone("Cancelled", "The render was stopped and your song deleted.", { facts: receiptFacts(job.receipt), retry });
  return showExpired(retry);
}

/** @param {(() => void) | null} retry */
function showExpired(retry) {
  showGone("This master is gone", "Its time was over and it has been deleted, as promised. Send the song again for a new one.", { retry });
}

/** @param {Job} job */
function showMaster(job) {
  if (!options || !job.report) return;
  mastered = job;
  const name = recall()?.name ?? "";
  show("result");
  say(find("result-name", HTMLElement), name);
  startCountdown(job.expires_in_s);
  const downloads = new Downloads(job, name, (refusal) => {
    if (refusal.problem.status === 410) showExpired(null);
    else showMistake(refusal.problem.title || "The download stopped", refusal.message);
  });
  downloads.show(options.outputs);
  showReport(job.report);
  void openPlayer(job, chosenSong(), (format) => downloads.fetch(format));
}

/** @param {number} seconds until the service deletes the master */
function startCountdown(seconds) {
  clearInterval(countdown);
  const endsAt = Date.now() + seconds * 1000;
  const tick = () => {
    const left = (endsAt - Date.now()) / 1000;
    say(find("countdown", HTMLElement), `Deleted in ${clock(left)}`);
    if (left <= 0) showExpired(null);
  };
  countdown = setInterval(tick, 1000);
  tick();
}

/**
 * @param {Receipt | null | undefined} receipt
 * @returns {Node[]}
 */
function receiptFacts(receipt) {
  /** @type {[what: string, seconds: number | null | undefined][]} */
  const keys = [["Your song’s key", receipt?.input_key_destroyed_at], ["The master’s key", receipt?.outputs_key_destroyed_at]];
  return keys.flatMap(([what, seconds]) => {
    if (!seconds) return [];
    const moment = new Date(seconds * 1000);
    return [make("span", {}, `${what} was destroyed at `, make("time", { datetime: moment.toISOString() }, moment.toLocaleTimeString()), ".")];
  });
}

/** @param {string} title */
async function erase(title) {
  const id = mastered?.id ?? recall()?.job;
  trip.abort();
  if (!id) return showChoice();
  try {
    const { receipt } = await deleteJob(id);
    showGone(title, "Nothing of your song is left on the service: without its keys, nothing of it can be read.", { facts: receiptFacts(receipt) });
  } catch (error) {
    const isGone = error instanceof Refusal && [404, 410].includes(error.problem.status ?? 0);
    if (isGone) showGone(title, "Nothing of your song is left on the service.");
    else if (error instanceof Refusal) showMistake("Not deleted yet", `${error.message} It is deleted by itself when its time is over.`);
    else throw error;
  }
}

function showChoice() {
  clearInterval(countdown);
  mastered = null;
  show("choose");
}

/** After a reload: the tab knows its job, not the file. */
async function resume() {
  const known = recall();
  if (!known) return showChoice();
  say(find("work-name", HTMLElement), known.name);
  try {
    const job = await getJob(known.job);
    if (isTerminal(job.state)) return showOutcome(job);
    if (job.state === "received") {
      deleteJob(known.job).catch(() => undefined);
      forget();
      showChoice();
      return showMistake("The upload was interrupted", `The page was reloaded while ${known.name} was on its way. Choose it again to go on.`);
    }
    showJob(job);
    await follow(job.id, trip.signal);
  } catch (error) {
    if (trip.signal.aborted) return;
    if (error instanceof Refusal && [404, 410].includes(error.problem.status ?? 0)) showExpired(null);
    else showRefusal(error, () => window.location.reload());
  }
}

async function open() {
  try {
    options = await getOptions();
  } catch (error) {
    return showRefusal(error, () => void open());
  }
  if (options.account.kind === "signed_out") {
    forget();
    return show("welcome");
  }
  openForm(options, { onStart: (song, wish) => void start(song, wish), onMistake: showMistake, onChoice: clearMistake });
  const ttl = options.limits.output_ttl_s;
  find("countdown", HTMLElement).title = `Masters are kept for ${span(ttl)}.`;
  await resume();
}

find("cancel", HTMLButtonElement).addEventListener("click", () => void erase("Cancelled and deleted"));
find("delete", HTMLButtonElement).addEventListener("click", () => find("confirm", HTMLDialogElement).showModal());
find("confirm", HTMLDialogElement).addEventListener("close", () => {
  const dialog = find("confirm", HTMLDialogElement);
  if (dialog.returnValue === "delete") void erase("Deleted");
  dialog.returnValue = "";
});
find("retry", HTMLButtonElement).addEventListener("click", () => onRetry?.());
find("restart", HTMLButtonElement).addEventListener("click", () => {
  forgetSong();
  showChoice();
});
find("fresh", HTMLButtonElement).addEventListener("click", () => {
  forgetSong();
  showChoice();
});
find("again", HTMLButtonElement).addEventListener("click", () => {
  const asked = mastered?.settings;
  showChoice();
  if (asked) fillForm(asked);
  if (!chosenSong()) showMistake("Choose the song once more", "After a reload the browser no longer has it. Your present master is kept until a new one starts.");
});

fitFrame();
void open();
