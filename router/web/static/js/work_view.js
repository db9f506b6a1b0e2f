/**
 * What is happening to the song right now: the bar, the tier and its reason, the attempts so far.
 * @module
 *
 * @typedef {import("./types.js").Job} Job
 */
import { find, make, say } from "./dom.js";
import { size, span, stageTitle } from "./words.js";

const view = {
  title: find("work-title", HTMLElement),
  bar: find("bar", HTMLProgressElement),
  live: find("live", HTMLElement),
  percent: find("percent", HTMLElement),
  reason: find("reason", HTMLElement),
  attempts: find("attempts", HTMLUListElement),
  status: find("status", HTMLElement),
};
const TITLE = document.title;

/**
 * @param {number} sentBytes
 * @param {number} sizeBytes
 */
export function showUpload(sentBytes, sizeBytes) {
  show("Uploading", "Uploading", `${size(sentBytes)} of ${size(sizeBytes)}`, sentBytes / sizeBytes);
  view.reason.textContent = "";
  view.attempts.replaceChildren();
}

/** @param {boolean} isSilent */
export function showSilence(isSilent) {
  if (isSilent) say(view.reason, "The connection is gone. It goes on by itself as soon as it is back.");
}

/** @param {Job} job */
export function showJob(job) {
  const { progress, queue } = job;
  if (progress) showProgress(progress);
  else if (job.state === "queued") show(queue?.eta_s === null ? "Waiting for a tier" : "Waiting for a free place", "Waiting", queueLine(queue), null);
  else if (job.state === "running") show("Starting", "Starting", "The render starts.", null);
  else if (job.state === "sealed" || job.state === "ending") show("Finishing", "Finishing", "Your song is being deleted.", 1);
  else show("Looking at the file", "Looking at the file", "Making sure that it is music.", null);
  const attempt = job.attempts.at(-1);
  // An earlier attempt's reason says nothing of what the song waits for now.
  say(view.reason, progress?.reason ?? (job.state === "queued" ? queue?.reason : attempt?.reason) ?? "");
  view.attempts.replaceChildren(...job.attempts.filter((one) => one.outcome !== "running" && one.outcome !== "done").map((one) =>
    make("li", {}, `Attempt ${one.number} on ${one.tier_title} did not finish${one.detail ? `: ${one.detail}` : "."}`)));
}

/** @param {import("./types.js").Progress} progress */
function showProgress(progress) {
  const stage = stageTitle(progress.stage);
  const eta = progress.eta_s === null ? "" : ` · about ${span(progress.eta_s)} left`;
  show("Mastering", `Mastering: ${progress.tier_title}`, `${stage} · ${progress.tier_title}${eta}`, progress.fraction);
}

/** @param {Job["queue"]} queue */
function queueLine(queue) {
  if (!queue) return "The song is safe here and waits for its turn.";
  const eta = queue.eta_s === null ? "" : `, about ${span(queue.eta_s)}`;
  if (queue.position === 0) return `Next in the queue${eta}.`;
  return `${queue.position} ${queue.position === 1 ? "song" : "songs"} ahead in the queue${eta}.`;
}

/**
 * @param {string} title
 * @param {string} announcement read out when it changes, not at every percent and stage
 * @param {string} line
 * @param {number | null} fraction null while it can't be known
 */
function show(title, announcement, line, fraction) {
  say(view.title, title);
  say(view.status, announcement);
  say(view.live, line);
  if (fraction === null) {
    view.bar.removeAttribute("value");
    say(view.percent, "");
    document.title = `${title} · ${TITLE}`;
    return;
  }
  const percent = Math.floor(fraction * 100);
  view.bar.value = fraction * 100;
  say(view.percent, `${percent} %`);
  document.title = `${percent} % · ${title} · ${TITLE}`;
}

/** @param {string} outcome for the tab's title */
export function endWork(outcome) {
  say(view.status, "");
  document.title = outcome ? `${outcome} · ${TITLE}` : TITLE;
}
