// The pages of one job.

import { h } from './dom.js';

export function tabs(name, here) {
  const path = `/jobs/${encodeURIComponent(name)}`;
  const tab = (key, href, text) => h('a', { href, 'data-key': key, 'aria-current': here === key ? 'page' : null }, text);
  return h('nav', { class: 'tabs', 'aria-label': `Pages of ${name}`, 'data-key': 'tabs' }, tab('overview', path, 'Overview'), tab('logs', `${path}/logs`, 'Log'));
}
