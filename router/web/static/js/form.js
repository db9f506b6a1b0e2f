/**
 * Choosing a song and what shall become of it.
 * @module
 *
 * @typedef {import("./types.js").Options} Options
 * @typedef {import("./types.js").Wish} Wish
 */
import { find, make, say } from "./dom.js";
import { number, size, span } from "./words.js";

const OUTPUTS = ["wav24", "wav16", "flac", "mp3"];

const view = {
  form: find("form", HTMLFormElement),
  drop: find("drop", HTMLElement),
  file: find("file", HTMLInputElement),
  chosen: find("chosen", HTMLElement),
  facts: find("chosen-facts", HTMLElement),
  pickText: find("pick-text", HTMLElement),
  limits: find("limits", HTMLElement),
  targets: find("targets", HTMLElement),
  moreTargets: find("more-targets", HTMLElement),
  more: find("more", HTMLDetailsElement),
  styles: find("styles", HTMLElement),
  amount: find("amount", HTMLInputElement),
  amountText: find("amount-text", HTMLOutputElement),
  loudness: find("loudness", HTMLInputElement),
  ceiling: find("ceiling", HTMLInputElement),
  rate: find("rate", HTMLSelectElement),
  effort: find("effort", HTMLSelectElement),
  effortNote: find("effort-note", HTMLElement),
  tiers: find("tiers", HTMLOListElement),
  managed: find("managed", HTMLInputElement),
  managedRow: find("managed-row", HTMLElement),
  managedWhy: find("managed-why", HTMLElement),
  start: find("start", HTMLButtonElement),
};

/** @type {File | null} */
let song = null;
/** @type {Options | null} */
let options = null;
/** @type {(title: string, detail: string) => void} */
let onMistake = () => undefined;
/** @type {() => void} */
let onChoice = () => undefined;

/**
 * @param {Options} given
 * @param {{onStart: (song: File, wish: Wish) => void, onMistake: typeof onMistake, onChoice: () => void}} handlers
 */
export function openForm(given, handlers) {
  options = given;
  onMistake = handlers.onMistake;
  onChoice = handlers.onChoice;
  const { limits } = given;
  say(view.limits, `WAV, FLAC, MP3, Ogg, AIFF or M4A; up to ${size(limits.max_bytes)} and ${span(limits.max_duration_s)}.`);
  showTargets(given.targets);
  view.styles.replaceChildren(...Object.entries(given.styles).map(([name, style], index) =>
    card("style", name, style.title, style.for, "", index === 0)));
  view.tiers.replaceChildren(...given.tiers.map((tier) =>
    make("li", {}, make("strong", {}, tier.title), ` · ${[tier.operator, tier.region].filter(Boolean).join(", ")}`)));
  showPaces(given.kinds["master"]?.paces ?? {});
  const isAllOurs = given.tiers.every((tier) => tier.name === "managed");
  const { offered } = given.account;
  view.managedRow.hidden = !offered || (isAllOurs && !given.account.managed_only);
  view.managedWhy.hidden = offered;
  say(view.managedWhy, offered ? "" : given.account.reason);
  view.managed.checked = given.account.managed_only;
  view.managed.disabled = given.account.managed_only;
  view.start.disabled = false;
  hintTarget();
  view.form.addEventListener("change", hintTarget);
  view.form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (!song) {
      onMistake("No song yet", "Drop a song on the page or choose a file first.");
      view.file.focus();
    } else if (isSendable(song)) {
      handlers.onStart(song, wish());
    }
  });
}

/**
 * What no tier can do can't be chosen, and the note says why.
 * @param {Record<string, import("./types.js").Pace>} paces
 */
function showPaces(paces) {
  for (const option of view.effort.options) {
    const pace = paces[option.value];
    option.disabled = pace?.offered === false;
    if (pace?.offered === false) say(view.effortNote, `${pace.title}: ${pace.reason}`);
  }
}

export function chosenSong() {
  return song;
}

/**
 * Sets the form to what an earlier job was asked.
 * @param {Wish} asked
 */
export function fillForm(asked) {
  for (const [group, name] of [["target", asked.target], ["style", asked.style]]) {
    const input = view.form.querySelector(`input[name="${group}"][value="${CSS.escape(name ?? "")}"]`);
    if (!(input instanceof HTMLInputElement)) continue;
    input.checked = true;
    if (view.more.contains(input)) view.more.open = true;
  }
  view.amount.value = String(asked.amount_percent);
  view.effort.value = asked.effort || "quick";
  if (view.effort.selectedOptions[0]?.disabled !== false) view.effort.value = "quick";
  showAmount();
  hintTarget();
}

export function forgetSong() {
  song = null;
  view.file.value = "";
  view.drop.classList.remove("filled");
  say(view.chosen, "Drop a song here");
  say(view.facts, "");
  say(view.pickText, "Choose a file");
}

/** @param {File} file */
function take(file) {
  song = file;
  view.drop.classList.add("filled");
  say(view.chosen, file.name);
  say(view.facts, size(file.size));
  say(view.pickText, "Choose another");
  onChoice();
  isSendable(file);
}

/**
 * What can be known before a byte moves.
 * @param {File} file
 */
function isSendable(file) {
  if (file.size === 0) {
    onMistake("This file is empty", "It holds 0 bytes. Choose the song’s own file; if it comes from a cloud folder, download it first.");
    return false;
  }
  const limit = options?.limits.max_bytes ?? Infinity;
  if (file.size > limit) {
    onMistake("This file is too large", `It holds ${size(file.size)}; at most ${size(limit)} are accepted. Save it as FLAC, which keeps every sample, or as MP3, and choose that.`);
    return false;
  }
  return true;
}

/** @returns {Wish} */
function wish() {
  const data = new FormData(view.form);
  /** @type {Wish} */
  const asked = {
    target: String(data.get("target")),
    style: String(data.get("style")),
    amount_percent: view.amount.valueAsNumber,
    effort: view.effort.value,
    outputs: OUTPUTS.filter((format) => options && format in options.outputs),
    managed_only: view.managed.checked,
  };
  if (Number.isFinite(view.loudness.valueAsNumber)) asked.loudness_lufs = view.loudness.valueAsNumber;
  if (Number.isFinite(view.ceiling.valueAsNumber)) asked.ceiling_dbtp = view.ceiling.valueAsNumber;
  if (view.rate.value) asked.rate_hz = Number(view.rate.value);
  return asked;
}

/**
 * @param {string} group
 * @param {string} value
 * @param {string} title
 * @param {string} purpose
 * @param {string} figure
 * @param {boolean} isFirst
 */
function card(group, value, title, purpose, figure, isFirst) {
  const input = make("input", { type: "radio", name: group, value });
  input.checked = isFirst;
  const heading = make("span", { class: "card-title" }, title);
  if (figure) heading.append(" ", make("span", { class: "figure" }, figure));
  const label = make("label", { class: "card" }, input, heading);
  if (purpose !== title) label.append(make("span", { class: "card-text" }, purpose));
  return label;
}

/**
 * The first target of each loudness; the others wait behind "More targets".
 * @param {Record<string, import("./types.js").Target>} targets
 */
function showTargets(targets) {
  /** @type {Set<number>} */
  const loudnesses = new Set();
  /** @type {[shown: HTMLElement[], others: HTMLElement[]]} */
  const [shown, others] = [[], []];
  for (const [name, target] of Object.entries(targets)) {
    const place = loudnesses.has(target.loudness_lufs) ? others : shown;
    loudnesses.add(target.loudness_lufs);
    place.push(card("target", name, target.title, target.for, `${number(target.loudness_lufs, 0)} LUFS`, shown.length === 0));
  }
  view.targets.replaceChildren(...shown);
  view.moreTargets.replaceChildren(...others);
  view.more.hidden = others.length === 0;
}

/** The target's own numbers stand in the empty fields. */
function hintTarget() {
  const target = options?.targets[String(new FormData(view.form).get("target"))];
  if (!target) return;
  view.loudness.placeholder = number(target.loudness_lufs);
  view.ceiling.placeholder = number(target.ceiling_dbtp);
}

function showAmount() {
  say(view.amountText, `${view.amount.value} %`);
}

/** @param {DragEvent} event */
function onDrop(event) {
  event.preventDefault();
  view.drop.classList.remove("over");
  const [file, ...others] = event.dataTransfer?.files ?? [];
  if (!file || view.form.closest("[hidden]")) return;
  take(file);
  if (others.length) onMistake("One song at a time", `${others.length + 1} files were dropped; the first one is taken. Drop the next when this one is done.`);
}

view.start.disabled = true;
view.amount.addEventListener("input", showAmount);
view.file.addEventListener("change", () => {
  const [file] = view.file.files ?? [];
  if (file) take(file);
});
// The whole page takes a drop: a song that misses the box must not be opened by the browser in its place.
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  view.drop.classList.add("over");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) view.drop.classList.remove("over");
});
document.addEventListener("drop", onDrop);
showAmount();
