/**
 * The operators' page: asks for the status every two seconds and shows it; sets the mode of a backend.
 * @module
 */

/**
 * @typedef {{name: string, tier: string, state: string, reason: string, since_s: number, back_in_s: number | null,
 *   mode: string, in_flight: number, slots: number, weight: number, eta_s: number, quota_left_s: number | null,
 *   device: string | null, sandbox_gaps: string[] | null, engine_version: string | null, kinds: string[] | null, lacks: string[], region: string, operator: string}} Backend
 * @typedef {{name: string, title: string, up: boolean, condition: string, in_flight: number, slots: number, backends: Backend[]}} Tier
 * @typedef {{ago_s: number, kind: string, tier: string, backend: string, what: string, detail: string,
 *   seconds: number | null}} Happening
 * @typedef {{at: string, summary: string, healthy: boolean, tiers: Tier[], events: Happening[],
 *   queue: {waiting: number, running: number, oldest_s: number | null, by_age: Record<string, number>, by_kind: Record<string, number>,
 *     eta_s: number | null, outlook: string},
 *   spool: {used_bytes: number, quota_bytes: number, files: number, oldest_s: number | null},
 *   catalogue_error: string | null, probe_sandbox_gaps: string[] | null}} Status
 */

const EVERY_MS = 2000;
const MODES = /** @type {const} */ ({ ready: "Ready", draining: "Drain", maintenance: "Maintenance" });
const GOOD = new Set(["healthy", "up", "done"]);
const WARN = new Set(["on trial", "in doubt", "asleep", "starting", "suspect", "half-open", "warming", "sleeping", "draining", "capacity", "stopped"]);
const CALM = new Set(["unknown", "maintenance", "paused", "user"]);

/**
 * @param {string} tag
 * @param {Record<string, string>} [attributes]
 * @param {...(Node | string)} children
 */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** @param {string} id */
function find(id) {
  const element = document.getElementById(id);
  if (!element) throw new TypeError(`#${id} is missing`);
  return element;
}

/** @param {number | null} seconds */
function span(seconds) {
  if (seconds === null) return "–";
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  return `${Math.round(seconds / 3600)} h`;
}

/** @param {number} bytes */
function size(bytes) {
  return bytes < 1e9 ? `${(bytes / 1e6).toFixed(0)} MB` : `${(bytes / 1e9).toFixed(1)} GB`;
}

/** @param {string} word */
function badge(word) {
  const kind = GOOD.has(word) ? "good" : WARN.has(word) ? "warn" : CALM.has(word) ? "calm" : "bad";
  return make("span", { class: `state ${kind}` }, word);
}

/**
 * @param {string} title
 * @param {string} value
 * @param {...(Node | string)} rest
 */
function tile(title, value, ...rest) {
  return make("div", {}, make("dt", {}, title), make("dd", {}, value, make("small", {}, ...rest)));
}

/** @param {Status} status */
function tiles({ queue, spool }) {
  const ages = Object.entries(queue.by_age).filter(([, count]) => count).map(([age, count]) => `${count} ${age}`);
  const kinds = Object.entries(queue.by_kind).filter(([, count]) => count).map(([kind, count]) => `${count} ${kind}`);
  const waiting = Object.keys(queue.by_kind).length > 1 ? [ages.join(", "), kinds.join(", ")].filter(Boolean).join(" · ") : ages.join(", ");
  const used = make("meter", {
    min: "0", max: String(spool.quota_bytes), value: String(spool.used_bytes),
    high: String(0.9 * spool.quota_bytes), "aria-label": "Spool in use",
  });
  return [
    tile("Waiting", String(queue.waiting), waiting || "nobody"),
    tile("Running", String(queue.running), queue.oldest_s === null ? "" : `longest wait ${span(queue.oldest_s)}`),
    tile("A song that came now", queue.eta_s === null ? "no tier" : `done in ${span(queue.eta_s)}`, queue.outlook),
    tile("Spool", size(spool.used_bytes), used, `${spool.files} files of at most ${size(spool.quota_bytes)}, oldest ${span(spool.oldest_s)}`),
  ];
}

/** @param {string[] | null} names What a sandbox lacks. */
function gaps(names) {
  return names?.length ? make("small", { class: "gaps" }, `Its sandbox does not refuse to: ${names.join(", ")}.`) : "";
}

/** @param {Backend} backend */
function row(backend) {
  const back = backend.back_in_s ? `, tried again in ${span(backend.back_in_s)}` : "";
  const slow = backend.state === "healthy" && backend.weight < 1 ? `, at ${Math.round(backend.weight * 100)} % of its share` : "";
  const verbs = Object.entries(MODES).map(([mode, label]) => {
    const pressed = String(backend.mode === mode);
    const button = make("button", { type: "button", "aria-pressed": pressed, "aria-label": `${label}: ${backend.name}` }, label);
    button.dataset["key"] = `${backend.name} ${mode}`;
    button.addEventListener("click", () => tell(backend.name, mode));
    return button;
  });
  const quota = backend.quota_left_s === null ? "no limit" : `${span(backend.quota_left_s)} left`;
  return make("tr", {},
    make("th", { scope: "row" }, backend.name, make("small", {}, [backend.device, backend.region, backend.kinds?.join(", ")].filter(Boolean).join(" · "))),
    make("td", {}, badge(backend.state), make("small", {}, `${backend.reason}${back}${slow}`), ...backend.lacks.map((lack) => make("small", {}, lack)), gaps(backend.sandbox_gaps)),
    make("td", { class: "figure" }, span(backend.since_s)),
    make("td", { class: "figure" }, `${backend.in_flight} of ${backend.slots}`),
    make("td", { class: "figure" }, span(backend.eta_s)),
    make("td", { class: "figure" }, quota),
    make("td", { class: "verbs" }, ...verbs),
  );
}

/** @param {Tier} tier */
function card(tier) {
  const names = ["Backend", "State", "For", "In flight", "A song takes", "Quota", "Tell it"];
  const head = make("tr", {}, ...names.map((name) => make("th", { scope: "col" }, name)));
  const table = make("table", {}, make("thead", {}, head), make("tbody", {}, ...tier.backends.map(row)));
  return make("article", { class: "tier" },
    make("header", {}, make("h2", {}, tier.title), badge(tier.condition)),
    make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": tier.title }, table),
  );
}

/** @param {Happening} event */
function happened(event) {
  const words = { attempt: "attempt", failover: "failover after", state: "now" };
  const kind = words[/** @type {keyof typeof words} */ (event.kind)];
  return make("tr", {},
    make("td", { class: "figure" }, `${span(event.ago_s)} ago`),
    make("td", {}, `${kind} `, badge(event.what)),
    make("td", {}, event.backend),
    make("td", {}, event.seconds === null ? "" : span(event.seconds)),
    make("td", {}, event.detail),
  );
}

/** @param {Status} status */
function show(status) {
  const focused = document.activeElement instanceof HTMLElement ? document.activeElement.dataset["key"] : undefined;
  const summary = find("summary");
  if (summary.textContent !== status.summary) summary.textContent = status.summary;
  find("fresh").textContent = `as of ${new Date(status.at).toLocaleTimeString()}`;
  const catalogue = find("catalogue");
  catalogue.hidden = status.catalogue_error === null;
  catalogue.textContent = status.catalogue_error === null ? "" : `The catalogue has a mistake, the one before is in force: ${status.catalogue_error}`;
  const probe = find("probe");
  const ours = status.probe_sandbox_gaps ?? [];
  probe.hidden = ours.length === 0;
  probe.textContent = ours.length === 0 ? "" : `The sandbox around uploads does not refuse to: ${ours.join(", ")}.`;
  find("tiles").replaceChildren(...tiles(status));
  find("tiers").replaceChildren(...status.tiers.map(card));
  find("events").replaceChildren(...status.events.map(happened));
  if (focused) document.querySelectorAll("button").forEach((one) => one.dataset["key"] === focused && one.focus());
}

/**
 * @param {string} name
 * @param {string} mode
 */
async function tell(name, mode) {
  const request = { method: "PUT", headers: { "content-type": "application/json" }, body: JSON.stringify({ mode }) };
  await refresh(`/v1/backends/${encodeURIComponent(name)}/mode`, request);
}

/**
 * @param {string} address
 * @param {RequestInit} [request]
 */
async function refresh(address, request) {
  try {
    const response = await fetch(address, { ...request, signal: AbortSignal.timeout(5000) });
    if (!response.ok) throw new Error(String(response.status));
    show(await response.json());
  } catch {
    find("summary").textContent = "The router does not answer. What is below may be old.";
  }
}

async function forEver() {
  await refresh("/v1/status");
  setTimeout(forEver, EVERY_MS);
}

void forEver();
