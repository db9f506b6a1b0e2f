/**
 * The account page: what is held, where songs may go, sessions, tokens, and the end of it all.
 * @module
 *
 * @typedef {{id: string, began_at: string, seen_at: string, is_this_one: boolean}} Session
 * @typedef {{id: string, scope: string, made_at: string}} Token
 * @typedef {{managed_only: boolean, offered: boolean, chosen: boolean, reason: string}} Consent
 * @typedef {{
 *   account: string, kind: string, consent: Consent, quota: {used_audio_s: number, allowed_audio_s: number | null},
 *   stored: Record<string, unknown[]>, sessions: Session[], jobs: unknown[],
 * }} Holdings
 */
import { Refusal, ask, getOptions } from "./api.js";
import { find, make, say } from "./dom.js";
import { fitFrame } from "./framed.js";
import { span } from "./words.js";

const SECTIONS = ["signed-out", "account", "erased"];
/** @type {Record<string, string>} */
const SCOPES = { jobs: "masters songs", read: "looks at jobs" };

/** @type {Holdings | null} */
let held = null;

/** @param {string} wanted */
function show(wanted) {
  for (const section of SECTIONS) find(section, HTMLElement).hidden = section !== wanted;
}

/** @param {unknown} error */
function showRefusal(error) {
  if (!(error instanceof Refusal)) throw error;
  if (error.problem.status === 401) return show("signed-out");
  const { title, detail } = error.problem;
  find("alert", HTMLElement).replaceChildren(make("div", { class: "notice bad" }, make("strong", {}, title || "That did not work"), make("p", {}, detail)));
  find("alert", HTMLElement).scrollIntoView({ block: "nearest" });
}

/**
 * Does something to the account and shows what it is afterwards.
 * @param {() => Promise<unknown>} change
 * @param {string} done
 */
async function act(change, done) {
  find("alert", HTMLElement).replaceChildren();
  try {
    await change();
    await load();
    say(find("status", HTMLElement), done);
  } catch (error) {
    showRefusal(error);
  }
}

/** @param {string} moment */
function time(moment) {
  return make("time", { datetime: moment }, new Date(moment).toLocaleString([], { dateStyle: "medium", timeStyle: "short" }));
}

/**
 * @param {string} label
 * @param {() => void} onClick
 */
function button(label, onClick) {
  const made = make("button", { class: "button secondary", type: "button" }, label);
  made.addEventListener("click", onClick);
  return made;
}

/** @param {Session} session */
function sessionEntry(session) {
  const text = make("p", {}, "Signed in ", time(session.began_at), ", last used ", time(session.seen_at));
  if (session.is_this_one) text.append(" · ", make("strong", {}, "this browser"));
  const path = `/v1/account/sessions/${session.id}`;
  const end = button("End", () => void act(() => ask(path, { method: "DELETE" }), "The session has ended."));
  end.setAttribute("aria-label", session.is_this_one ? "End this browser’s session" : "End the session that was last used " + new Date(session.seen_at).toLocaleString());
  return make("li", {}, text, end);
}

/** @param {Token} token */
function tokenEntry(token) {
  const text = make("p", {}, make("code", {}, token.id.slice(0, 6)), ` ${SCOPES[token.scope] ?? token.scope}, made `, time(token.made_at));
  const path = `/v1/account/tokens/${token.id}`;
  const revoke = button("Revoke", () => {
    find("fresh", HTMLElement).hidden = true;
    void act(() => ask(path, { method: "DELETE" }), "The token is worth nothing now.");
  });
  revoke.setAttribute("aria-label", `Revoke token ${token.id.slice(0, 6)}`);
  return make("li", {}, text, revoke);
}

/**
 * @param {string} term
 * @param {string} text
 */
function fact(term, text) {
  return [make("dt", {}, term), make("dd", {}, text)];
}

/** @param {Holdings} holdings */
function showHoldings(holdings) {
  const isGuest = holdings.kind === "guest";
  say(find("kind", HTMLElement), isGuest ? "This router serves this machine alone: you are its guest." : "All we know of you is the pseudonym below.");
  find("sign-out", HTMLElement).hidden = isGuest;
  find("sessions-block", HTMLElement).hidden = isGuest;
  find("tokens-block", HTMLElement).hidden = isGuest;
  find("any", HTMLInputElement).checked = !holdings.consent.managed_only;
  find("managed", HTMLInputElement).checked = holdings.consent.managed_only;
  find("managed", HTMLInputElement).disabled = !holdings.consent.offered;
  say(find("consent-reason", HTMLElement), holdings.consent.reason);
  const { used_audio_s: used, allowed_audio_s: allowed } = holdings.quota;
  find("held", HTMLElement).replaceChildren(
    ...fact("Pseudonym", holdings.account),
    ...fact("Jobs on record", String(holdings.jobs.length)),
    ...fact("Audio today", `${used ? span(used) : "none"}${allowed === null ? "" : ` of ${span(allowed)}`}`),
    ...fact("Rows in the store", String(Object.values(holdings.stored).flat().length)),
  );
  find("sessions", HTMLElement).replaceChildren(...holdings.sessions.map(sessionEntry));
  const tokens = /** @type {{id: string, scope: string, minute: number}[]} */ (holdings.stored["tokens"] ?? []);
  find("tokens", HTMLElement).replaceChildren(...tokens.map(({ id, scope, minute }) =>
    tokenEntry({ id, scope, made_at: new Date(minute * 60_000).toISOString() })));
}

async function load() {
  held = /** @type {Holdings} */ (await (await ask("/v1/account")).json());
  showHoldings(held);
  show("account");
}

async function open() {
  try {
    const options = await getOptions();
    if (options.account.kind === "signed_out") return show("signed-out");
    find("tiers", HTMLElement).replaceChildren(...options.tiers.map((tier) =>
      make("li", {}, make("strong", {}, tier.title), ` · ${[tier.operator, tier.region].filter(Boolean).join(", ")}`)));
    await load();
  } catch (error) {
    showRefusal(error);
  }
}

/** @param {boolean} managedOnly */
function consent(managedOnly) {
  const init = { method: "PUT", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ managed_only: managedOnly }) };
  void act(() => ask("/v1/account/consent", init), managedOnly ? "Only our own servers from the next song on." : "Every tier from the next song on.");
}

async function makeToken() {
  const init = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ scope: find("scope", HTMLSelectElement).value }) };
  const made = await (await ask("/v1/account/tokens", init)).json();
  say(find("secret", HTMLElement), made.secret);
  find("fresh", HTMLElement).hidden = false;
}

function download() {
  const url = URL.createObjectURL(new Blob([JSON.stringify(held, null, 2)], { type: "application/json" }));
  make("a", { href: url, download: "everything-held.json" }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

async function signOut() {
  try {
    await ask("/sign-out", { method: "POST" });
    window.location.assign("/");
  } catch (error) {
    showRefusal(error);
  }
}

async function erase() {
  try {
    const { jobs } = await (await ask("/v1/account", { method: "DELETE" })).json();
    say(find("erased-text", HTMLElement), `${jobs === 1 ? "One job was" : `${jobs} jobs were`} destroyed, and every session, token and choice forgotten.`);
    show("erased");
    find("erased-title", HTMLElement).focus();
  } catch (error) {
    showRefusal(error);
  }
}

find("any", HTMLInputElement).addEventListener("change", () => consent(false));
find("managed", HTMLInputElement).addEventListener("change", () => consent(true));
find("sign-out", HTMLButtonElement).addEventListener("click", () => void signOut());
find("download", HTMLButtonElement).addEventListener("click", download);
find("everywhere", HTMLButtonElement).addEventListener("click", () => void act(() => ask("/v1/account/sessions", { method: "DELETE" }), "Signed out everywhere."));
find("new-token", HTMLFormElement).addEventListener("submit", (event) => {
  event.preventDefault();
  void act(makeToken, "The token is made. Copy it now.");
});
find("erase", HTMLButtonElement).addEventListener("click", () => find("confirm", HTMLDialogElement).showModal());
find("confirm", HTMLDialogElement).addEventListener("close", () => {
  const dialog = find("confirm", HTMLDialogElement);
  if (dialog.returnValue === "erase") void erase();
  dialog.returnValue = "";
});

fitFrame();
void open();
