// Builds elements and brings the document to what a page wants to show.
//
// Every text becomes a text node: there is no way from a text to markup. `show` keeps the elements that stay, so that the focus, a
// selection and the place of a reader survive an update. What is in an element with `data-own` belongs to whoever put it there.

const SVG = new Set(['svg', 'path', 'g', 'rect', 'circle', 'line', 'text', 'title', 'polygon', 'marker', 'defs', 'tspan']);

/** An element with attributes and children. An attribute that is null, undefined or false is left out; so is such a child. */
export function h(name, attributes, ...children) {
  const element = SVG.has(name)
    ? document.createElementNS('http://www.w3.org/2000/svg', name)
    : document.createElement(name);
  for (const [key, value] of Object.entries(attributes ?? {})) {
    if (value !== null && value !== undefined && value !== false) {
      element.setAttribute(key, value === true ? '' : String(value));
    }
  }
  for (const child of children.flat(Infinity)) {
    if (child !== null && child !== undefined && child !== false) {
      element.append(child instanceof Node ? child : String(child));
    }
  }
  return element;
}

/** Makes these the children of `parent`, and keeps what is there where it is alike. */
export function show(parent, ...children) {
  const focused = document.activeElement;
  patchChildren(parent, [...h('div', null, ...children).childNodes]);
  // An element that has moved has lost the focus.
  if (focused !== document.activeElement && focused?.isConnected && parent.contains(focused)) {
    focused.focus({ preventScroll: true });
  }
}

function keyOf(node) {
  return node.dataset?.key;
}

function patchChildren(parent, fresh) {
  const keyed = new Map();
  for (const child of parent.children) {
    if (keyOf(child) !== undefined) keyed.set(keyOf(child), child);
  }
  let at = parent.firstChild;
  for (const child of fresh) {
    const key = keyOf(child);
    const old = key !== undefined ? keyed.get(key) : at && keyOf(at) === undefined ? at : undefined;
    if (!old || old.nodeName !== child.nodeName) {
      parent.insertBefore(child, at);
      continue;
    }
    if (old === at) at = at.nextSibling;
    else parent.insertBefore(old, at);
    patch(old, child);
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}

function patch(old, fresh) {
  if (old.nodeType === Node.TEXT_NODE) {
    if (old.data !== fresh.data) old.data = fresh.data;
    return;
  }
  for (const { name } of [...old.attributes]) {
    // A reader opens and closes details.
    if (!fresh.hasAttribute(name) && name !== 'open') old.removeAttribute(name);
  }
  for (const { name, value } of fresh.attributes) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  if (fresh.dataset.own === undefined) patchChildren(old, [...fresh.childNodes]);
}
