/**
 * Samples in the browser: decoding, waveforms, and the offset between two recordings of the same song.
 * @module
 *
 * @typedef {{least: Float32Array, most: Float32Array}} Peaks of each bucket of time, all channels together
 */

/** Two decoded songs are held at once, 32-bit: beyond this the browser plays the master alone, as a stream. */
export const LONGEST_DECODED_S = 20 * 60;
const SEARCH_S = 0.06;
const WINDOW_S = 0.25;
const SURE_CORRELATION = 0.5;
const MATERIAL_GAIN = 0.05;

/**
 * @param {ArrayBuffer} bytes
 * @param {number} rateHz
 * @returns {Promise<AudioBuffer>} rejects when this browser can't decode it
 */
export function decode(bytes, rateHz) {
  return new OfflineAudioContext(1, 1, rateHz).decodeAudioData(bytes);
}

/**
 * @param {AudioBuffer} buffer
 * @param {number} buckets
 * @returns {Peaks}
 */
export function peaksOf(buffer, buckets) {
  const least = new Float32Array(buckets);
  const most = new Float32Array(buckets);
  for (let channel = 0; channel < buffer.numberOfChannels; channel++) {
    const samples = buffer.getChannelData(channel);
    for (let bucket = 0; bucket < buckets; bucket++) {
      const [low, high] = extremes(samples, bucket / buckets, (bucket + 1) / buckets);
      least[bucket] = Math.min(least[bucket] ?? 0, low);
      most[bucket] = Math.max(most[bucket] ?? 0, high);
    }
  }
  return { least, most };
}

/**
 * @param {Float32Array} samples
 * @param {number} from as a fraction of the whole
 * @param {number} to
 * @returns {[number, number]}
 */
function extremes(samples, from, to) {
  let low = 0;
  let high = 0;
  const end = Math.floor(to * samples.length);
  for (let index = Math.floor(from * samples.length); index < end; index++) {
    const value = /** @type {number} */ (samples[index]);
    if (value < low) low = value;
    else if (value > high) high = value;
  }
  return [low, high];
}

/**
 * By how many frames `master` lags behind `original`: decoders trim the padding of MP3 and AAC differently. Normalised
 * cross-correlation around the original's loudest moment; 0 unless another lag is clearly better.
 * @param {AudioBuffer} original
 * @param {AudioBuffer} master at the same rate
 */
export function lagFrames(original, master) {
  const reach = Math.round(SEARCH_S * original.sampleRate);
  const size = Math.round(WINDOW_S * original.sampleRate);
  const one = original.getChannelData(0);
  const other = master.getChannelData(0);
  const start = loudestWindow(one, size, reach, Math.min(one.length, other.length) - size - reach);
  if (start === null) return 0;
  /** @param {number} lag */
  const at = (lag) => correlation(one, other, start, start + lag, size);
  let best = 0;
  let bestValue = at(0);
  const here = bestValue;
  for (let lag = -reach; lag <= reach; lag++) {
    const value = at(lag);
    if (value > bestValue) [best, bestValue] = [lag, value];
  }
  return bestValue > SURE_CORRELATION && bestValue > here + MATERIAL_GAIN ? best : 0;
}

/**
 * @param {Float32Array} samples
 * @param {number} size
 * @param {number} first
 * @param {number} last
 * @returns {number | null} null when the song is too short to look into
 */
function loudestWindow(samples, size, first, last) {
  let best = null;
  let bestEnergy = 0;
  for (let start = first; start <= last; start += size) {
    let energy = 0;
    for (let index = start; index < start + size; index += 4) energy += (samples[index] ?? 0) ** 2;
    if (energy > bestEnergy) [best, bestEnergy] = [start, energy];
  }
  return best;
}

/**
 * @param {Float32Array} one
 * @param {Float32Array} other
 * @param {number} oneStart
 * @param {number} otherStart
 * @param {number} size
 */
function correlation(one, other, oneStart, otherStart, size) {
  let product = 0;
  let oneEnergy = 1e-12;
  let otherEnergy = 1e-12;
  for (let index = 0; index < size; index += 2) {
    const a = /** @type {number} */ (one[oneStart + index]);
    const b = /** @type {number} */ (other[otherStart + index]);
    product += a * b;
    oneEnergy += a * a;
    otherEnergy += b * b;
  }
  return product / Math.sqrt(oneEnergy * otherEnergy);
}
