// The dataflow of a job: a drawing whose nodes can be chosen, and the same figures as a table.

import { busiest, finding, isUneven, LIMITS, peakOf, peakShare, toneOfShare } from './busy.js';
import { chosen, detail } from './detail.js';
import { h } from './dom.js';
import { bytes, count, counted, duration, rate, share, UNKNOWN } from './format.js';
import { badge } from './states.js';
import { table } from './table.js';

const MOST_WORKERS = 64;
const MOST_NAME = 24;
const CORNER = 6;
// A drawing that is not wider than this has the table beside it.
const NARROW = 640;
const MARGIN = 14;

/** The section of a job's page. */
export function dataflow() {
  const { job, layout, layoutProblem } = detail;
  const content = layout
    ? [said(job), h('div', { class: layout.width <= NARROW ? 'flow narrow' : 'flow', 'data-key': 'flow' },
      drawing(job, layout), h('div', { class: 'beside' }, choice(job, layout), operators(job, layout)))]
    : [h('p', { class: 'empty', 'data-key': 'none' }, layoutProblem || (job && !job.attempt ? 'The dataflow is known when the job has begun for the first time.' : 'Asking the node.'))];
  return h('section', { 'aria-labelledby': 'dataflow', 'data-key': 'dataflow' },
    h('div', { class: 'head', 'data-key': 'head' }, h('h2', { id: 'dataflow' }, 'Dataflow'),
      layout && layout.width > NARROW && h('button', { type: 'button', 'data-whole': '', 'aria-pressed': String(chosen.whole) }, 'Whole graph')),
    ...content);
}

function said(job) {
  const nameOf = (id) => nodeOf(id)?.name ?? id;
  // What is as it should be in a job that is not is of no use.
  const found = job && job.state === 'running' ? finding(job, nameOf) : null;
  const text = detail.problem || found?.text || (job ? `While the job is ${job.state}, the figures of its operators say little.` : 'Asking the node.');
  return h('p', { class: 'finding', 'data-key': 'finding' }, badge(found?.tone ?? 'idle', { good: 'well', warn: 'slow', bad: 'bottleneck' }[found?.tone] ?? 'no figures'), ' ', text,
    found?.node && [' ', h('button', { type: 'button', class: 'plain', 'data-show': found.node }, `Show ${nameOf(found.node)}`)]);
}

let settled = null;

/** Moves a drawing that is shown for the first time to where the job is slow. To be called after the page was drawn. */
export function settle() {
  const shown = detail.layout && document.querySelector('.drawing') ? `${detail.name} ${detail.layoutOf}` : null;
  if (shown === settled) return;
  settled = shown;
  if (shown) moveTo(busiest(detail.job?.figures)?.id ?? detail.layout.nodes[0]?.id);
}

/** Brings a node to the middle of the drawing. */
export function moveTo(id) {
  const [place, node] = [document.querySelector('.drawing'), nodeOf(id)];
  if (!place || !node || chosen.whole) return;
  place.scrollLeft = node.x + node.width / 2 + MARGIN - place.clientWidth / 2;
  place.scrollTop = node.y + node.height / 2 + MARGIN - place.clientHeight / 2;
}

function nodeOf(id) {
  return detail.layout?.nodes.find((node) => node.id === id);
}

/** The figures of a node, with those of its splits or output. */
function figuresOf(job, node) {
  const figures = job?.figures;
  const operator = figures?.operators.find((operator) => operator.id === node.id) ?? null;
  const splits = node.kind === 'source' ? (figures?.splits ?? []).filter((split) => split.source === node.name) : [];
  const output = node.kind === 'output' ? (figures?.outputs.find((output) => output.output === node.name) ?? null) : null;
  const known = splits.filter((split) => split.lag_records !== null);
  const lag = known.length === 0 ? null : known.reduce((sum, split) => sum + split.lag_records, 0);
  const lagMs = splits.reduce((most, split) => Math.max(most, split.lag_ms ?? 0), 0);
  return { operator, splits, output, lag, lagMs };
}

/** What a node does now, in lines of the drawing. */
function lines(node, { operator, output, lag, lagMs }) {
  if (!operator) return [];
  const flow = [];
  if (node.kind !== 'source') flow.push(`${rate(operator.records_in_per_s)}/s in`);
  if (node.kind !== 'output') flow.push(`${rate(operator.records_out_per_s)}/s out`);
  if (output) flow.push(`${rate(output.records_per_s)}/s committed`);
  const parts = [];
  if (node.kind === 'source') parts.push(lag === null ? 'lag not known' : `lag ${counted(lag, 'record')}${lagMs > 0 ? `, ${duration(lagMs)}` : ''}`);
  if (operator.rows !== null) parts.push(`${counted(operator.rows, 'row')}${operator.state_bytes === null ? '' : `, ${bytes(operator.state_bytes)}`}`);
  return [flow.join(', '), parts.join(', ')];
}

function drawing(job, layout) {
  const most = busiest(job?.figures);
  const edges = new Map((job?.figures?.edges ?? []).map((edge) => [`${edge.from} ${edge.to}`, edge]));
  const fastest = Math.max(1, ...[...edges.values()].map((edge) => edge.records_per_s));
  const { width, height } = layout;
  const size = [width + 2 * MARGIN, height + 2 * MARGIN];
  return h('div', { class: 'card drawing', 'data-key': 'drawing', tabindex: '0', role: 'group', 'aria-label': 'Drawing of the dataflow' },
    h('svg', { class: chosen.whole ? 'whole' : null, width: size[0], height: size[1], viewBox: `${-MARGIN} ${-MARGIN} ${size.join(' ')}` },
      h('defs', { 'data-key': 'defs' }, h('marker', { id: 'arrow', viewBox: '0 0 8 8', refX: 7, refY: 4, markerWidth: 8, markerHeight: 8, markerUnits: 'userSpaceOnUse', orient: 'auto' }, h('path', { d: 'M0 0L8 4L0 8Z' }))),
      layout.edges.map((edge) => drawnEdge(edge, edges.get(`${edge.from} ${edge.to}`), fastest)),
      layout.nodes.map((node) => drawnNode(node, figuresOf(job, node), most))));
}

/** A line with rounded corners. */
function path(points) {
  const toward = ([x, y], [a, b]) => {
    const length = Math.abs(a - x) + Math.abs(b - y);
    const part = Math.min(CORNER, length / 2) / (length || 1);
    return `${x + (a - x) * part} ${y + (b - y) * part}`;
  };
  const bends = points.slice(1, -1).map((point, at) => `L${toward(point, points[at])}Q${point.join(' ')} ${toward(point, points[at + 2])}`);
  return `M${points[0].join(' ')}${bends.join('')}L${points.at(-1).join(' ')}`;
}

function drawnEdge({ from, to, points }, figures, fastest) {
  const records = figures?.records_per_s ?? 0;
  const [x, y] = points.at(-1);
  return h('g', { class: records > 0 ? 'edge flows' : 'edge', 'data-key': `${from} ${to}`, 'data-edge': `${from} ${to}`, 'aria-hidden': 'true' },
    h('path', { d: path(points), 'stroke-width': (1.25 + 2.25 * Math.sqrt(records / fastest)).toFixed(2), 'marker-end': 'url(#arrow)' }),
    figures && h('text', { x: x + 6, y: y - 12 }, `${rate(records)}/s`));
}

function short(text, most) {
  return text.length > most ? `${text.slice(0, most - 1)}…` : text;
}

function drawnNode(node, figures, most) {
  const { operator } = figures;
  const { x, y, width, height } = node;
  const share_ = peakShare(operator);
  const [flow, state] = lines(node, figures);
  const hot = most?.id === node.id;
  const tone = toneOfShare(share_);
  const mark = hot ? (share_ >= LIMITS ? '▲ bottleneck' : '▲ busiest') : operator && isUneven(operator) ? '▲ uneven' : null;
  const bar = { x: 76, width: width - 76 - 12 };
  return h('g', {
    class: `node ${node.kind}${hot ? ` hot ${tone}` : ''}`, transform: `translate(${x} ${y})`, 'data-key': node.id, 'data-node': node.id,
    role: 'button', tabindex: '0', 'aria-pressed': String(chosen.node === node.id),
  },
    h('rect', { class: 'box', width, height, rx: node.kind === 'source' || node.kind === 'output' ? height / 4 : 6 }),
    // Its name for a screen reader is what stands in it, with blanks between.
    h('text', { class: 'name', x: 12, y: 20 }, short(node.name, mark ? 15 : MOST_NAME - node.kind.length)), ' ',
    h('text', { class: mark ? 'mark' : 'kind', x: width - 12, y: 20, 'text-anchor': 'end' }, mark ?? node.kind), ' ',
    h('text', { x: 12, y: 38 }, short(flow || (operator ? '' : 'no figures'), 34)), ' ',
    h('text', { x: 12, y: 53 }, short(state ?? '', 34)), ' ',
    operator && h('g', { class: `busy ${tone}` },
      h('text', { x: 12, y: 70 }, `busy ${share(share_)}`),
      h('rect', { class: 'all', x: bar.x, y: 63, width: bar.width, height: 6, rx: 3 }),
      h('rect', { class: 'used', x: bar.x, y: 63, width: (bar.width * Math.min(share_, 1)).toFixed(1), height: 6, rx: 3 })));
}

const CLASSES = { Operator: null, Busy: 'number', Skew: 'number', 'In / s': 'number', 'Out / s': 'number', Lag: 'number', State: 'number' };

/** The same as a table: what is busy first, and otherwise in the order of the dataflow, in which rows do not jump. */
function operators(job, layout) {
  const most = busiest(job?.figures);
  const rank = ({ id }) => {
    const of = job?.figures?.operators.find((operator) => operator.id === id);
    return id === most?.id ? 3 : ['good', 'warn', 'bad'].indexOf(toneOfShare(peakShare(of)));
  };
  const row = (node) => {
    const figures = figuresOf(job, node);
    const { operator, lag, lagMs } = figures;
    const of = peakShare(operator);
    const second = (text) => h('span', { class: 'quiet second' }, text);
    return {
      key: `operator ${node.id}`,
      class: most?.id === node.id ? `hot ${toneOfShare(of)}` : null,
      cells: {
        Operator: [h('button', { type: 'button', class: 'plain', 'data-node': node.id, 'aria-pressed': String(chosen.node === node.id) }, node.name),
          ' ', h('span', { class: 'quiet second' }, node.kind), most?.id === node.id && h('span', { class: 'tag hot' }, of >= LIMITS ? '▲ bottleneck' : '▲ busiest')],
        Busy: operator ? [share(of), operator.workers.length > 1 && second(`mean ${share(operator.busy_share)}`)] : UNKNOWN,
        Skew: operator?.busy_skew && operator.workers.length > 1 ? `${operator.busy_skew.toFixed(1)} ×` : UNKNOWN,
        'In / s': operator && node.kind !== 'source' ? rate(operator.records_in_per_s) : UNKNOWN,
        'Out / s': operator && node.kind !== 'output' ? rate(operator.records_out_per_s) : UNKNOWN,
        Lag: lag === null ? UNKNOWN : [count(lag), lagMs > 0 && second(duration(lagMs))],
        State: operator && operator.rows !== null ? [counted(operator.rows, 'row'), operator.state_bytes !== null && second(bytes(operator.state_bytes))] : UNKNOWN,
      },
    };
  };
  return h('div', { class: 'card scrolls operators', 'data-key': 'operators', tabindex: '0', role: 'group', 'aria-label': 'Operators' },
    table({ caption: 'The operators of this job', classes: CLASSES, rows: [...layout.nodes].sort((a, b) => rank(b) - rank(a)).map(row) }));
}

/** What is to be said of the operator that was chosen. */
function choice(job, layout) {
  const node = chosen.node && nodeOf(chosen.node);
  if (!node) return null;
  const figures = figuresOf(job, node);
  const { operator, splits } = figures;
  const edges = job?.figures?.edges ?? [];
  const side = (way, other) => {
    const of = layout.edges.filter((edge) => edge[way] === node.id);
    return of.length > 0 && h('div', { 'data-key': way }, h('dt', null, way === 'to' ? 'Receives from' : 'Sends to'), h('dd', null, of.map((edge, at) => {
      const figures = edges.find(({ from, to }) => from === edge.from && to === edge.to);
      return [at > 0 && ', ', nodeOf(edge[other])?.name ?? edge[other], figures && h('span', { class: 'quiet second' }, `${rate(figures.records_per_s)}/s`)];
    })));
  };
  const fact = (name, value) => value !== null && value !== undefined && value !== UNKNOWN && h('div', { 'data-key': name }, h('dt', null, name), h('dd', null, value));
  return h('section', { class: 'card choice', 'aria-labelledby': 'choice', 'data-key': 'choice' },
    h('div', { class: 'head' }, h('h3', { id: 'choice' }, `${node.kind} ${node.name}`), h('button', { type: 'button', 'data-node': node.id }, 'Close')),
    h('dl', { class: 'facts' },
      fact('About', node.about),
      fact('Records in', operator && node.kind !== 'source' && count(operator.records_in)),
      fact('Records out', operator && node.kind !== 'output' && count(operator.records_out)),
      fact('In checkpoints', operator && bytes(operator.stored_bytes)),
      side('to', 'from'), side('from', 'to')),
    operator && workers(operator),
    splits.length > 0 && h('div', { class: 'scrolls', 'data-key': 'splits', tabindex: '0', role: 'group', 'aria-label': 'Splits' }, table({
      caption: `The splits of ${node.name}`, classes: { Split: null, 'Committed offset': 'number', 'Lag, records': 'number', 'Lag, time': 'number' },
      rows: splits.map((split) => ({ key: `split ${split.split}`, cells: {
        Split: split.split, 'Committed offset': String(split.offset), 'Lag, records': count(split.lag_records), 'Lag, time': duration(split.lag_ms) } })),
    })));
}

function workers(operator) {
  const most = peakOf(operator);
  const shown = [...operator.workers].sort((a, b) => b.busy_share - a.busy_share || a.worker - b.worker).slice(0, MOST_WORKERS);
  const bar = (of) => h('svg', { class: `meter ${toneOfShare(of)}`, viewBox: '0 0 60 6', 'aria-hidden': 'true' },
    h('rect', { class: 'all', width: 60, height: 6, rx: 3 }), h('rect', { class: 'used', width: (60 * Math.min(of, 1)).toFixed(1), height: 6, rx: 3 }));
  const uneven = isUneven(operator);
  return h('div', { class: 'scrolls', 'data-key': 'workers', tabindex: '0', role: 'group', 'aria-label': 'Workers' }, table({
    caption: 'Its workers, the busiest first', classes: { Worker: null, Busy: 'number', 'In / s': 'number', Records: 'number', State: 'number' },
    rows: shown.map((worker) => ({ key: `worker ${worker.worker}`, cells: {
      Worker: [`Worker ${worker.worker}`, uneven && worker === most && h('span', { class: 'tag' }, `${operator.busy_skew.toFixed(1)} × the mean`)],
      Busy: [share(worker.busy_share), bar(worker.busy_share)],
      'In / s': rate(worker.records_in_per_s), Records: count(worker.records_in),
      State: worker.rows === undefined || worker.rows === null ? UNKNOWN : [counted(worker.rows, 'row'), worker.state_bytes > 0 && h('span', { class: 'quiet second' }, bytes(worker.state_bytes))] } })),
  }));
}
