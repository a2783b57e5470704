// What only the page of one job shows: the figures of its parts, its drawing, its attempts and its savepoints.
//
// It is asked for when the page is drawn, which happens each second while the connection lives. So nothing is asked for
// by a page that nobody sees, or that has lost its node.

import { get, jobPath, SignedOut } from './api.js';
import { link, noteCheckpoint } from './live.js';
import { isOver } from './states.js';

const FIGURES_MS = 2000;
const ATTEMPTS_MS = 10_000;
const SAVEPOINTS_MS = 60_000;
const LAYOUT_MS = 10_000;

const NOTHING = { job: null, problem: '', layout: null, layoutOf: null, layoutProblem: '', attempts: [], savepoints: null };
/** What is known of the job `name`; `name` is null where no job is shown. */
export const detail = { name: null, ...NOTHING };

/** What a person has chosen: an operator, and whether the drawing is made as small as its place. */
export const chosen = { node: null, whole: false };

const NEVER = { figures: 0, attempts: 0, savepoints: 0, layout: 0 };
let asked = { ...NEVER };
let asking = false;

/** Sees to it that what is shown of a job is new. `changed` is called after each answer. */
export function look(name, { changed, signedOut }) {
  if (detail.name !== name) {
    Object.assign(detail, NOTHING, { name });
    chosen.node = null;
    asked = { ...NEVER };
  }
  if (!name || asking || document.hidden || link.state !== 'live' || Date.now() - asked.figures < FIGURES_MS) return;
  asking = true;
  refresh(name)
    .catch((error) => {
      if (error instanceof SignedOut) signedOut();
      // The connection says what a node that does not answer means.
      else if (detail.name === name && !(error instanceof TypeError)) detail.problem = error.message;
    })
    .finally(() => {
      asking = false;
      changed();
    });
}

/** Forgets which savepoints there are: one was taken or deleted. */
export function savepointsChanged() {
  asked.savepoints = 0;
  asked.figures = 0;
}

export function choose(node) {
  chosen.node = chosen.node === node ? null : node;
}

async function refresh(name) {
  const due = (what, every) => Date.now() - asked[what] >= every;
  asked.figures = Date.now();
  const job = await get(jobPath(name));
  if (detail.name !== name) return;
  Object.assign(detail, { job, problem: '' });
  if (job.figures?.checkpoint) noteCheckpoint(name, job.figures.checkpoint);
  // Before its first attempt perhaps no node has checked the program.
  const version = job.attempt?.version ?? null;
  if (version !== null && version !== detail.layoutOf && due('layout', LAYOUT_MS)) {
    asked.layout = Date.now();
    await draw(name, version);
  }
  if (due('attempts', ATTEMPTS_MS) || isBehind(job)) {
    asked.attempts = Date.now();
    const attempts = await get(jobPath(name, '/attempts'));
    if (detail.name === name) Object.assign(detail, { attempts });
  }
  if (due('savepoints', SAVEPOINTS_MS)) {
    asked.savepoints = Date.now();
    const savepoints = await get(jobPath(name, '/savepoints'));
    if (detail.name === name) Object.assign(detail, { savepoints });
  }
}

/** Whether something has happened to the newest attempt that is not among the attempts yet. */
function isBehind(job) {
  const [newest] = detail.attempts;
  if (!job.attempt) return false;
  const { number, generation } = job.attempt;
  // Which generation an attempt was is forgotten with its processes.
  const isNew = generation !== null && generation !== newest?.generation;
  return number !== newest?.number || isNew || (isOver(job) && newest.ended === null);
}

async function draw(name, version) {
  try {
    const [graph, layout] = await Promise.all([get(jobPath(name, '/graph')), get(jobPath(name, '/layout'))]);
    if (detail.name !== name) return;
    const about = new Map(graph.nodes.map((node) => [node.id, node]));
    layout.nodes = layout.nodes.map((node) => ({ ...node, ...about.get(node.id) }));
    Object.assign(detail, { layout, layoutOf: version, layoutProblem: '' });
  } catch (error) {
    if (error instanceof SignedOut || error instanceof TypeError) throw error;
    if (detail.name === name) Object.assign(detail, { layout: null, layoutOf: null, layoutProblem: error.message });
  }
}
