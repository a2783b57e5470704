// The cluster as the node sends it, and the connection over which it does.

import { get, SignedOut } from './api.js';
import { progressOf } from './states.js';
import { events } from './stream.js';

/** What is known of the cluster. It stays when the connection is lost, and is old then. */
export const cluster = { known: false, jobs: new Map(), nodes: [], problem: null, at: null };
/** The connection. `state` is `connecting`, `live`, `lost`, or `closed` while nobody looks. */
export const link = { state: 'connecting', since: new Date(), why: '', again: null };
/** The samples of the last hour by job, oldest first: `{at, lag, read, committed}`. */
export const history = new Map();
/** The checkpoints of the last hour by job, each `{tick, bytes, duration_ms}`, oldest first. */
export const checkpoints = new Map();

// A node says something at least each 3 s.
const SILENT_MS = 10_000;
const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 10_000;
// A page that nobody sees holds none of the few connections that a browser opens to one address.
const HIDDEN_MS = 5000;
const HOUR_MS = 3_600_000;
const SAMPLE_MS = 5000;
const MOST_CHECKPOINTS = 240;

let listener = () => {};
let attempt = null;
let timer = null;
let pause = FIRST_PAUSE_MS;
let heardAt = 0;
let hiddenTimer = null;

/** Keeps the connection from now on. `changed` is called after each change; `signedOut` when the node asks for a session. */
export function follow({ changed, signedOut }) {
  listener = { changed, signedOut };
  setInterval(watch, 1000);
  addEventListener('online', retry);
  document.addEventListener('visibilitychange', () => {
    clearTimeout(hiddenTimer);
    if (document.hidden) {
      hiddenTimer = setTimeout(close, HIDDEN_MS);
    } else if (link.state !== 'live') {
      retry();
    }
  });
  retry();
}

/** Tries at once. */
export function retry() {
  pause = FIRST_PAUSE_MS;
  connect();
}

/** Ends the connection and forgets the cluster, until `retry` is called: the user is not signed in. */
export function forget() {
  stop();
  cluster.jobs.clear();
  history.clear();
  checkpoints.clear();
  Object.assign(cluster, { known: false, nodes: [], problem: null, at: null });
  Object.assign(link, { state: 'connecting', since: new Date(), why: '', again: null });
}

function close() {
  stop();
  set('closed', '');
}

function stop() {
  clearTimeout(timer);
  attempt?.abort();
  attempt = null;
}

function set(state, why) {
  // A connection that is tried again in vain has been lost since the first time.
  if (link.state !== state) link.since = new Date();
  Object.assign(link, { state, why });
  listener.changed();
}

async function connect() {
  stop();
  link.again = null;
  const mine = new AbortController();
  attempt = mine;
  heardAt = Date.now();
  let why = 'the node has closed the connection';
  try {
    await read(mine.signal);
  } catch (error) {
    if (error instanceof SignedOut) {
      if (attempt === mine) {
        stop();
        listener.signedOut();
      }
      return;
    }
    why = error instanceof TypeError ? 'the node does not answer' : error.message;
  }
  if (attempt !== mine) return;
  lose(why);
}

function lose(why) {
  stop();
  // Pages of many readers that lost the same node do not all come back in the same moment.
  const wait = pause * (0.8 + 0.4 * Math.random());
  pause = Math.min(pause * 2, LONGEST_PAUSE_MS);
  link.again = new Date(Date.now() + wait);
  timer = setTimeout(connect, wait);
  set('lost', why);
}

function watch() {
  if (attempt && Date.now() - heardAt > SILENT_MS) lose('the node has said nothing for 10 s');
  else if (link.state === 'lost') listener.changed();
}

async function read(signal) {
  let first = true;
  for await (const { data } of events('/v1/events', { signal, heard: () => { heardAt = Date.now(); } })) {
    if (first) await reset();
    first = false;
    take(JSON.parse(data));
  }
}

/** The first event of a stream holds everything. */
async function reset() {
  const { jobs } = await get('/v1/history');
  const now = Date.now();
  cluster.jobs.clear();
  history.clear();
  for (const [job, samples] of Object.entries(jobs)) {
    history.set(job, samples.map(([age, lag, read, committed]) => ({ at: now - age, lag, read, committed })));
    for (const [, , , , checkpoint] of samples) {
      if (checkpoint) noteCheckpoint(job, { tick: checkpoint[0], bytes: checkpoint[1], duration_ms: checkpoint[2] });
    }
  }
}

/** Takes a checkpoint that a job has completed. */
export function noteCheckpoint(job, { tick, bytes, duration_ms }) {
  const known = checkpoints.get(job) ?? [];
  checkpoints.set(job, known);
  if (known.some((checkpoint) => checkpoint.tick === tick)) return;
  known.push({ tick, bytes, duration_ms });
  known.sort((a, b) => a.tick - b.tick);
  if (known.length > MOST_CHECKPOINTS) known.shift();
}

function take({ jobs, gone, nodes, problem }) {
  for (const [name, job] of Object.entries(jobs)) cluster.jobs.set(name, job);
  for (const name of gone) {
    cluster.jobs.delete(name);
    history.delete(name);
    checkpoints.delete(name);
  }
  Object.assign(cluster, { known: true, nodes, problem, at: new Date() });
  if (!problem) cluster.jobs.forEach(sample);
  pause = FIRST_PAUSE_MS;
  set('live', '');
}

function sample(job) {
  const samples = history.get(job.job) ?? [];
  history.set(job.job, samples);
  const at = Date.now();
  if (samples.length > 0 && at - samples.at(-1).at < SAMPLE_MS) return;
  const { lag_records = null, records_in_per_s = null, records_out_per_s = null } = progressOf(job) ?? {};
  samples.push({ at, lag: lag_records, read: records_in_per_s, committed: records_out_per_s });
  while (samples[0].at < at - HOUR_MS) samples.shift();
}
