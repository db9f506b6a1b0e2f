/**
 * Drawings in SVG: waveforms and third-octave spectra. Colours are the style sheet's.
 * @module
 *
 * @typedef {import("./types.js").BandLevel} BandLevel
 */
import { draw } from "./dom.js";
import { hertz, number } from "./words.js";

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
  const x = (hz) => LEFT + ((width - LEFT - 8) * Math.log(hz / LOW_HZ)) / Math.log(HIGH_HZ / LOW_HZ);
  /** @param {number} level */
  const y = (level) => TOP + ((HEIGHT - TOP - BOTTOM) * (most - Math.max(level, least))) / (most - least);
  /** @param {"before" | "after"} key */
  const line = (key) => bands.map((band) => `${x(band.centreHz).toFixed(1)} ${y(band[key]).toFixed(1)}`);
  const area = `M${line("before").join("L")}L${line("after").reverse().join("L")}Z`;
  return draw(
    "svg",
    { class: "spectrum", viewBox: `0 0 ${width} ${HEIGHT}`, role: "img", "aria-labelledby": "spectrum-title", "aria-describedby": "spectrum-text" },
    ...levelTicks(least, most, y, width),
    ...TICKS_HZ.filter((_, index) => width > NARROW || index % 2).map((hz) => draw("text", { class: "tick middle", x: x(hz), y: HEIGHT - 8 }, hertz(hz).replace(" Hz", "").replace(" kHz", "k"))),
    draw("path", { class: "between", d: area }),
    draw("path", { class: "line before", d: `M${line("before").join("L")}` }),
    draw("path", { class: "line after", d: `M${line("after").join("L")}` }),
  );
}

/**
 * @param {number} least
 * @param {number} most
 * @param {(level: number) => number} y
 * @param {number} width
 */
function levelTicks(least, most, y, width) {
  const ticks = [];
  for (let level = least; level <= most; level += 10) {
    ticks.push(
      draw("path", { class: "grid", d: `M${LEFT} ${y(level)}H${width - 8}` }),
      draw("text", { class: "tick end", x: LEFT - 8, y: y(level) + 4 }, number(level, 0)),
    );
  }
  return ticks;
}
