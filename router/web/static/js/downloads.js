/**
 * The master's files, fetched at most once each and saved under the song's own name, which only this browser knows.
 * @module
 *
 * @typedef {import("./types.js").Job} Job
 * @typedef {import("./types.js").Output} Output
 */
import { Refusal, ask } from "./api.js";
import { find, make, say } from "./dom.js";
import { masterName, size } from "./words.js";

const RELEASE_AFTER_MS = 60000;

export class Downloads {
  /** @type {Map<string, Promise<Blob>>} */
  #fetched = new Map();

  /**
   * @param {Job} job
   * @param {string} fileName of the song, or empty
   * @param {(refusal: Refusal) => void} onRefusal
   */
  constructor(job, fileName, onRefusal) {
    this.outputs = job.outputs;
    this.fileName = fileName;
    this.onRefusal = onRefusal;
  }

  /**
   * @param {string} format
   * @returns {Promise<Blob>}
   */
  fetch(format) {
    const known = this.#fetched.get(format);
    if (known) return known;
    const output = this.outputs.find((one) => one.format === format);
    if (!output) return Promise.reject(new RangeError(`no output ${format}`));
    const fetched = ask(output.url).then((response) => response.blob());
    this.#fetched.set(format, fetched);
    // What failed may be asked for again.
    fetched.catch(() => this.#fetched.delete(format));
    return fetched;
  }

  /** @param {Record<string, import("./types.js").OutputKind>} kinds */
  show(kinds) {
    find("downloads", HTMLUListElement).replaceChildren(...this.outputs.map((output) => make("li", {}, this.#link(output, kinds[output.format]?.title ?? output.format))));
  }

  /**
   * @param {Output} output
   * @param {string} title
   */
  #link(output, title) {
    const name = masterName(this.fileName, output.extension, output.format === "wav16");
    const note = make("small", {}, size(output.size_bytes));
    const link = make("a", { class: "button download", href: output.url, download: name }, make("strong", {}, title), note);
    link.addEventListener("click", (event) => {
      event.preventDefault();
      if (link.getAttribute("aria-busy") === "true") return;
      link.setAttribute("aria-busy", "true");
      say(note, "fetching …");
      this.fetch(output.format)
        .then((blob) => save(blob, name))
        .catch((error) => this.onRefusal(error instanceof Refusal ? error : lost()))
        .finally(() => {
          link.removeAttribute("aria-busy");
          say(note, size(output.size_bytes));
        });
    });
    return link;
  }
}

function lost() {
  return new Refusal({ code: "lost", title: "The download stopped", detail: "The connection was lost while the master came down. Click the file again." }, true);
}

/**
 * The service's own answer names the file "master": a blob lets this browser name it.
 * @param {Blob} blob
 * @param {string} name
 */
function save(blob, name) {
  const url = URL.createObjectURL(blob);
  make("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), RELEASE_AFTER_MS);
}
