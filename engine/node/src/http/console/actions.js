// What operators do with a job, each after a confirmation.

import { ask, jobPath, SignedOut } from './api.js';
import { h, show } from './dom.js';
import { cluster } from './live.js';
import { isOver } from './states.js';

const ACTIONS = {
  start: {
    label: 'Start',
    about: 'It goes on from its newest checkpoint.',
    when: isOver,
  },
  stop: {
    label: 'Stop',
    about: 'It commits what it has read, takes a checkpoint and ends. Starting it later goes on from there.',
    when: (job) => !isOver(job),
    grave: true,
  },
  restart: {
    label: 'Restart',
    about: 'It takes a checkpoint and ends, and a next attempt goes on from there.',
    when: (job) => !isOver(job),
  },
  rescale: {
    label: 'Rescale',
    about: 'It takes a checkpoint and ends, and a next attempt with the new number of workers goes on from there, as soon as there are slots for all of them.',
    when: () => true,
  },
};

/** The buttons of what can be done with a job in its state. */
export function buttons(job, disabled) {
  const possible = Object.entries(ACTIONS).filter(([, { when }]) => when(job));
  return possible.map(([action, { label }]) =>
    h('button', { type: 'button', 'data-key': action, 'data-action': action, 'data-job': job.job, disabled }, label));
}

/** Asks for the confirmation of an action, and carries it out. `say` is told what has become of it. */
export function confirm(action, name, { say, signedOut }) {
  const dialog = document.getElementById('dialog');
  const { label, about, grave } = ACTIONS[action];
  const workers = cluster.jobs.get(name)?.workers_wanted ?? 1;
  show(dialog);
  show(dialog,
    h('form', { method: 'dialog' },
      h('h2', { id: 'dialog-title' }, `${label} ${name}?`),
      h('p', null, about),
      action === 'rescale' && h('div', { class: 'field' },
        h('label', { for: 'workers' }, 'Workers'),
        h('input', { id: 'workers', name: 'workers', type: 'number', min: 1, max: 1024, step: 1, required: true, value: workers })),
      h('p', { class: 'error', role: 'alert' }),
      h('div', { class: 'actions' },
        h('button', { type: 'button', 'data-close': '' }, 'Cancel'),
        h('button', { type: 'submit', class: grave ? 'grave' : 'primary' }, label))));
  const form = dialog.querySelector('form');
  const [cancel, submit] = [form.querySelector('[data-close]'), form.querySelector('[type=submit]')];
  const error = form.querySelector('.error');
  cancel.addEventListener('click', () => dialog.close());
  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    submit.disabled = true;
    error.textContent = '';
    try {
      await send(action, name, form.elements.workers?.valueAsNumber);
      dialog.close();
      say(`${label} of ${name} is under way`);
    } catch (problem) {
      if (problem instanceof SignedOut) {
        dialog.close();
        signedOut();
        return;
      }
      error.textContent = problem instanceof TypeError ? 'The node does not answer.' : problem.message;
    } finally {
      submit.disabled = false;
    }
  });
  dialog.showModal();
  (form.elements.workers ?? cancel).focus();
  form.elements.workers?.select();
}

function send(action, name, workers) {
  return action === 'rescale'
    ? ask(jobPath(name), { method: 'PATCH', body: { workers } })
    : ask(jobPath(name, `/${action}`), { method: 'POST' });
}
