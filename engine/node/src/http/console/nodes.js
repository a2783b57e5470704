// The page of all nodes.

import { h } from './dom.js';
import { counted, duration, UNKNOWN } from './format.js';
import { cluster } from './live.js';
import { badge, isOver, toneOfNode } from './states.js';

export const title = () => 'Nodes';

const COLUMNS = [['Node'], ['State'], ['Slots used', 'number'], ['Runs'], ['Version'], ['Heard'], ['Console']];

export function draw() {
  const nodes = [...cluster.nodes].sort((a, b) => (a.node < b.node ? -1 : 1));
  return [
    h('div', { class: 'head' }, h('h1', { tabindex: '-1' }, 'Nodes'), h('p', { class: 'quiet' }, summary(nodes))),
    h('div', { class: 'card' },
      h('table', { class: 'rows', role: 'table' },
        h('caption', { class: 'unseen' }, 'The nodes of this cluster'),
        h('thead', { role: 'rowgroup' }, h('tr', { role: 'row' }, COLUMNS.map(([name, kind]) =>
          h('th', { scope: 'col', role: 'columnheader', class: kind }, name)))),
        h('tbody', { role: 'rowgroup' }, nodes.map(row)))),
  ];
}

function summary(nodes) {
  const slots = nodes.reduce((sum, node) => sum + (node.slots ?? 0), 0);
  const used = nodes.reduce((sum, node) => sum + (node.slots_used ?? 0), 0);
  const ready = nodes.filter((node) => node.state === 'ready').length;
  return `${counted(nodes.length, 'node')}, ${ready} ready, ${Math.max(slots - used, 0)} of ${counted(slots, 'slot')} free`;
}

function row(node) {
  const cell = (name, kind, ...content) => h('td', { role: 'cell', class: kind, 'data-name': name }, ...content);
  const here = node.api === location.host;
  return h('tr', { role: 'row', 'data-key': node.node, class: toneOfNode(node) },
    h('th', { scope: 'row', role: 'rowheader' }, node.node, node.coordinates && h('span', { class: 'tag' }, 'coordinator'),
      Object.entries(node.labels ?? {}).map(([label, value]) => h('span', { class: 'tag' }, `${label}=${value}`))),
    cell('State', 'state', badge(toneOfNode(node), node.state), node.why && h('p', { class: 'why' }, node.why)),
    cell('Slots used', 'number', slots(node)),
    cell('Runs', 'list', runs(node)),
    cell('Version', null, node.version ?? UNKNOWN),
    cell('Heard', null, heard(node)),
    cell('Console', null, here ? 'this one' : node.api ? h('a', { href: `${location.protocol}//${node.api}/nodes`, 'data-outside': '' }, node.api) : UNKNOWN));
}

function slots({ slots, slots_used: used }) {
  const text = `${used ?? UNKNOWN} / ${slots ?? UNKNOWN}`;
  if (!slots || used === null || used === undefined) return text;
  const width = 60;
  return [text, h('svg', { class: 'meter', viewBox: `0 0 ${width} 6`, 'aria-hidden': 'true' },
    h('rect', { class: 'all', width, height: 6, rx: 3 }),
    used > 0 && h('rect', { class: 'used', width: Math.min(used / slots, 1) * width, height: 6, rx: 3 }))];
}

/** The jobs that have processes on a node. */
function runs({ node }) {
  const of = [...cluster.jobs.values()].filter((job) =>
    !isOver(job) && job.attempt?.processes.some((process) => process.node === node && process.state !== 'ended'));
  if (of.length === 0) return UNKNOWN;
  return of.map((job, at) => [at > 0 && ', ', h('a', { href: `/jobs/${encodeURIComponent(job.job)}` }, job.job)]);
}

function heard({ silent_ms: ms }) {
  if (ms === null || ms === undefined) return 'never';
  return ms < 5000 ? 'just now' : `${duration(ms)} ago`;
}
