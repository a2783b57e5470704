// Lines over the last hour, as SVG.

import { h } from './dom.js';
import { duration } from './format.js';

const HOUR_MS = 3_600_000;
const LEAST_MS = 300_000;
// A longer time without a sample is a gap.
const GAP_MS = 40_000;

/** The time that charts show: the last hour, or less as long as less is known. */
export function span(histories) {
  const oldest = Math.min(Date.now(), ...histories.map((samples) => samples[0]?.at ?? Date.now()));
  return Math.min(HOUR_MS, Math.max(LEAST_MS, Math.ceil((Date.now() - oldest) / 60_000) * 60_000));
}

/** `Last hour`, or as much of it as is shown. */
export function spanText(ms) {
  return ms === HOUR_MS ? 'last hour' : `last ${duration(ms)}`;
}

/**
 * A line of one figure of the samples. `text` writes a value; the line is an image whose text says how it goes.
 */
export function line(samples, { figure, name, text, ms, width = 120, height = 28, area = false }) {
  const begin = Date.now() - ms;
  const shown = samples.filter((sample) => sample.at >= begin);
  const values = shown.map((sample) => sample[figure]).filter((value) => value !== null);
  const most = Math.max(...values, 0);
  const x = (sample) => (((sample.at - begin) / ms) * width).toFixed(1);
  const y = (value) => (height - 1.5 - (most > 0 ? value / most : 0) * (height - 4)).toFixed(1);
  let path = '';
  let fill = '';
  let part = [];
  let before = null;
  const finish = () => {
    if (part.length === 0) return;
    // A single sample is a dot.
    const points = part.length === 1 ? [part[0], part[0]] : part;
    path += `M${points.join('L')}`;
    fill += `M${points[0].split(' ')[0]} ${height}L${points.join('L')}L${points.at(-1).split(' ')[0]} ${height}Z`;
    part = [];
  };
  for (const sample of shown) {
    const value = sample[figure];
    if (value === null || (before && sample.at - before.at > GAP_MS)) finish();
    if (value !== null) part.push(`${x(sample)} ${y(value)}`);
    before = sample;
  }
  finish();
  const now = samples.at(-1)?.[figure] ?? null;
  const label =
    values.length === 0
      ? `${name}, ${spanText(ms)}: nothing is known`
      : `${name}, ${spanText(ms)}: at most ${text(most)}, now ${now === null ? 'not known' : text(now)}`;
  const svg = h(
    'svg',
    { class: 'line', viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: 'none', role: 'img', 'aria-label': label },
    area && fill && h('path', { class: 'fill', d: fill }),
    path && h('path', { class: 'stroke', d: path, 'vector-effect': 'non-scaling-stroke' }),
  );
  return { svg, most: values.length ? most : null };
}
