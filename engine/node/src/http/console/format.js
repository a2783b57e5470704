// Numbers and times as people read them.

const WHOLE = new Intl.NumberFormat('en-US', { maximumFractionDigits: 0 });
const TENTHS = new Intl.NumberFormat('en-US', { maximumFractionDigits: 1 });
const SHORT = new Intl.NumberFormat('en-US', { notation: 'compact', maximumFractionDigits: 1 });

/** What stands for something that is not known. */
export const UNKNOWN = '–';

const known = (value) => value !== null && value !== undefined;

/** A count, exact below a million. */
export function count(value) {
  if (!known(value)) return UNKNOWN;
  return (value < 1e6 ? WHOLE : SHORT).format(value);
}

/** A number of things a second. */
export function rate(value) {
  if (!known(value)) return UNKNOWN;
  if (value >= 1e5) return SHORT.format(value);
  return (value < 10 ? TENTHS : WHOLE).format(value);
}

/** A time in milliseconds, in at most two units. */
export function duration(ms) {
  if (!known(ms)) return UNKNOWN;
  if (ms < 1000) return `${WHOLE.format(ms)} ms`;
  const s = ms / 1000;
  if (s < 10) return `${TENTHS.format(s)} s`;
  const units = [['d', 86400], ['h', 3600], ['min', 60], ['s', 1]];
  let rest = Math.floor(s);
  const parts = [];
  for (const [unit, length] of units) {
    const n = Math.floor(rest / length);
    rest -= n * length;
    if (n > 0) parts.push(`${n} ${unit}`);
    else if (parts.length) break;
    if (parts.length === 2) break;
  }
  return parts.join(' ');
}

export function bytes(value) {
  if (!known(value)) return UNKNOWN;
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${(value < 10 && unit > 0 ? TENTHS : WHOLE).format(value)} ${units[unit]}`;
}

/** A share of one, in percent. */
export function share(value) {
  return known(value) ? `${WHOLE.format(value * 100)} %` : UNKNOWN;
}

/** `1 job`, `2 jobs`. */
export function counted(n, noun) {
  return `${count(n)} ${noun}${n === 1 ? '' : 's'}`;
}

/** The time of day of a Date. */
export function clock(date) {
  return date.toLocaleTimeString('en-GB');
}

/** A time, in milliseconds since the Unix epoch: the time of day, and the day if it is another one. */
export function date(ms) {
  const of = new Date(ms);
  const today = of.toDateString() === new Date().toDateString();
  return today ? clock(of) : `${of.toLocaleDateString('en-CA')} ${clock(of)}`;
}
