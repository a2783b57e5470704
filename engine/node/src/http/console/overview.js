// The page of all jobs.

import { line, span, spanText } from './chart.js';
import { h } from './dom.js';
import { count, counted, duration, rate, UNKNOWN } from './format.js';
import { cluster, history } from './live.js';
import { badge, byUrgency, isUnwell, progressOf, toneOf, whyOf, workersOf } from './states.js';

export const title = () => 'Jobs';

/** The table's columns: the heading, and the class of its cells. */
const COLUMNS = [['Job'], ['State'], ['Workers', 'number'], ['Lag', 'number'], ['In / s', 'number'], ['Out / s', 'number']];

export function draw() {
  const jobs = [...cluster.jobs.values()].sort(byUrgency);
  return [
    h('div', { class: 'head' }, h('h1', { tabindex: '-1' }, 'Jobs'), h('p', { class: 'quiet' }, summary(jobs))),
    jobs.length === 0 ? nothing() : table(jobs),
  ];
}

function summary(jobs) {
  if (jobs.length === 0) return null;
  const unwell = jobs.filter(isUnwell).length;
  const running = jobs.filter((job) => job.state === 'running').length;
  const parts = [counted(jobs.length, 'job'), `${running} running`];
  if (unwell > 0) parts.push(unwell === 1 ? '1 needs attention' : `${unwell} need attention`);
  return parts.join(', ');
}

function nothing() {
  return h('div', { class: 'empty' },
    h('p', null, 'No job has been submitted to this cluster yet.'),
    h('p', { class: 'quiet' }, 'Submit the binary of one from any host that reaches a node:'),
    h('pre', { tabindex: '0' }, h('code', null, 'fluvial submit target/release/orders --workers 2 -- --brokers localhost:9092 --input orders --output revenue')));
}

function table(jobs) {
  const ms = span(jobs.map((job) => history.get(job.job) ?? []));
  const headings = [...COLUMNS, [`Lag, ${spanText(ms)}`]];
  return h('div', { class: 'card' },
    h('table', { class: 'rows', role: 'table' },
      h('caption', { class: 'unseen' }, 'The jobs of this cluster, those that need attention first'),
      h('thead', { role: 'rowgroup' }, h('tr', { role: 'row' }, headings.map(([name, kind]) =>
        h('th', { scope: 'col', role: 'columnheader', class: kind }, name)))),
      h('tbody', { role: 'rowgroup' }, jobs.map((job) => row(job, ms)))));
}

function row(job, ms) {
  const of = progressOf(job);
  const samples = history.get(job.job) ?? [];
  const cell = (name, kind, ...content) =>
    h('td', { role: 'cell', class: content[0] === UNKNOWN ? `${kind} none` : kind, 'data-name': name }, ...content);
  const { svg, most } = line(samples, { figure: 'lag', name: 'Lag', text: (value) => counted(value, 'record'), ms });
  return h('tr', { role: 'row', 'data-key': job.job, class: toneOf(job) },
    h('th', { scope: 'row', role: 'rowheader' }, h('a', { href: `/jobs/${encodeURIComponent(job.job)}` }, job.job)),
    cell('State', 'state', badge(toneOf(job), job.state), whyOf(job) && h('p', { class: 'why short' }, whyOf(job))),
    cell('Workers', 'number', `${workersOf(job)} / ${job.workers_wanted ?? UNKNOWN}`),
    cell('Lag', 'number', count(of?.lag_records),
      of && of.lag_ms !== null && h('span', { class: 'quiet second' }, duration(of.lag_ms))),
    cell('In / s', 'number', rate(of?.records_in_per_s)),
    cell('Out / s', 'number', rate(of?.records_out_per_s)),
    cell(`Lag, ${spanText(ms)}`, 'chart', most === null
      ? UNKNOWN
      : h('span', { class: 'spark' }, svg, h('span', { class: 'quiet most', 'aria-hidden': 'true' }, `max ${count(most)}`))));
}
