// What operators do with a job, each after a confirmation.

import { ask, jobPath, SignedOut } from './api.js';
import { savepointsChanged } from './detail.js';
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
  savepoint: {
    label: 'Take savepoint',
    about: 'The newest checkpoint is kept under a name until it is deleted. The job goes on undisturbed.',
    when: () => true,
    done: 'is taken',
  },
  'delete-savepoint': {
    label: 'Delete',
    about: 'The job cannot go back to this savepoint any more. State files that nothing else refers to are deleted.',
    when: () => false,
    grave: true,
    done: 'is deleted',
  },
};

/** The buttons of what can be done with a job in its state. */
export function buttons(job, disabled) {
  const possible = Object.entries(ACTIONS).filter(([, { when }]) => when(job));
  return possible.map(([action, { label }]) =>
    h('button', { type: 'button', 'data-key': action, 'data-action': action, 'data-job': job.job, disabled }, label));
}

/** Asks for the confirmation of an action, and carries it out. `say` is told what has become of it. */
export function confirm(action, name, savepoint, { say, signedOut }) {
  const dialog = document.getElementById('dialog');
  const { label, about, grave, done } = ACTIONS[action];
  const workers = cluster.jobs.get(name)?.workers_wanted ?? 1;
  show(dialog);
  show(dialog,
    h('form', { method: 'dialog' },
      h('h2', { id: 'dialog-title' }, savepoint ? `${label} the savepoint ${savepoint} of ${name}?` : action === 'savepoint' ? `Take a savepoint of ${name}?` : `${label} ${name}?`),
      h('p', null, about),
      action === 'rescale' && h('div', { class: 'field' },
        h('label', { for: 'workers' }, 'Workers'),
        h('input', { id: 'workers', name: 'workers', type: 'number', min: 1, max: 1024, step: 1, required: true, value: workers })),
      action === 'savepoint' && h('div', { class: 'field' },
        h('label', { for: 'savepoint' }, 'Name'),
        h('input', { id: 'savepoint', name: 'savepoint', required: true, maxlength: 100, pattern: '[A-Za-z0-9_\\-][A-Za-z0-9._\\-]*', title: 'letters, digits, -, _ and .', autocomplete: 'off', spellcheck: 'false', value: suggested() })),
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
      const taken = form.elements.savepoint?.value;
      await send(action, name, { workers: form.elements.workers?.valueAsNumber, savepoint: savepoint ?? taken });
      dialog.close();
      if (done) savepointsChanged();
      say(done ? `The savepoint ${savepoint ?? taken} ${done}` : `${label} of ${name} is under way`);
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
  const field = form.elements.workers ?? form.elements.savepoint;
  (field ?? cancel).focus();
  field?.select();
}

/** A name that no other savepoint has, unless two persons take one in the same second. */
function suggested() {
  return `manual-${new Date().toISOString().slice(0, 19).replace(/[-:]/g, '').replace('T', '-')}`;
}

function send(action, name, { workers, savepoint }) {
  switch (action) {
    case 'rescale':
      return ask(jobPath(name), { method: 'PATCH', body: { workers } });
    case 'savepoint':
      return ask(jobPath(name, '/savepoints'), { method: 'POST', body: { name: savepoint } });
    case 'delete-savepoint':
      return ask(jobPath(name, `/savepoints/${encodeURIComponent(savepoint)}`), { method: 'DELETE' });
    default:
      return ask(jobPath(name, `/${action}`), { method: 'POST' });
  }
}
