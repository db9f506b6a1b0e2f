/**
 * Drawings in SVG: waveforms, third-octave spectra, readings over time. Colours are the style sheet's.
 * @module
 *
 * @typedef {import("./types.js").BandLevel} BandLevel
 */
import { draw } from "./dom.js";
import { clock, hertz, number } from "./words.js";

/**
 * @param {import("./audio.js").Peaks} peaks
 * @param {string} name of the class
 */
export function waveform({ least, most }, name) {
  const top = Array.from(most, (value, index) => `${index} ${(-value * 50).toFixed(2)}`);
  const bottom = Array.from(least, (value, index) => `${index} ${(-value * 50).toFixed(2)}`).reverse();
  return draw(
    "svg",
    { class: `wave ${name}`, viewBox: `0 -50 ${most.length - 1} 100`, preserveAspectRatio: "none", "aria-hidden": "true" },
    draw("path", { class: "rest", d: `M0 0H${most.length - 1}` }),
    draw("path", { class: "shape", d: `M${top.join("L")}L${bottom.join("L")}Z` }),
  );
}

const HEIGHT = 300;
const NARROW = 480;
const LEFT = 40;
const BOTTOM = 30;
const TOP = 12;
const LOW_HZ = 20;
const HIGH_HZ = 20000;
const RIGHT = 8;
const TICKS_HZ = [31.5, 63, 125, 250, 500, 1000, 2000, 4000, 8000, 16000];

/** @typedef {{centreHz: number, before: number, after: number}} Pair levels relative to each recording's loudness */

/**
 * The two spectra at equal loudness, so that what is left to see is the change of tone.
 * @param {import("./types.js").Report} report
 * @returns {Pair[]}
 */
export function pairs({ before, after }) {
  const beforeAt = before.integrated_lufs ?? 0;
  const afterAt = after.integrated_lufs ?? 0;
  const byCentre = new Map(after.spectrum.map((band) => [Math.round(band.centre_hz), band]));
  return before.spectrum.flatMap((band) => {
    const other = byCentre.get(Math.round(band.centre_hz));
    if (!other || band.centre_hz < LOW_HZ || band.centre_hz > HIGH_HZ) return [];
    return [{ centreHz: band.centre_hz, before: band.mid_db - beforeAt, after: other.mid_db - afterAt }];
  });
}

/**
 * @param {Pair[]} bands
 * @param {number} width in pixels, so that the lettering keeps its size on any screen
 */
export function spectrum(bands, width) {
  const heard = bands.flatMap((band) => [band.before, band.after]).filter((level) => level > -70);
  const most = Math.ceil((Math.max(-10, ...heard) + 2) / 10) * 10;
  const least = Math.max(Math.floor((Math.min(...heard, most - 40) - 2) / 10) * 10, most - 70);
  /** @param {number} hz */
  const x = (hz) => LEFT + ((width - LEFT - RIGHT) * Math.log(hz / LOW_HZ)) / Math.log(HIGH_HZ / LOW_HZ);
  const y = height(least, most);
  /** @param {"before" | "after"} key */
  const line = (key) => bands.map((band) => `${x(band.centreHz).toFixed(1)} ${y(band[key]).toFixed(1)}`);
  const area = `M${line("before").join("L")}L${line("after").reverse().join("L")}Z`;
  return draw(
    "svg",
    frame("spectrum", width),
    ...levelTicks(least, most, 10, width),
    ...TICKS_HZ.filter((_, index) => width > NARROW || index % 2).map((hz) => draw("text", { class: "tick middle", x: x(hz), y: HEIGHT - 8 }, hertz(hz).replace(" Hz", "").replace(" kHz", "k"))),
    draw("path", { class: "between", d: area }),
    draw("path", { class: "line before", d: `M${line("before").join("L")}` }),
    draw("path", { class: "line after", d: `M${line("after").join("L")}` }),
  );
}

/** @typedef {{atS: number, before: number | null, after: number | null}} Moment loudness in LUFS; null in silence */

/**
 * @param {import("./types.js").Traces} traces
 * @returns {Moment[]}
 */
export function moments({ step_s: stepS, loudness_before_lufs: before, loudness_after_lufs: after }) {
  return Array.from({ length: Math.min(before.length, after.length) }, (_, index) =>
    ({ atS: index * stepS + SHORT_TERM_S / 2, before: before[index] ?? null, after: after[index] ?? null }));
}

const SHORT_TERM_S = 3;
/** Below the loudest moment: what is quieter than that, a fade's end, lies on the floor. */
const SHOWN_LU = 40;

/**
 * @param {Moment[]} course
 * @param {number} durationS
 * @param {number} width
 */
export function loudness(course, durationS, width) {
  const heard = course.flatMap(({ before, after }) => [before, after]).filter((level) => level !== null);
  const highest = Math.max(-60, ...heard);
  const step = Math.max(2, roundStep(Math.min(highest - Math.min(highest, ...heard), SHOWN_LU)));
  const most = Math.ceil((highest + 0.5) / step) * step;
  const least = Math.max(Math.floor((Math.min(highest - 4, ...heard) - 0.5) / step) * step, most - SHOWN_LU);
  const x = across(durationS, width);
  const y = height(least, most);
  /** @param {"before" | "after"} key */
  const line = (key) => course.map((moment) => `${x(moment.atS).toFixed(1)} ${y(moment[key] ?? least).toFixed(1)}`);
  return draw(
    "svg",
    frame("course", width),
    ...levelTicks(least, most, step, width),
    ...timeTicks(durationS, width),
    draw("path", { class: "between", d: `M${line("before").join("L")}L${line("after").reverse().join("L")}Z` }),
    draw("path", { class: "line before", d: `M${line("before").join("L")}` }),
    draw("path", { class: "line after", d: `M${line("after").join("L")}` }),
  );
}

/**
 * What the limiter takes, hanging from 0 dB as on its meter: the most of each step.
 * @param {number[]} taken in dB, 0 or less
 * @param {number} stepS
 * @param {number} durationS
 * @param {number} width
 */
export function reduction(taken, stepS, durationS, width) {
  const most = Math.max(3, -Math.min(0, ...taken));
  const step = roundStep(most);
  const least = -Math.ceil((most + 0.1) / step) * step;
  const x = across(durationS, width);
  const y = height(least, 0);
  const edges = taken.map((level, index) =>
    `V${y(level).toFixed(1)}H${x(Math.min((index + 1) * stepS, durationS)).toFixed(1)}`).join("");
  const zero = y(0).toFixed(1);
  return draw(
    "svg",
    frame("reduction", width),
    ...levelTicks(least, 0, step, width),
    ...timeTicks(durationS, width),
    draw("path", { class: "taken", d: `M${x(0)} ${zero}${edges}V${zero}Z` }),
  );
}

/**
 * @param {string} name of the plot: its heading and its caption tell what is drawn
 * @param {number} width
 */
function frame(name, width) {
  return { class: "plot", viewBox: `0 0 ${width} ${HEIGHT}`, role: "img", "aria-labelledby": `${name}-title`, "aria-describedby": `${name}-text` };
}

/**
 * @param {number} least
 * @param {number} most
 * @returns {(level: number) => number} what lies below the floor is drawn on it
 */
function height(least, most) {
  return (level) => TOP + ((HEIGHT - TOP - BOTTOM) * (most - Math.max(level, least))) / (most - least);
}

/**
 * @param {number} durationS
 * @param {number} width
 * @returns {(seconds: number) => number}
 */
function across(durationS, width) {
  return (seconds) => LEFT + ((width - LEFT - RIGHT) * seconds) / durationS;
}

/**
 * Between two lines of the grid, so that there are five of them or so.
 * @param {number} span
 */
function roundStep(span) {
  return [1, 2, 5].find((size) => span / size <= 5) ?? 10;
}

/**
 * @param {number} least
 * @param {number} most
 * @param {number} step
 * @param {number} width
 */
function levelTicks(least, most, step, width) {
  const y = height(least, most);
  const ticks = [];
  for (let level = least; level <= most; level += step) {
    ticks.push(
      draw("path", { class: "grid", d: `M${LEFT} ${y(level)}H${width - RIGHT}` }),
      draw("text", { class: "tick end", x: LEFT - 8, y: y(level) + 4 }, number(level, 0)),
    );
  }
  return ticks;
}

const TICKS_S = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800];

/**
 * @param {number} durationS
 * @param {number} width
 */
function timeTicks(durationS, width) {
  const x = across(durationS, width);
  const step = TICKS_S.find((size) => x(size) - x(0) >= (width > NARROW ? 70 : 42)) ?? 3600;
  const ticks = [];
  for (let at = 0; at <= durationS && x(at) <= width - RIGHT - 12; at += step) {
    ticks.push(draw("text", { class: "tick middle", x: x(at), y: HEIGHT - 8 }, clock(at)));
  }
  return ticks;
}
