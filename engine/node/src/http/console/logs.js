// The page of a job's log: the newest lines of all its processes, and those that follow.
//
// The number of lines in the document is bounded. A reader who scrolls up is not moved: lines wait until the reader goes to the end.

import { jobPath, Refused, SignedOut } from './api.js';
import { detail } from './detail.js';
import { h, show } from './dom.js';
import { counted } from './format.js';
import { cluster, link } from './live.js';
import { badge, isOver } from './states.js';
import { events } from './stream.js';
import { tabs } from './tabs.js';

const MOST_LINES = 1000;
const FIRST_LINES = 500;
const AGAIN_MS = 2000;
const FLUSH_MS = 100;
// What colours a terminal means nothing here.
const COLOURS = /\x1b\[[0-9;]*m/g;

/** The log that is shown. `state` is `asking`, `follows`, `lost`, `refused` or `ended`. */
const log = { key: null, name: null, attempt: null, state: 'asking', why: '', waiting: [], dropped: 0, shown: 0, unanswered: new Map(), endedAt: null };
let connection = null;
let lastId = null;
let again = 0;
let flushing = null;
let follows = true;
let listener = { changed: () => {}, signedOut: () => {} };

export const title = ({ name }) => `Log of ${name}`;

/** Begins to follow the log of an address; to be called when the page is drawn. `of` is null on other pages. */
export function look(of, handlers) {
  // The page was left, and what was in it is gone.
  if (log.shown > 0 && lines()?.childElementCount === 0) log.key = null;
  const key = of ? `${of.name} ${of.attempt ?? ''}` : null;
  if (log.key !== key) {
    stop();
    clear();
    Object.assign(log, { key, name: of?.name ?? null, attempt: of?.attempt ?? null, state: 'asking', why: '', endedAt: null });
  }
  listener = handlers;
  if (!of) return;
  // A page that nobody sees follows nothing.
  if (document.hidden) return stop();
  const job = cluster.jobs.get(of.name);
  const newer = log.state === 'ended' && job && log.attempt === null && !isOver(job) && job.attempt?.number !== log.endedAt;
  const may = log.state === 'asking' || log.state === 'follows' || log.state === 'lost' || newer;
  if (!connection && may && link.state === 'live' && cluster.jobs.has(of.name) && Date.now() >= again) follow();
}

function stop() {
  connection?.abort();
  connection = null;
}

function clear() {
  lastId = null;
  again = 0;
  follows = true;
  Object.assign(log, { waiting: [], dropped: 0, shown: 0 });
  log.unanswered.clear();
  show(lines() ?? document.createElement('div'));
}

const lines = () => document.getElementById('log');

async function follow() {
  const mine = new AbortController();
  connection = mine;
  again = Date.now() + AGAIN_MS;
  const query = new URLSearchParams({ follow: 'true', tail: String(FIRST_LINES) });
  if (log.attempt !== null) query.set('attempt', log.attempt);
  if (lastId !== null) query.set('after', lastId);
  let [state, why] = ['lost', 'the node has closed the connection'];
  try {
    for await (const { event, id, data } of events(jobPath(log.name, `/logs?${query}`), { signal: mine.signal })) {
      if (connection !== mine) return;
      if (log.state !== 'follows') Object.assign(log, { state: 'follows', why: '' });
      if (id !== null) lastId = id;
      const said = JSON.parse(data);
      if (event === 'line') take(said);
      else if (event === 'unanswered') log.unanswered.set(said.node, said.why);
      else if (event === 'end') [state, why] = ['ended', said.state ? `${said.state}${said.why ? `: ${said.why}` : ''}` : said.why];
    }
  } catch (error) {
    if (connection !== mine) return;
    if (error instanceof SignedOut) return listener.signedOut();
    // Asking again would not help where a request is wrong, as where nothing is kept of an attempt.
    if (error instanceof Refused && error.status >= 400 && error.status < 500 && error.status !== 429) state = 'refused';
    why = error instanceof TypeError ? 'the node does not answer' : error.message;
  }
  if (connection !== mine) return;
  connection = null;
  Object.assign(log, { state, why, endedAt: cluster.jobs.get(log.name)?.attempt?.number ?? null });
  listener.changed();
}

function take(line) {
  log.waiting.push(line);
  if (log.waiting.length > MOST_LINES) {
    log.waiting.shift();
    log.dropped += 1;
  }
  flushing ??= setTimeout(flush, FLUSH_MS);
}

/** Puts the lines that wait into the document, if the reader is at the end. */
function flush() {
  flushing = null;
  const place = lines();
  if (place && follows && log.waiting.length > 0) {
    const fresh = log.waiting.splice(0);
    if (log.dropped > 0) fresh.unshift({ note: `${counted(log.dropped, 'line')} left out` });
    log.dropped = 0;
    place.append(...fresh.map(drawn));
    while (place.childElementCount > MOST_LINES) place.firstElementChild.remove();
    log.shown = place.childElementCount;
    place.scrollTop = place.scrollHeight;
  }
  listener.changed();
}

function isAtEnd(place) {
  return place.scrollTop + place.clientHeight >= place.scrollHeight - 12;
}

/** The reader has scrolled. */
export function scrolled() {
  const place = lines();
  if (!place) return;
  const before = follows;
  follows = isAtEnd(place);
  if (follows && !before) flush();
  else if (follows !== before) listener.changed();
}

/** Goes to the newest line, and follows from there. */
export function toEnd() {
  follows = true;
  flush();
  const place = lines();
  if (place) place.scrollTop = place.scrollHeight;
  listener.changed();
}

const LEVEL = /\b(ERROR|WARN)\b/;

function drawn({ note, time_ms: ms, node, attempt, process, stream, text }) {
  if (note) return h('p', { class: 'entry note' }, note);
  const plain = text.replace(COLOURS, '');
  const level = LEVEL.exec(plain.slice(0, 80))?.[1]?.toLowerCase();
  const at = new Date(ms);
  return h('p', { class: ['entry', level, stream === 'node' && 'said-by-node'].filter(Boolean).join(' ') },
    h('time', { datetime: at.toISOString(), title: at.toISOString() }, `${at.toLocaleTimeString('en-GB')}.${String(ms % 1000).padStart(3, '0')}`),
    ' ', h('span', { class: 'from', title: `process ${process} of attempt ${attempt}, on ${node}` }, `${attempt}/${process}`),
    ' ', h('span', { class: 'said' }, plain));
}

const SAID = { asking: ['warn', 'asking'], follows: ['good', 'follows'], lost: ['bad', 'lost'], refused: ['bad', 'refused'], ended: ['idle', 'ended'] };

export function draw({ name, attempt }) {
  const job = cluster.jobs.get(name);
  if (!job) return null;
  const numbers = new Set(detail.attempts.map((of) => of.number));
  if (job.attempt) numbers.add(job.attempt.number);
  if (attempt !== null) numbers.add(Number(attempt));
  const generation = (number) => detail.attempts.find((of) => of.number === number)?.generation ?? null;
  const option = (number) => h('option', { value: number, 'data-key': `attempt ${number}`, selected: String(number) === attempt },
    `Attempt ${number}${generation(number) === null ? '' : `, generation ${generation(number)}`}`);
  const [tone, word] = follows || log.state !== 'follows' ? SAID[log.state] : ['warn', 'paused'];
  const waiting = log.waiting.length + log.dropped;
  const nothing = log.shown === 0 && waiting === 0 && log.state !== 'asking';
  return [
    h('div', { class: 'head', 'data-key': 'head' }, h('h1', { tabindex: '-1' }, name)),
    tabs(name, 'logs'),
    h('section', { 'aria-labelledby': 'log-heading', class: 'log-page', 'data-key': 'log-page' },
      h('h2', { id: 'log-heading', class: 'unseen' }, 'Log'),
      h('div', { class: 'toolbar', 'data-key': 'toolbar' },
        h('label', { for: 'attempt' }, 'Attempt'),
        h('select', { id: 'attempt', 'data-choose': 'attempt', 'data-job': name },
          h('option', { value: '', 'data-key': 'all', selected: attempt === null }, 'All'), [...numbers].sort((a, b) => b - a).map(option)),
        h('span', { id: 'log-state', 'data-key': 'state' }, badge(tone, word)),
        log.why && h('span', { class: 'why', 'data-key': 'why' }, log.why),
        h('button', { type: 'button', 'data-key': 'to-end', 'data-to-end': '', disabled: follows }, waiting > 0 && !follows ? `${counted(waiting, 'new line')}: go to the end` : 'Go to the end')),
      log.unanswered.size > 0 && h('p', { class: 'error', 'data-key': 'unanswered' },
        `Lines may be missing: ${[...log.unanswered].map(([node, why]) => `${node} does not answer (${why})`).join(', ')}.`),
      nothing && h('p', { class: 'quiet', 'data-key': 'nothing' }, 'No line is kept.'),
      h('div', { id: 'log', class: 'card', 'data-key': 'log', 'data-own': '', role: 'log', 'aria-live': 'off', 'aria-label': `Log of ${name}`, tabindex: '0' })),
  ];
}
