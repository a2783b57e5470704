// What has become of a job: its attempts with the reasons they ended, its checkpoints and its savepoints.

import { detail } from './detail.js';
import { h } from './dom.js';
import { bytes, counted, date, duration, UNKNOWN } from './format.js';
import { checkpoints } from './live.js';
import { mayAct } from './session.js';
import { table } from './table.js';

const MOST_CHECKPOINTS = 8;

function section(id, heading, ...content) {
  return h('section', { 'aria-labelledby': id, 'data-key': id }, h('h2', { id }, heading), ...content);
}

/** The attempts, which become generations, newest first. */
export function attempts(name) {
  const of = detail.attempts;
  if (of.length === 0) return null;
  const row = (attempt) => ({
    key: `attempt ${attempt.number}`,
    cells: {
      Generation: [attempt.generation === null ? 'not open' : String(attempt.generation), h('span', { class: 'quiet second' }, `attempt ${attempt.number}`)],
      Began: [date(attempt.began_ms), h('p', { class: 'why' }, attempt.why)],
      Ended: attempt.ended === null
        ? 'goes on'
        : [attempt.ended_ms !== null && `after ${duration(attempt.ended_ms - attempt.began_ms)}`, h('p', { class: 'why' }, attempt.ended)],
      Workers: [String(attempt.workers), h('span', { class: 'quiet second' }, counted(attempt.nodes.length, 'node'))],
      Log: h('a', { href: `/jobs/${encodeURIComponent(name)}/logs?attempt=${attempt.number}`, 'aria-label': `Log of attempt ${attempt.number}` }, 'Log'),
    },
  });
  return section('attempts', 'Generations', h('div', { class: 'card', 'data-key': 'table' }, table({
    caption: 'The newest attempts to run this job', classes: { Generation: null, Began: 'wide', Ended: 'wide', Workers: 'number', Log: null }, rows: of.map(row),
  })));
}

/** The newest checkpoints. */
export function checkpointsOf(name) {
  const newest = detail.job?.figures?.checkpoint;
  const known = [...(checkpoints.get(name) ?? [])].reverse().slice(0, MOST_CHECKPOINTS);
  if (known.length === 0) return null;
  // A tick is a time by the clock of the job.
  const age = (tick) => (newest ? newest.age_ms + (newest.tick - tick) : Math.max(0, Date.now() - tick));
  const row = ({ tick, bytes: size, duration_ms }) => ({
    key: `checkpoint ${tick}`,
    cells: { Checkpoint: `${duration(Math.max(0, Math.round(age(tick) / 1000) * 1000))} ago`, Size: bytes(size), Duration: duration(duration_ms), Tick: String(tick) },
  });
  return section('checkpoints', 'Checkpoints', h('div', { class: 'card', 'data-key': 'table' }, table({
    caption: 'The newest checkpoints of this job', classes: { Checkpoint: null, Size: 'number', Duration: 'number', Tick: 'number' }, rows: known.map(row),
  })));
}

/** The savepoints. */
export function savepoints(name) {
  const of = detail.savepoints;
  if (of === null) return null;
  const row = (savepoint) => ({
    key: `savepoint ${savepoint.name}`,
    cells: {
      Savepoint: savepoint.name,
      Taken: date(savepoint.taken_ms),
      Size: bytes(savepoint.bytes),
      Generation: String(savepoint.generation),
      Action: mayAct()
        ? h('button', { type: 'button', 'data-action': 'delete-savepoint', 'data-job': name, 'data-savepoint': savepoint.name, 'aria-label': `Delete the savepoint ${savepoint.name}` }, 'Delete')
        : UNKNOWN,
    },
  });
  const content = of.length === 0
    ? h('p', { class: 'empty', 'data-key': 'none' }, 'No savepoint of this job is kept.')
    : h('div', { class: 'card', 'data-key': 'table' }, table({
      caption: 'The savepoints of this job', classes: { Savepoint: null, Taken: null, Size: 'number', Generation: 'number', Action: 'number' }, rows: [...of].sort((a, b) => b.taken_ms - a.taken_ms).map(row),
    }));
  return section('savepoints', 'Savepoints', content);
}
