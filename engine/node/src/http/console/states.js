// How the states of jobs and nodes are shown: by a word, a shape and a colour.

import { h } from './dom.js';
import { duration } from './format.js';

// Worst first: the order of the overview.
const TONES = ['bad', 'warn', 'good', 'idle'];
const JOBS = {
  running: 'good',
  stalled: 'bad',
  opening: 'warn',
  preparing: 'warn',
  starting: 'warn',
  stopping: 'warn',
  restarting: 'warn',
  waiting: 'bad',
  stopped: 'idle',
  ended: 'idle',
  failed: 'bad',
  unknown: 'bad',
};
const NODES = { ready: 'good', unready: 'warn', leaving: 'warn', draining: 'warn', drained: 'idle', failed: 'bad', silent: 'bad' };
// Output that is older than this is not what a job is there for.
const LATE_MS = 10_000;
const SHAPES = {
  good: 'M6 1a5 5 0 1 1 0 10A5 5 0 0 1 6 1Z',
  warn: 'M6 1l5.5 10H.5Z',
  bad: 'M1 1h10v10H1Z',
  idle: 'M6 1a5 5 0 1 1 0 10A5 5 0 0 1 6 1Zm0 1.7a3.3 3.3 0 1 0 0 6.6A3.3 3.3 0 0 0 6 2.7Z',
};

/** How well a job is. */
export function toneOf(job) {
  if (job.state === 'running' && whyOf(job)) return 'warn';
  return JOBS[job.state] ?? 'bad';
}

/** What is to be said of the state of a job; empty if everything is as it should be. */
export function whyOf(job) {
  if (job.state !== 'running' || job.why) return job.why;
  const late = job.progress?.lag_ms ?? 0;
  return late >= LATE_MS ? `its output is ${duration(late)} behind its input` : '';
}

export function toneOfNode(node) {
  return NODES[node.state] ?? 'bad';
}

/** The order of jobs: the unwell ones first, then by name. */
export function byUrgency(a, b) {
  return TONES.indexOf(toneOf(a)) - TONES.indexOf(toneOf(b)) || (a.job < b.job ? -1 : 1);
}

/** Whether a person should look at a job. */
export function isUnwell(job) {
  return ['bad', 'warn'].includes(toneOf(job));
}

export function badge(tone, text) {
  const shape = h('svg', { viewBox: '0 0 12 12', 'aria-hidden': 'true' }, h('path', { d: SHAPES[tone], 'fill-rule': 'evenodd' }));
  return h('span', { class: `badge ${tone}` }, shape, text);
}

/** Whether a job has come to an end, for good or because users wanted it. */
export function isOver(job) {
  return ['stopped', 'ended', 'failed'].includes(job.state);
}

/** How far a job is; null if it does not run. What a process has said last is no news of a job that is over. */
export function progressOf(job) {
  return isOver(job) ? null : job.progress;
}

/** The number of workers that run. */
export function workersOf(job) {
  const run = ['running', 'stalled'].includes(job.state);
  return run ? (job.attempt?.workers ?? 0) : 0;
}
