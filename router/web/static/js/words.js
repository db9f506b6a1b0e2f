/**
 * Numbers and names as people read them.
 * @module
 */

const MINUS = "−";
const NONE = "–";

/**
 * @param {number | null | undefined} value
 * @param {number} [digits]
 */
export function number(value, digits = 1) {
  if (value === null || value === undefined || !Number.isFinite(value)) return NONE;
  const text = value.toFixed(digits);
  const isZero = Number(text) === 0;
  return isZero ? text.replace("-", "") : text.replace("-", MINUS);
}

/**
 * A difference, with its sign.
 * @param {number} value
 * @param {number} [digits]
 */
export function change(value, digits = 1) {
  const text = number(value, digits);
  return Number(value.toFixed(digits)) > 0 ? `+${text}` : text;
}

/** @param {number} seconds */
export function clock(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const minutes = Math.floor(whole / 60);
  return `${minutes}:${String(whole % 60).padStart(2, "0")}`;
}

/** @param {number} seconds */
export function span(seconds) {
  if (seconds < 1) return "a moment";
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  return `${Math.round(seconds / 3600)} h`;
}

/** @param {number} count of bytes */
export function size(count) {
  if (count < 1024) return `${count} bytes`;
  if (count < 1024 * 1024) return `${(count / 1024).toFixed(0)} KiB`;
  const mebi = count / (1024 * 1024);
  return `${mebi.toFixed(mebi < 100 ? 1 : 0)} MiB`;
}

/** @param {number} hz */
export function hertz(hz) {
  return hz < 1000 ? `${Math.round(hz)} Hz` : `${Number((hz / 1000).toFixed(hz < 10000 ? 1 : 0))} kHz`;
}

/** @type {[suffix: string, unit: string][]} */
const UNITS = [
  ["_percent", "%"], ["_dbtp", "dBTP"], ["_dbfs", "dBFS"], ["_lufs", "LUFS"], ["_khz", "kHz"], ["_hz", "Hz"],
  ["_ms", "ms"], ["_lu", "LU"], ["_db", "dB"], ["_s", "s"],
];

/**
 * `look_ahead_ms` becomes "Look ahead" and "ms".
 * @param {string} key
 * @returns {{label: string, unit: string}}
 */
export function label(key) {
  const found = UNITS.find(([suffix]) => key.endsWith(suffix));
  const words = (found ? key.slice(0, -found[0].length) : key).replaceAll("_", " ").trim();
  return { label: words.charAt(0).toUpperCase() + words.slice(1), unit: found ? found[1] : "" };
}

/** @param {import("./types.js").Parameter} value */
export function parameter(value) {
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (typeof value === "string") return value.replaceAll("_", " ");
  if (typeof value === "number") return Number.isInteger(value) ? number(value, 0) : number(value, Math.abs(value) < 10 ? 2 : 1);
  if (value.length <= 4) return value.map((one) => number(one, Math.abs(one) < 100 ? 1 : 0)).join(" · ");
  const [low, high] = value.reduce(([least, most], one) => [Math.min(least, one), Math.max(most, one)], [Infinity, -Infinity]);
  return `${number(low)} … ${number(high)} (${value.length} values)`;
}

/** @type {Record<string, string>} */
const PROCESSORS = {
  HighpassFilter: "High-pass",
  LowpassFilter: "Low-pass",
  LowShelfFilter: "Low shelf",
  PeakFilter: "Bell",
  HighShelfFilter: "High shelf",
  Distortion: "Soft clipper",
  Clipping: "Hard clipper",
};

/**
 * A processor of the board as an engineer says it: "High shelf 5.4 kHz, +1.5 dB, Q 0.70".
 * @param {import("./types.js").Processor} one
 */
export function processor(one) {
  const parts = [
    one.cutoff_frequency_hz === undefined ? "" : hertz(one.cutoff_frequency_hz),
    one.threshold_db === undefined ? "" : `from ${number(one.threshold_db)} dB`,
    one.ratio === undefined ? "" : `${number(one.ratio, 2)}:1`,
    one.attack_ms === undefined ? "" : `attack ${number(one.attack_ms, 0)} ms`,
    one.release_ms === undefined ? "" : `release ${number(one.release_ms, 0)} ms`,
    one.drive_db === undefined ? "" : `drive ${change(one.drive_db)} dB`,
    one.gain_db === undefined ? "" : `${change(one.gain_db)} dB`,
    one.q === undefined ? "" : `Q ${number(one.q, 2)}`,
    one.on === "both" ? "" : `on the ${one.on}`,
  ];
  return `${PROCESSORS[one.processor] ?? one.processor} ${parts.filter(Boolean).join(", ")}`;
}

/** @type {Record<string, string>} */
const STAGES = {
  decode: "Decoding",
  analyse: "Listening and measuring",
  plan: "Deciding what to change",
  fit: "Refining the decisions",
  render: "Mastering",
  verify: "Checking the master",
  encode: "Writing the files",
};

/** @param {string | null} stage */
export function stageTitle(stage) {
  return (stage && STAGES[stage]) || "Working";
}

/** @param {string} fileName without its extension */
export function stem(fileName) {
  const dot = fileName.lastIndexOf(".");
  return dot > 0 ? fileName.slice(0, dot) : fileName;
}

/**
 * @param {string} fileName of the song; empty when this browser no longer knows it
 * @param {string} extension
 * @param {boolean} isVariant 16-bit beside the 24-bit file of the same extension
 */
export function masterName(fileName, extension, isVariant) {
  const suffix = isVariant ? "master, 16-bit" : "master";
  return fileName ? `${stem(fileName)} (${suffix}).${extension}` : `${suffix.replace(", ", " ")}.${extension}`;
}
