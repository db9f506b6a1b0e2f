/**
 * What this tab remembers across a reload: its job and the song's name, in sessionStorage and nowhere else.
 * Where storage is blocked the tab remembers until it is reloaded, and everything else works.
 * @module
 *
 * @typedef {{job: string, name: string, sizeBytes: number}} Trip
 */

const KEY = "trip";

/** @type {Trip | null} */
let current = null;

/** @param {Trip} trip */
export function remember(trip) {
  current = trip;
  attempt((storage) => storage.setItem(KEY, JSON.stringify(trip)));
}

export function forget() {
  current = null;
  attempt((storage) => storage.removeItem(KEY));
}

/** @returns {Trip | null} */
export function recall() {
  attempt((storage) => {
    /** @type {unknown} */
    const kept = JSON.parse(storage.getItem(KEY) ?? "null");
    if (isTrip(kept)) current = kept;
  });
  return current;
}

/**
 * @param {unknown} value
 * @returns {value is Trip}
 */
function isTrip(value) {
  return typeof value === "object" && value !== null
    && "job" in value && typeof value.job === "string"
    && "name" in value && typeof value.name === "string"
    && "sizeBytes" in value && typeof value.sizeBytes === "number";
}

/** @param {(storage: Storage) => void} use */
function attempt(use) {
  try {
    use(window.sessionStorage);
  } catch {
    // Blocked, full or damaged storage: the tab's own memory is enough until a reload.
  }
}
