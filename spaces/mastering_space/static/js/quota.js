/**
 * Whose ZeroGPU quota a call spends: inside huggingface.co's frame the page around us hands out headers that say so.
 * Without them the quota is the address's. The words are those of Gradio's own page.
 * @module
 */

const ASKS = "supports-zerogpu-headers";
const WANTS = "zerogpu-headers";
const AROUND = "https://huggingface.co";
const PATIENCE_MS = 2000;

let isKnown = false;

/** @returns {Promise<Record<string, string>>} */
export function quotaHeaders() {
  if (!isKnown) return Promise.resolve({});
  return new Promise((resolve) => {
    const channel = new MessageChannel();
    const giveUp = setTimeout(() => resolve({}), PATIENCE_MS);
    channel.port1.onmessage = ({ data }) => {
      clearTimeout(giveUp);
      channel.port1.close();
      resolve(typeof data === "object" && data !== null ? data : {});
    };
    window.parent.postMessage(WANTS, AROUND, [channel.port2]);
  });
}

if (window.parent !== window && window.location.hostname.endsWith(".hf.space")) {
  window.addEventListener("message", (event) => {
    if (event.origin === AROUND && event.data === ASKS) isKnown = true;
  });
  window.parent.postMessage(ASKS, AROUND);
}
