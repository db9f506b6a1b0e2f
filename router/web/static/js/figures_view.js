/**
 * The report's drawings: each with a sentence that says what it shows, and its numbers as a table.
 * @module
 *
 * @typedef {import("./types.js").Report} Report
 * @typedef {import("./types.js").Traces} Traces
 */
import { find, make, say } from "./dom.js";
import { loudness, moments, pairs, reduction, spectrum } from "./plots.js";
import { change, clock, hertz, number } from "./words.js";

const LEAST_WIDTH = 240;
const HEARD_DB = 1;

/** @typedef {(width: number) => SVGElement} Draw */
/** @type {Map<Element, Draw>} how each place is drawn, as wide as it is now */
const drawings = new Map();
const watch = new ResizeObserver((changed) => changed.forEach(({ target }) => fit(target)));

/** @param {Report} report */
export function showFigures(report) {
  showSpectrum(report);
  const { traces, after: { duration_s: durationS } } = report;
  showLoudness(traces, durationS);
  showReduction(traces, durationS);
}

/** @param {Report} report */
function showSpectrum(report) {
  const bands = pairs(report);
  const heard = bands.filter((band) => Math.max(band.before, band.after) > -70);
  place("spectrum", (width) => spectrum(bands, width), { isPair: true });
  const most = best(heard, (band) => Math.abs(band.after - band.before));
  const largest = most ? ` The largest change is ${change(most.after - most.before)} dB at ${hertz(most.centreHz)}.` : "";
  say(find("spectrum-text", HTMLElement), `Third-octave levels of the middle, in dB against each one’s own loudness.${largest}`);
  fill("spectrum", ["Band", "Before, dB", "After, dB", "Change, dB"], heard.map((band) =>
    [hertz(band.centreHz), number(band.before), number(band.after), change(band.after - band.before)]));
}

/**
 * @param {Traces | null} traces
 * @param {number} durationS
 */
function showLoudness(traces, durationS) {
  const course = traces ? moments(traces) : [];
  const top = best(course, ({ after }) => after ?? -Infinity);
  const isShown = course.length > 1 && top?.after !== null;
  find("course-box", HTMLElement).hidden = !isShown;
  if (!isShown || !top) return;
  place("course", (width) => loudness(course, durationS, width), { isPair: true });
  say(find("course-text", HTMLElement), "Loudness of three seconds at a time, in LUFS. The master is loudest around "
    + `${clock(top.atS)}, at ${number(top.after)}; the original has ${number(top.before)} there.`);
  fill("course", ["Time", "Before, LUFS", "After, LUFS", "Change, LU"], course.map(({ atS, before, after }) =>
    [clock(atS), number(before), number(after), before === null || after === null ? "–" : change(after - before)]));
}

/**
 * @param {Traces | null} traces
 * @param {number} durationS
 */
function showReduction(traces, durationS) {
  const { gain_reduction_db: taken = [], step_s: stepS = 1 } = traces ?? {};
  find("reduction-box", HTMLElement).hidden = taken.length < 2;
  if (taken.length < 2) return;
  place("reduction", (width) => reduction(taken, stepS, durationS, width), { isPair: false });
  say(find("reduction-text", HTMLElement), reductionText(taken, stepS));
  fill("reduction", ["From", "Taken, dB"], taken.map((level, index) => [clock(index * stepS), number(-level)]));
}

/**
 * @param {number[]} taken
 * @param {number} stepS
 */
function reductionText(taken, stepS) {
  const what = `What the limiter takes off the peaks, in dB: the most in each step of ${number(stepS, 0)} s.`;
  const deepest = Math.min(...taken);
  if (number(deepest) === "0.0") return `${what} Here it has nothing to do.`;
  const heard = taken.filter((level) => -level > HEARD_DB).length;
  return `${what} At most it takes ${number(-deepest)}, around ${clock(taken.indexOf(deepest) * stepS)}; it takes more than `
    + `${HEARD_DB} dB in ${heard} of ${taken.length} steps.`;
}

/**
 * @param {string} name
 * @param {Draw} draw
 * @param {{isPair: boolean}} kind of the plot: two lines want a legend
 */
function place(name, draw, { isPair }) {
  const legend = make(
    "p",
    { class: "legend-line", "aria-hidden": "true" },
    make("span", { class: "key before" }, "Before"),
    make("span", { class: "key after" }, "After"),
  );
  const drawing = make("div");
  find(name, HTMLElement).replaceChildren(...(isPair ? [legend] : []), drawing);
  drawings.set(find(name, HTMLElement), draw);
  watch.observe(find(name, HTMLElement));
  fit(find(name, HTMLElement));
}

/** @param {Element} box */
function fit(box) {
  const drawing = box.lastElementChild;
  drawing?.replaceChildren(...[drawings.get(box)?.(Math.max(LEAST_WIDTH, drawing.clientWidth)) ?? ""]);
}

/**
 * @param {string} name
 * @param {string[]} head
 * @param {string[][]} rows after a pair's two columns comes what changed
 */
function fill(name, head, rows) {
  const classes = head.length > 2 ? [undefined, "after", "change"] : [];
  find(`${name}-table`, HTMLTableElement).replaceChildren(
    make("thead", {}, make("tr", {}, ...head.map((text) => make("th", { scope: "col" }, text)))),
    make("tbody", {}, ...rows.map(([first, ...others]) => make(
      "tr",
      {},
      make("th", { scope: "row" }, first ?? ""),
      ...others.map((text, index) => make("td", classes[index] ? { class: classes[index] } : {}, text)),
    ))),
  );
}

/**
 * @template T
 * @param {T[]} list
 * @param {(one: T) => number} value
 * @returns {T | undefined} the first of those with the highest value
 */
function best(list, value) {
  return list.reduce((/** @type {T | undefined} */ found, one) => (found === undefined || value(one) > value(found) ? one : found), undefined);
}
