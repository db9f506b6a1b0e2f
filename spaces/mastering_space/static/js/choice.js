/**
 * Choosing a song, a reference and what shall become of them.
 * @module
 *
 * @typedef {{song: File, reference: File | null, settings: Record<string, unknown>}} Choice
 */
import { find, say } from "./dom.js";
import { size } from "./words.js";

const view = {
  form: find("form", HTMLFormElement),
  drop: find("drop", HTMLElement),
  file: find("file", HTMLInputElement),
  chosen: find("chosen", HTMLElement),
  facts: find("chosen-facts", HTMLElement),
  pickText: find("pick-text", HTMLElement),
  amount: find("amount", HTMLInputElement),
  amountText: find("amount-text", HTMLOutputElement),
  reference: find("reference", HTMLInputElement),
  noReference: find("no-reference", HTMLButtonElement),
};

/** @type {File | null} */
let song = null;

/** @param {{onStart: (choice: Choice) => void, onMistake: (title: string, detail: string) => void, onChoice: () => void}} handlers */
export function openChoice({ onStart, onMistake, onChoice }) {
  /** @param {File} file */
  const take = (file) => {
    song = file;
    view.drop.classList.add("filled");
    say(view.chosen, file.name);
    say(view.facts, size(file.size));
    say(view.pickText, "Choose another");
    onChoice();
  };
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
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    view.drop.classList.remove("over");
    const [file, ...others] = event.dataTransfer?.files ?? [];
    if (!file || view.form.closest("[hidden]")) return;
    take(file);
    if (others.length) onMistake("One song at a time", `${others.length + 1} files were dropped; the first one is taken.`);
  });
  view.amount.addEventListener("input", showAmount);
  view.reference.addEventListener("change", showReference);
  view.noReference.addEventListener("click", () => {
    view.reference.value = "";
    showReference();
    view.reference.focus();
  });
  view.form.addEventListener("submit", (event) => {
    event.preventDefault();
    const settings = wish();
    if (!song) {
      onMistake("No song yet", "Drop a song on the page or choose a file first.");
      view.file.focus();
    } else if (song.size === 0) {
      onMistake("This file is empty", "It holds 0 bytes. Choose the song’s own file.");
    } else if (settings.outputs.length === 0) {
      onMistake("No file to download", "Choose at least one format.");
    } else {
      onStart({ song, reference: view.reference.files?.[0] ?? null, settings });
    }
  });
  showAmount();
  showReference();
}

export function chosenSong() {
  return song;
}

export function forgetSong() {
  song = null;
  view.file.value = "";
  view.drop.classList.remove("filled");
  say(view.chosen, "Drop a song here");
  say(view.facts, "");
  say(view.pickText, "Choose a file");
}

/** Title and extension of each format offered. */
export function outputKinds() {
  const inputs = /** @type {HTMLInputElement[]} */ ([...view.form.querySelectorAll("input[name=output]")]);
  return Object.fromEntries(inputs.map(({ value, dataset }) =>
    [value, { title: dataset.title ?? value, extension: dataset.extension ?? "", media_type: "" }]));
}

function wish() {
  const data = new FormData(view.form);
  return {
    target: String(data.get("target")),
    style: String(data.get("style")),
    effort: String(data.get("effort")),
    amount_percent: view.amount.valueAsNumber,
    outputs: data.getAll("output").map(String),
  };
}

function showAmount() {
  say(view.amountText, `${view.amount.value} %`);
}

function showReference() {
  view.noReference.hidden = !view.reference.files?.length;
}
