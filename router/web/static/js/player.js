/**
 * Plays two recordings of one song on one clock and lets through one of them.
 *
 * Both buffers start together and always run; a side is chosen by two gain ramps, so switching loses no sample and
 * clicks nowhere. At equal loudness the louder side is turned down, never the quieter up: nothing can clip.
 * @module
 *
 * @typedef {"original" | "master"} Side
 * @typedef {{buffer: AudioBuffer, lufs: number | null, lagFrames: number}} Recording
 */

const RAMP_S = 0.012;
const START_AHEAD_S = 0.05;

export class Player {
  /** @type {AudioContext | null} */
  #context = null;
  /** @type {Map<Side, GainNode>} */
  #gains = new Map();
  /** @type {AudioBufferSourceNode[]} */
  #sources = [];
  /** @type {Map<Side, Recording>} */
  #recordings;
  #positionS = 0;
  #startedAtS = 0;
  #generation = 0;

  /** @param {Map<Side, Recording>} recordings `master` at least */
  constructor(recordings) {
    this.#recordings = recordings;
    /** @type {Side} */
    this.side = "master";
    this.isMatched = true;
    this.isPlaying = false;
    this.durationS = Math.min(...[...recordings.values()].map((one) => one.buffer.duration));
    /** @type {() => void} */
    this.onEnd = () => undefined;
  }

  get positionS() {
    if (!this.isPlaying || !this.#context) return this.#positionS;
    const playedS = Math.max(0, this.#context.currentTime - this.#startedAtS);
    return Math.min(this.#positionS + playedS, this.durationS);
  }

  async play() {
    if (this.isPlaying) return;
    const context = this.#ready();
    this.isPlaying = true;
    await context.resume();
    if (this.isPlaying) this.#start(this.#positionS >= this.durationS ? 0 : this.#positionS);
  }

  pause() {
    if (!this.isPlaying) return;
    this.#positionS = this.positionS;
    this.isPlaying = false;
    this.#stopSources();
    void this.#context?.suspend();
  }

  /** @param {number} seconds */
  seek(seconds) {
    this.#positionS = Math.min(Math.max(seconds, 0), this.durationS);
    if (this.isPlaying) this.#start(this.#positionS);
  }

  /** @param {Side} side */
  choose(side) {
    if (!this.#recordings.has(side)) return;
    this.side = side;
    this.#applyGains();
  }

  /** @param {boolean} isMatched */
  match(isMatched) {
    this.isMatched = isMatched;
    this.#applyGains();
  }

  /**
   * By how much a side is turned down, as a factor of at most 1.
   * @param {Side} side
   */
  levelOf(side) {
    const lufs = this.#recordings.get(side)?.lufs ?? null;
    const all = [...this.#recordings.values()].map((one) => one.lufs);
    if (!this.isMatched || lufs === null || all.includes(null)) return 1;
    return 10 ** ((Math.min(.../** @type {number[]} */ (all)) - lufs) / 20);
  }

  close() {
    this.isPlaying = false;
    this.#stopSources();
    void this.#context?.close();
    this.#context = null;
  }

  #ready() {
    if (this.#context) return this.#context;
    const [first] = this.#recordings.values();
    const context = new AudioContext({ sampleRate: /** @type {Recording} */ (first).buffer.sampleRate });
    for (const side of this.#recordings.keys()) {
      const gain = context.createGain();
      gain.gain.value = side === this.side ? this.levelOf(side) : 0;
      gain.connect(context.destination);
      this.#gains.set(side, gain);
    }
    this.#context = context;
    return context;
  }

  /** @param {number} fromS */
  #start(fromS) {
    const context = this.#ready();
    this.#stopSources();
    const generation = ++this.#generation;
    const atS = context.currentTime + START_AHEAD_S;
    for (const [side, recording] of this.#recordings) {
      const source = context.createBufferSource();
      source.buffer = recording.buffer;
      source.connect(/** @type {GainNode} */ (this.#gains.get(side)));
      const offsetS = fromS + recording.lagFrames / recording.buffer.sampleRate;
      source.start(atS + Math.max(0, -offsetS), Math.max(0, offsetS));
      this.#sources.push(source);
    }
    this.#positionS = fromS;
    this.#startedAtS = atS;
    const [first] = this.#sources;
    if (first) first.onended = () => this.#ended(generation);
  }

  /** @param {number} generation an older start's end means nothing */
  #ended(generation) {
    if (generation !== this.#generation || !this.isPlaying) return;
    this.pause();
    this.#positionS = 0;
    this.onEnd();
  }

  #stopSources() {
    this.#generation++;
    for (const source of this.#sources) {
      source.stop();
      source.disconnect();
    }
    this.#sources = [];
  }

  #applyGains() {
    if (!this.#context) return;
    const now = this.#context.currentTime;
    for (const [side, { gain }] of this.#gains) {
      const held = gain.value;
      gain.cancelScheduledValues(now);
      gain.setValueAtTime(held, now);
      gain.linearRampToValueAtTime(side === this.side ? this.levelOf(side) : 0, now + RAMP_S);
    }
  }
}

/** Plays the master alone, as a stream: for songs too long to hold twice, and browsers that can't decode it. */
export class StreamPlayer {
  /** @param {string} url */
  constructor(url) {
    this.#audio = new Audio();
    this.#audio.preload = "metadata";
    this.#audio.src = url;
    this.#audio.addEventListener("ended", () => this.onEnd());
    /** @type {() => void} */
    this.onEnd = () => undefined;
  }

  #audio;

  get isPlaying() {
    return !this.#audio.paused;
  }

  get positionS() {
    return this.#audio.currentTime;
  }

  get durationS() {
    return Number.isFinite(this.#audio.duration) ? this.#audio.duration : 0;
  }

  play() {
    return this.#audio.play();
  }

  pause() {
    this.#audio.pause();
  }

  /** @param {number} seconds */
  seek(seconds) {
    this.#audio.currentTime = seconds;
  }

  close() {
    this.#audio.pause();
    this.#audio.removeAttribute("src");
    this.#audio.load();
  }
}
