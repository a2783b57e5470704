// The page of one job.

import { buttons } from './actions.js';
import { line, span, spanText } from './chart.js';
import { detail } from './detail.js';
import { h } from './dom.js';
import { bytes, count, counted, duration, rate, UNKNOWN } from './format.js';
import { dataflow } from './graph.js';
import { cluster, history, link } from './live.js';
import { attempts, checkpointsOf, savepoints } from './past.js';
import { mayAct } from './session.js';
import { badge, isOver, progressOf, toneOf, whyOf, workersOf } from './states.js';
import { tabs } from './tabs.js';

export const title = ({ name }) => name;

export function draw({ name }) {
  const job = cluster.jobs.get(name);
  if (!job) return missing(name);
  return [
    head(job),
    tabs(name, 'overview'),
    h('section', { class: 'card state-of', 'aria-label': 'State', 'data-key': 'state' }, facts(states(job))),
    dataflow(),
    h('section', { 'aria-labelledby': 'figures', 'data-key': 'figures' },
      h('h2', { id: 'figures' }, 'Progress'), h('div', { class: 'card' }, facts(figures(job))), charts(job)),
    attempt(job),
    attempts(name),
    checkpointsOf(name),
    savepoints(name),
  ];
}

/** What is shown where there is no such job. */
export function missing(name) {
  return [
    h('div', { class: 'head' }, h('h1', { tabindex: '-1' }, name)),
    h('div', { class: 'empty' }, h('p', null, 'There is no job of this name.'), h('p', null, h('a', { href: '/' }, 'All jobs'))),
  ];
}

function head(job) {
  const lost = link.state !== 'live';
  return h('div', { class: 'head', 'data-key': 'head' },
    h('h1', { tabindex: '-1' }, job.job),
    mayAct() && h('div', { class: 'actions', role: 'group', 'aria-label': `Actions on ${job.job}` }, buttons(job, lost)));
}

/** A list of names and values. */
function facts(rows) {
  return h('dl', { class: 'facts' }, rows.filter(Boolean).map(([name, ...value]) =>
    h('div', { 'data-key': name }, h('dt', null, name), h('dd', null, value.filter(Boolean).map((part, at) => [at > 0 && ' ', part])))));
}

function states(job) {
  const { wanted, attempt } = job;
  const wants = wanted && (wanted.run ? `to run with ${counted(wanted.workers, 'worker')}` : 'to be stopped');
  return [
    ['Wanted', wants ?? UNKNOWN, wanted && h('span', { class: 'quiet second' }, `revision ${wanted.revision}`)],
    ['Observed', badge(toneOf(job), job.state), !isOver(job) && h('span', { class: 'quiet second' },
      `${workersOf(job)} of ${counted(job.workers_wanted ?? 0, 'worker')}`), whyOf(job) && h('p', { class: 'why' }, whyOf(job))],
    attempt && ['Program', h('code', { title: attempt.version }, attempt.version.slice(0, 12)),
      wanted && wanted.version !== attempt.version && h('span', { class: 'quiet second' }, `wanted: ${wanted.version.slice(0, 12)}`)],
  ];
}

function figures(job) {
  const of = progressOf(job);
  if (!of) return [['Lag', UNKNOWN], ['Records read', UNKNOWN], ['Records committed', UNKNOWN], ['Newest checkpoint', UNKNOWN]];
  const second = (text) => h('span', { class: 'quiet second' }, text);
  return [
    ['Lag', of.lag_records === null ? 'not known' : counted(of.lag_records, 'record'), of.lag_ms !== null && second(duration(of.lag_ms))],
    ['Records read', count(of.records_in), second(`${rate(of.records_in_per_s)} / s`)],
    ['Records committed', count(of.records_out), second(`${rate(of.records_out_per_s)} / s`)],
    ['Newest checkpoint', of.checkpoint === null ? 'none yet' : `${duration(of.checkpoint_age_ms)} ago`, checkpoint()],
    ['Input in memory', bytes(of.in_flight_bytes)],
    job.memory_bytes !== null && ['Memory', bytes(job.memory_bytes), job.cpu_share !== null && second(`${job.cpu_share.toFixed(2)} cores`)],
    of.foreign_records > 0 && ['Records of other writers', count(of.foreign_records), second('in the output topics')],
  ];
}

function checkpoint() {
  const of = detail.job?.figures?.checkpoint;
  return of && h('span', { class: 'quiet second' }, `${bytes(of.bytes)} in ${duration(of.duration_ms)}`);
}

const CHARTS = [
  ['lag', 'Lag', 'records', (value) => counted(value, 'record')],
  ['read', 'Read', 'records / s', (value) => `${rate(value)} records a second`],
  ['committed', 'Committed', 'records / s', (value) => `${rate(value)} records a second`],
];

function charts(job) {
  const samples = history.get(job.job) ?? [];
  if (samples.every(({ lag, read }) => lag === null && read === null)) return null;
  const ms = span([samples]);
  const chart = ([figure, name, unit, text]) => {
    const { svg, most } = line(samples, { figure, name, text, ms, width: 320, height: 72, area: true });
    return h('figure', { class: 'card', 'data-key': figure },
      h('figcaption', null, h('strong', null, name), h('span', { class: 'quiet' }, unit)),
      svg,
      h('p', { class: 'quiet axis' }, h('span', null, spanText(ms)), h('span', null, most === null ? 'no figures yet' : `max ${figure === 'lag' ? count(most) : rate(most)}`)));
  };
  return h('div', { class: 'charts', 'data-key': 'charts' }, CHARTS.map(chart));
}

function attempt(job) {
  const of = job.attempt;
  const content = of
    ? [h('div', { class: 'card' }, facts([
        ['Attempt', String(of.number)],
        ['Generation', of.generation === null ? 'not open yet' : String(of.generation)],
        ['Began because of', of.why],
      ])), processes(of)]
    : [h('p', { class: 'empty' }, 'No attempt to run this job has been made yet.')];
  return h('section', { 'aria-labelledby': 'attempt', 'data-key': 'attempt' },
    h('h2', { id: 'attempt' }, isOver(job) ? 'Last attempt' : 'Newest attempt'), ...content);
}

const PROCESS_TONES = { listens: 'good', started: 'warn', ended: 'idle' };

function processes({ processes }) {
  const cell = (name, kind, ...content) => h('td', { role: 'cell', class: kind, 'data-name': name }, ...content);
  const headings = [['Process'], ['Node'], ['Workers', 'number'], ['State']];
  return h('div', { class: 'card', 'data-key': 'processes' },
    h('table', { class: 'rows', role: 'table' },
      h('caption', { class: 'unseen' }, 'The processes of this attempt'),
      h('thead', { role: 'rowgroup' }, h('tr', { role: 'row' }, headings.map(([name, kind]) =>
        h('th', { scope: 'col', role: 'columnheader', class: kind }, name)))),
      h('tbody', { role: 'rowgroup' }, processes.map((process) =>
        h('tr', { role: 'row', 'data-key': process.process },
          h('th', { scope: 'row', role: 'rowheader' }, `Process ${process.process}`),
          cell('Node', null, process.node),
          cell('Workers', 'number', String(process.workers)),
          cell('State', 'state', badge(PROCESS_TONES[process.state] ?? 'idle', process.state), process.why && h('p', { class: 'why' }, process.why)))))));
}
