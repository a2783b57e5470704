// A table that becomes a list of cards where the window is narrow.

import { h } from './dom.js';
import { UNKNOWN } from './format.js';

/**
 * `classes` has the columns in their order, each with the class of its cells; the first one heads the rows. A row has a `key`, a
 * `class`, and `cells` by column, each a text or a list of what is in it.
 */
export function table({ caption, classes, rows }) {
  const columns = Object.entries(classes);
  return h('table', { class: 'rows', role: 'table' },
    h('caption', { class: 'unseen' }, caption),
    h('thead', { role: 'rowgroup' }, h('tr', { role: 'row' }, columns.map(([name, kind]) =>
      h('th', { scope: 'col', role: 'columnheader', class: kind }, name)))),
    h('tbody', { role: 'rowgroup' }, rows.map((row) =>
      h('tr', { role: 'row', 'data-key': row.key, class: row.class }, columns.map(([name, kind], at) => {
        const content = row.cells[name];
        if (at === 0) return h('th', { scope: 'row', role: 'rowheader' }, content);
        return h('td', { role: 'cell', class: content === UNKNOWN ? `${kind ?? ''} none` : kind, 'data-name': name }, content);
      })))));
}
