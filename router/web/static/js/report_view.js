/**
 * The report in numbers, as drawings (`figures_view`) and in sentences.
 * @module
 *
 * @typedef {import("./types.js").Measurements} Measurements
 * @typedef {import("./types.js").Report} Report
 */
import { find, make } from "./dom.js";
import { showFigures } from "./figures_view.js";
import { change, label, number, parameter, processor } from "./words.js";

/** @type {[key: keyof Measurements & string, title: string, unit: string, meaning: string, digits: number][]} */
const ROWS = [
  ["integrated_lufs", "Loudness", "LUFS", "of the whole song", 1],
  ["true_peak_dbtp", "True peak", "dBTP", "between the samples too", 1],
  ["loudness_range_lu", "Loudness range", "LU", "quiet parts to loud parts", 1],
  ["crest_db", "Crest", "dB", "peaks over the average: punch", 1],
  ["max_short_term_lufs", "Loudest three seconds", "LUFS", "", 1],
  ["peak_to_loudness_lu", "Peak to loudness", "LU", "", 1],
  ["correlation", "Stereo correlation", "", "1 is mono; below 0 cancels in mono", 2],
];

/** @param {Report} report */
export function showReport(report) {
  showNumbers(report);
  showChecks(report);
  showFigures(report);
  const flags = find("flags", HTMLUListElement);
  flags.hidden = report.flags.length === 0;
  flags.replaceChildren(...report.flags.map((flag) => make("li", {}, flag)));
  find("changes", HTMLOListElement).replaceChildren(...report.plan.steps.map(step));
}

/** @param {Report} report */
function showNumbers({ before, after }) {
  const head = make("tr", {}, ...["", "Before", "After", "Change"].map((text, index) => (index ? make("th", { scope: "col" }, text) : make("td"))));
  const rows = ROWS.flatMap(([key, title, unit, meaning, digits]) => {
    const [was, is] = [before[key], after[key]];
    if (was === null && is === null) return [];
    return [numbersRow(title, unit, meaning, digits, /** @type {number | null} */ (was), /** @type {number | null} */ (is))];
  });
  find("numbers", HTMLTableElement).replaceChildren(
    make("caption", { class: "visually-hidden" }, "Measurements before and after mastering"),
    make("thead", {}, head),
    make("tbody", {}, ...rows),
  );
}

/**
 * Each master as two sets of meters that share no code have read it before it was delivered.
 * @param {Report} report
 */
function showChecks({ checks = [] }) {
  const rows = checks.flatMap(({ output, ours, second }) => (second === null ? [] : [make(
    "tr",
    {},
    make("th", { scope: "row" }, output.toUpperCase()),
    ...[ours.integrated_lufs, second.integrated_lufs, ours.true_peak_dbtp, second.true_peak_dbtp].map((value) => make("td", {}, number(value, 2))),
  )]));
  const titles = ["Ours, LUFS", "pyloudnorm, LUFS", "Ours, dBTP", "soxr, dBTP"].map((text) => make("th", { scope: "col" }, text));
  find("checks-box", HTMLDetailsElement).hidden = rows.length === 0;
  find("checks", HTMLTableElement).replaceChildren(
    make("caption", { class: "visually-hidden" }, "Each master by two sets of meters that share no code"),
    make("thead", {}, make("tr", {}, make("td"), ...titles)),
    make("tbody", {}, ...rows),
  );
}

/**
 * @param {string} title
 * @param {string} unit
 * @param {string} meaning
 * @param {number} digits
 * @param {number | null} was
 * @param {number | null} is
 */
function numbersRow(title, unit, meaning, digits, was, is) {
  const name = make("th", { scope: "row" }, title, ...(unit ? [" ", make("span", { class: "unit" }, unit)] : []));
  if (meaning) name.append(make("span", { class: "meaning" }, meaning));
  return make(
    "tr",
    {},
    name,
    make("td", {}, number(was, digits)),
    make("td", { class: "after" }, number(is, digits)),
    make("td", { class: "change" }, was === null || is === null ? "–" : change(is - was, digits)),
  );
}

/** @param {import("./types.js").PlanStep} one */
function step({ name, parameters: { processors, ...parameters }, reason }) {
  const list = make("dl");
  for (const [key, value] of Object.entries(parameters)) {
    const { label: text, unit } = label(key);
    list.append(make("div", {}, make("dt", {}, text), make("dd", {}, `${parameter(value)}${unit ? ` ${unit}` : ""}`)));
  }
  const item = make("li", { class: "panel" }, make("h3", {}, label(name).label), make("p", {}, reason));
  if (processors) {
    const items = processors.map((one) => make("li", {}, processor(one), make("span", { class: "meaning" }, one.reason)));
    item.append(make("ul", { class: "processors" }, ...items));
  }
  if (list.childElementCount) item.append(make("details", { class: "fine" }, make("summary", {}, "Numbers", make("span", { class: "visually-hidden" }, ` of ${label(name).label}`)), list));
  return item;
}
