/**
 * The player's controls: one clock, two sides, waveforms to click into.
 * @module
 *
 * @typedef {import("./types.js").Job} Job
 * @typedef {import("./player.js").Recording} Recording
 * @typedef {import("./player.js").Side} Side
 */
import { LONGEST_DECODED_S, decode, lagFrames, peaksOf } from "./audio.js";
import { find, make, say } from "./dom.js";
import { Player, StreamPlayer } from "./player.js";
import { waveform } from "./plots.js";
import { change, clock } from "./words.js";

const BUCKETS = 700;
const STEP_S = 5;
/** Lossless first, the smallest of them before the others: an MP3 would not be the master. */
const TO_HEAR = ["flac", "wav24", "wav16", "mp3"];

const view = {
  box: find("player", HTMLElement),
  waves: find("waves", HTMLElement),
  seek: find("seek", HTMLInputElement),
  play: find("play", HTMLButtonElement),
  clock: find("clock", HTMLElement),
  sides: find("sides", HTMLFieldSetElement),
  original: find("side-a", HTMLInputElement),
  master: find("side-b", HTMLInputElement),
  match: find("match", HTMLInputElement),
  matchRow: find("match-row", HTMLElement),
  note: find("player-note", HTMLElement),
};

/** @type {Player | StreamPlayer | null} */
let player = null;
let generation = 0;

/**
 * @param {Job} job mastered
 * @param {Blob | null} song as this browser still holds it
 * @param {(format: string) => Promise<Blob>} fetchOutput
 */
export async function openPlayer(job, song, fetchOutput) {
  closePlayer();
  const mine = generation;
  view.box.classList.add("loading");
  say(view.note, "Getting the master ready to play …");
  showSides(false);
  const output = TO_HEAR.map((format) => job.outputs.find((one) => one.format === format)).find(Boolean);
  const report = job.report;
  if (!output || !report) return;
  const recordings = report.after.duration_s > LONGEST_DECODED_S
    ? null
    : await load(report, song, () => fetchOutput(output.format)).catch(() => null);
  if (mine !== generation) return;
  view.box.classList.remove("loading");
  player = recordings ? new Player(recordings) : new StreamPlayer(output.url);
  player.onEnd = refresh;
  if (recordings) drawWaves(recordings);
  showSides(recordings?.has("original") ?? false);
  say(view.note, noteFor(report, song !== null, recordings));
  view.play.disabled = false;
  view.seek.disabled = false;
  view.master.checked = true;
  refresh();
}

export function closePlayer() {
  generation++;
  player?.close();
  player = null;
  view.waves.replaceChildren();
  view.play.disabled = true;
  view.seek.disabled = true;
  refresh();
}

/**
 * @param {import("./types.js").Report} report
 * @param {Blob | null} song
 * @param {() => Promise<Blob>} fetchMaster
 * @returns {Promise<Map<Side, Recording>>}
 */
async function load(report, song, fetchMaster) {
  const rateHz = report.after.rate_hz;
  const [master, original] = await Promise.all([
    fetchMaster().then((blob) => blob.arrayBuffer()).then((bytes) => decode(bytes, rateHz)),
    song ? song.arrayBuffer().then((bytes) => decode(bytes, rateHz)).catch(() => null) : null,
  ]);
  /** @type {Map<Side, Recording>} */
  const recordings = new Map();
  if (original) recordings.set("original", { buffer: original, lufs: report.before.integrated_lufs, lagFrames: 0 });
  const lag = original ? lagFrames(original, master) : 0;
  recordings.set("master", { buffer: master, lufs: report.after.integrated_lufs, lagFrames: lag });
  return recordings;
}

/** @param {Map<Side, Recording>} recordings */
function drawWaves(recordings) {
  for (const [side, { buffer }] of recordings) {
    const caption = side === "original" ? "Original" : "Master";
    view.waves.append(make("div", { class: `track ${side}` }, make("span", {}, caption), waveform(peaksOf(buffer, BUCKETS), side)));
  }
  view.waves.append(make("div", { class: "playhead" }));
}

/**
 * @param {import("./types.js").Report} report
 * @param {boolean} hasSong
 * @param {Map<Side, Recording> | null} recordings
 */
function noteFor(report, hasSong, recordings) {
  if (recordings?.has("original")) {
    const difference = (report.after.integrated_lufs ?? 0) - (report.before.integrated_lufs ?? 0);
    const louder = difference > 0 ? "master" : "original";
    const sign = change(-Math.abs(difference));
    return `At equal loudness the ${louder} is played ${sign} dB, so that you compare sound and not level.`;
  }
  if (report.after.duration_s > LONGEST_DECODED_S) return "Songs longer than 20 minutes are played without the original: the master alone.";
  if (hasSong) return "This browser can’t decode your original file, so only the master plays here.";
  return "After a reload the browser no longer has your original, so only the master plays here.";
}

/** @param {boolean} hasBoth */
function showSides(hasBoth) {
  view.sides.hidden = !hasBoth;
  view.matchRow.hidden = !hasBoth;
  view.box.classList.toggle("alone", !hasBoth);
}

function refresh() {
  const isPlaying = player?.isPlaying ?? false;
  const durationS = player?.durationS ?? 0;
  const positionS = player?.positionS ?? 0;
  view.play.classList.toggle("playing", isPlaying);
  say(/** @type {Element} */ (view.play.lastElementChild), isPlaying ? "Pause" : "Play");
  view.seek.max = String(durationS || 1);
  view.seek.value = String(positionS);
  view.seek.setAttribute("aria-valuetext", `${clock(positionS)} of ${clock(durationS)}`);
  say(view.clock, `${clock(positionS)} / ${clock(durationS)}`);
  view.box.style.setProperty("--played", String(durationS ? positionS / durationS : 0));
  view.box.dataset.side = player instanceof Player ? player.side : "master";
}

function tick() {
  refresh();
  if (player?.isPlaying) requestAnimationFrame(tick);
}

function toggle() {
  if (!player) return;
  if (player.isPlaying) {
    player.pause();
    refresh();
  } else {
    void player.play().then(tick);
  }
}

/** @param {Side} side */
function choose(side) {
  if (!(player instanceof Player) || view.sides.hidden) return;
  player.choose(side);
  (side === "original" ? view.original : view.master).checked = true;
  refresh();
}

/** @param {number} seconds */
function seek(seconds) {
  player?.seek(Math.min(Math.max(seconds, 0), player.durationS));
  refresh();
}

/** @param {KeyboardEvent} event */
function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || !player) return;
  const other = player instanceof Player && player.side === "master" ? "original" : "master";
  /** @type {Record<string, () => void>} */
  const actions = { a: () => choose("original"), b: () => choose("master"), x: () => choose(other), p: toggle };
  // Arrows between the two sides belong to the radio buttons.
  if (event.target !== view.original && event.target !== view.master) {
    actions["arrowleft"] = () => seek((player?.positionS ?? 0) - STEP_S);
    actions["arrowright"] = () => seek((player?.positionS ?? 0) + STEP_S);
  }
  const action = actions[event.key.toLowerCase()];
  if (!action) return;
  event.preventDefault();
  action();
}

view.play.addEventListener("click", toggle);
view.seek.addEventListener("input", () => seek(view.seek.valueAsNumber));
view.original.addEventListener("change", () => choose("original"));
view.master.addEventListener("change", () => choose("master"));
view.match.addEventListener("change", () => player instanceof Player && player.match(view.match.checked));
view.box.addEventListener("keydown", onKey);
view.waves.addEventListener("pointerdown", (event) => {
  const { left, width } = view.waves.getBoundingClientRect();
  if (player && event.button === 0) seek(((event.clientX - left) / width) * player.durationS);
});
