/**
 * The records of the HTTP API as the page sees them. Types only; nothing runs here.
 * @module
 *
 * @typedef {{title: string, for: string, loudness_lufs: number, ceiling_dbtp: number}} Target
 * @typedef {{title: string, for: string}} Style
 * @typedef {{media_type: string, extension: string, title: string}} OutputKind
 * @typedef {{name: string, title: string, operator: string, region: string}} Tier
 * @typedef {{title: string, offered: boolean, reason: string}} Pace How the settings are found.
 * @typedef {{max_bytes: number, max_duration_s: number, output_ttl_s: number}} Limits
 * @typedef {{
 *   targets: Record<string, Target>, styles: Record<string, Style>, outputs: Record<string, OutputKind>,
 *   kinds: Record<string, {paces: Record<string, Pace>}>,
 *   limits: Limits, tiers: Tier[], engine_version: string, account: {kind: string, managed_only: boolean, offered: boolean, reason: string},
 * }} Options
 *
 * @typedef {{
 *   target: string, style: string, amount_percent: number, effort: string, loudness_lufs?: number, ceiling_dbtp?: number,
 *   rate_hz?: number, outputs: string[], managed_only: boolean,
 * }} Wish What the person asks for.
 *
 * @typedef {{title?: string, status?: number, code: string, detail: string}} Problem RFC 9457, with our code.
 * @typedef {{centre_hz: number, mid_db: number, side_db: number}} BandLevel
 * @typedef {{
 *   rate_hz: number, channels: number, frames: number, duration_s: number, integrated_lufs: number | null,
 *   max_momentary_lufs: number | null, max_short_term_lufs: number | null, loudness_range_lu: number | null,
 *   true_peak_dbtp: number, sample_peak_dbfs: number, crest_db: number, peak_to_loudness_lu: number | null,
 *   correlation: number | null, width_db: number | null, clipped_samples: number, spectrum: BandLevel[],
 * }} Measurements
 * @typedef {number | boolean | string | number[]} Parameter
 * @typedef {{
 *   processor: string, on: "both" | "mid" | "side", reason: string, cutoff_frequency_hz?: number, gain_db?: number, q?: number,
 *   threshold_db?: number, ratio?: number, attack_ms?: number, release_ms?: number, drive_db?: number,
 * }} Processor One processor of a board; what it has no use for it lacks.
 * @typedef {{name: string, parameters: {processors?: Processor[]} & Record<string, Parameter>, reason: string}} PlanStep
 * @typedef {{integrated_lufs: number | null, true_peak_dbtp: number}} Readings
 * @typedef {{output: string, ours: Readings, second: Readings | null}} MasterCheck
 * @typedef {{
 *   before: Measurements, after: Measurements, flags: string[],
 *   plan: {loudness_lufs: number, ceiling_dbtp: number, steps: PlanStep[]}, traces: Traces | null,
 *   checks?: MasterCheck[],
 * }} Report
 * @typedef {{
 *   step_s: number, loudness_before_lufs: (number | null)[], loudness_after_lufs: (number | null)[],
 *   gain_reduction_db: number[],
 * }} Traces
 * @typedef {{format: string, url: string, size_bytes: number, media_type: string, extension: string}} Output
 * @typedef {{number: number, tier: string, tier_title: string, reason: string, outcome: string, detail: string}} Attempt
 * @typedef {{input_key_destroyed_at: number | null, outputs_key_destroyed_at: number | null}} Receipt Seconds since 1970.
 * @typedef {{
 *   stage: string | null, fraction: number, tier: string, tier_title: string, reason: string, eta_s: number | null,
 * }} Progress
 * @typedef {{
 *   id: string, revision: number, state: string, expires_in_s: number, settings: Wish,
 *   facts: {duration_s: number} | null, queue: {position: number, eta_s: number | null, reason: string} | null,
 *   progress: Progress | null, attempts: Attempt[], outputs: Output[], report: Report | null,
 *   error: Problem | null, receipt: Receipt | null,
 * }} Job
 */
export {};
