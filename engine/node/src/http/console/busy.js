// Where a job spends its time.

import { counted, duration, share } from './format.js';

/** From this share of a worker's time on an operator limits the job. */
export const LIMITS = 0.8;
const NOTABLE = 0.5;
/** From this ratio of the busiest worker to the mean on, workers are unevenly busy. */
export const UNEVEN = 1.5;
const IDLE = 0.01;
const LATE_MS = 2000;

/** The worker that is busiest with an operator; a job is as slow as that one. */
export function peakOf(operator) {
  return operator.workers.reduce((most, worker) => (worker.busy_share > (most?.busy_share ?? -1) ? worker : most), null);
}

export function peakShare(operator) {
  return operator ? (peakOf(operator)?.busy_share ?? operator.busy_share) : 0;
}

export function toneOfShare(of) {
  return of >= LIMITS ? 'bad' : of >= NOTABLE ? 'warn' : 'good';
}

/** The operator that takes most of a worker's time; null if all are idle. */
export function busiest(figures) {
  const most = figures?.operators.reduce((a, b) => (peakShare(b) > peakShare(a) ? b : a), figures.operators[0]);
  return most && peakShare(most) >= IDLE ? most : null;
}

/** Whether the workers of an operator are unevenly busy, and busy enough for it to matter. */
export function isUneven(operator) {
  return operator.workers.length > 1 && peakShare(operator) >= 0.1 && (operator.busy_skew ?? 1) >= UNEVEN;
}

/** Where a running job is slow, and why, in one sentence with a tone. */
export function finding({ progress, figures }, nameOf) {
  if (!progress || !figures) return null;
  const most = busiest(figures);
  const late = (progress.lag_ms ?? 0) >= LATE_MS;
  const lag = late ? `The output is ${duration(progress.lag_ms)} behind, ${counted(progress.lag_records ?? 0, 'record')}. ` : '';
  if (most && peakShare(most) >= LIMITS) {
    const { worker, busy_share: of } = peakOf(most) ?? { worker: 0, busy_share: most.busy_share };
    const uneven = isUneven(most)
      ? `, ${most.busy_skew.toFixed(1)} times the mean of the workers: records are unevenly distributed, so more workers would not help`
      : ': more workers would help';
    return { tone: 'bad', node: most.id, text: `${lag}${nameOf(most.id)} is the bottleneck: worker ${worker} spends ${share(of)} of its time in it${uneven}.` };
  }
  const commits = figures.commits.count > 0 ? `, or the sink, whose commits take ${duration(figures.commits.sum_ms / figures.commits.count)}` : '';
  const busy = most
    ? `The busiest operator, ${nameOf(most.id)}, takes ${share(peakShare(most))} of the time of one worker.`
    : 'All operators are idle.';
  if (late) return { tone: 'warn', node: most?.id, text: `${lag}No operator limits the job, so the source may be slow${commits}. ${busy}` };
  return { tone: 'good', node: most?.id, text: `No operator limits the job. ${busy}` };
}
