// The console: which page is shown, and what stands around it.

import { confirm } from './actions.js';
import { choose, chosen, look as lookAtJob } from './detail.js';
import { h, show } from './dom.js';
import { clock, duration } from './format.js';
import { moveTo, settle } from './graph.js';
import * as job from './job.js';
import * as logs from './logs.js';
import { cluster, follow, forget, link, retry } from './live.js';
import * as nodes from './nodes.js';
import * as overview from './overview.js';
import { recognise, session, signIn, signOut } from './session.js';

const place = (id) => document.getElementById(id);
let signingIn = false;
let states = new Map();

/** The page of the address, and what it is about. */
function page() {
  const [, first, second, third] = location.pathname.split('/');
  if (first === 'jobs' && second && third === 'logs') {
    return { module: logs, section: 'jobs', name: decoded(second), attempt: new URLSearchParams(location.search).get('attempt') };
  }
  if (first === 'jobs' && second) return { module: job, section: 'jobs', name: decoded(second) };
  if (first === 'nodes') return { module: nodes, section: 'nodes' };
  return { module: overview, section: 'jobs' };
}

function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

function draw() {
  if (signingIn) return;
  const of = page();
  drawLink();
  drawNotice();
  drawUser();
  for (const item of document.querySelectorAll('nav [data-page]')) {
    if (item.dataset.page === of.section) item.setAttribute('aria-current', 'page');
    else item.removeAttribute('aria-current');
  }
  document.title = `${of.module.title(of)} · Fluvial`;
  document.body.dataset.link = cluster.problem ? 'old' : link.state;
  const handlers = { changed: draw, signedOut: askForToken };
  lookAtJob(cluster.jobs.has(of.name) ? of.name : null, handlers);
  if (cluster.known) show(place('main'), of.module.draw(of) ?? job.missing(of.name));
  else show(place('main'), h('p', { class: 'empty', 'data-key': 'waiting' }, link.state === 'lost' ? 'Nothing is known yet.' : 'Asking the node.'));
  logs.look(of.module === logs ? of : null, handlers);
  settle();
}

function drawLink() {
  const text = { connecting: 'Connecting', live: 'Live', lost: 'Connection lost', closed: 'Paused' }[link.state];
  show(place('link'), h('span', { class: `dot ${link.state}`, 'aria-hidden': 'true' }), text);
}

/** What keeps the page from being what the cluster is. The part that counts seconds is not read out. */
function drawNotice() {
  if (link.state === 'lost') {
    const others = cluster.nodes.filter((node) => node.api && node.api !== location.host && node.state !== 'silent');
    const again = link.again ? Math.max(0, link.again - Date.now()) : 0;
    show(place('notice'),
      h('section', { class: 'notice bad', 'aria-label': 'Connection' },
        h('p', null, h('strong', null, `Connection lost since ${clock(link.since)}`), `: ${link.why}. `,
          cluster.at && `What is shown is as of ${clock(cluster.at)}.`),
        others.length > 0 && h('p', null, 'The other nodes serve the same console: ', others.map((node, at) => [at > 0 && ', ',
          h('a', { href: `${location.protocol}//${node.api}${location.pathname}${location.search}`, 'data-outside': '' }, node.api)])),
        h('p', { class: 'again' }, h('button', { type: 'button', 'data-retry': '' }, 'Try now'),
          h('span', { class: 'quiet' }, again > 999 ? `next attempt in ${duration(Math.ceil(again / 1000) * 1000)}` : 'trying'))));
  } else if (cluster.problem) {
    show(place('notice'), h('section', { class: 'notice warn', 'aria-label': 'Cluster' },
      h('p', null, h('strong', null, 'What is shown may be old'), `: ${cluster.problem}.`)));
  } else {
    show(place('notice'));
  }
}

function drawUser() {
  const { user, open } = session;
  if (!user || open) show(place('user'));
  else show(place('user'), h('span', null, user.name, ' ', h('span', { class: 'quiet second' }, user.role)), h('button', { type: 'button', 'data-sign-out': '' }, 'Sign out'));
}

function say(text) {
  place('polite').textContent = text;
}

/** Reads out what has changed: the connection, and the states of jobs. */
let saidLink = null;
function tell() {
  if (link.state !== saidLink) {
    if (link.state === 'lost') place('urgent').textContent = `Connection lost since ${clock(link.since)}: ${link.why}`;
    else if (saidLink === 'lost' && link.state === 'live') {
      place('urgent').textContent = '';
      say('The connection is back');
    }
    saidLink = link.state;
  }
  const now = new Map([...cluster.jobs].map(([name, of]) => [name, of.state]));
  const changes = [...now].filter(([name, state]) => states.has(name) && states.get(name) !== state);
  if (changes.length > 0) say(changes.map(([name, state]) => `${name} is ${state}`).join(', '));
  states = now;
}

function go(path, focus) {
  if (path !== location.pathname + location.search) history.pushState(null, '', path);
  draw();
  if (focus) return focus.focus();
  scrollTo(0, 0);
  place('main').querySelector('h1')?.focus();
}

async function askForToken() {
  if (signingIn) return;
  signingIn = true;
  session.user = null;
  forget();
  place('dialog').close();
  ['notice', 'link', 'user'].forEach((id) => show(place(id)));
  document.title = 'Sign in · Fluvial';
  document.body.dataset.link = 'connecting';
  await signIn(place('main'));
  signingIn = false;
  draw();
  place('main').querySelector('h1')?.focus();
  retry();
}

document.addEventListener('click', async (event) => {
  const button = event.target.closest('button');
  const anchor = event.target.closest('a');
  const node = event.target.closest('[data-node]');
  if (button?.dataset.action) {
    confirm(button.dataset.action, button.dataset.job, button.dataset.savepoint, { say, signedOut: askForToken });
  } else if (button && 'retry' in button.dataset) {
    retry();
  } else if (node) {
    choose(node.dataset.node);
    draw();
  } else if (button?.dataset.show) {
    chosen.node = button.dataset.show;
    draw();
    moveTo(button.dataset.show);
  } else if (button && 'whole' in button.dataset) {
    chosen.whole = !chosen.whole;
    draw();
  } else if (button && 'toEnd' in button.dataset) {
    logs.toEnd();
  } else if (button && 'signOut' in button.dataset) {
    await signOut().catch(() => {});
    askForToken();
  } else if (anchor?.classList.contains('skip')) {
    event.preventDefault();
    place('main').focus();
  } else if (anchor && !('outside' in anchor.dataset)) {
    if (event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    const { pathname, search } = new URL(anchor.href);
    go(pathname + search);
  }
});
addEventListener('popstate', draw);
// A part of a drawing is a button for the keyboard, too.
document.addEventListener('keydown', (event) => {
  const node = event.target.closest?.('g[data-node]');
  if (!node || (event.key !== 'Enter' && event.key !== ' ')) return;
  event.preventDefault();
  choose(node.dataset.node);
  draw();
});
document.addEventListener('change', ({ target }) => {
  if (target.dataset.choose !== 'attempt') return;
  go(`/jobs/${encodeURIComponent(target.dataset.job)}/logs${target.value ? `?attempt=${target.value}` : ''}`, target);
});
// Scrolling does not bubble.
document.addEventListener('scroll', ({ target }) => target.id === 'log' && logs.scrolled(), { capture: true, passive: true });
document.addEventListener('visibilitychange', draw);

/** Asks who the user is until the node answers; the stream says that it does not. */
async function begin() {
  let signedIn = true;
  try {
    signedIn = await recognise();
  } catch {
    // A node that does not answer is told by the connection below.
    setTimeout(begin, 2000);
  }
  if (!signedIn) await askForToken();
  draw();
}

await begin();
follow({ changed: () => { tell(); draw(); }, signedOut: askForToken });
