// The events of a stream of the node (`text/event-stream`).
//
// It is read by `fetch`: unlike an EventSource it tells why a node refuses, and it can be given up when nothing is heard.

import { ask } from './api.js';

/** The events of a stream, each with its `event`, `id` and `data`. `heard` is called when the node says anything. */
export async function* events(path, { signal, heard = () => {} }) {
  const response = await ask(path, { signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = '';
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    heard();
    text += value;
    for (let end = text.indexOf('\n\n'); end >= 0; end = text.indexOf('\n\n')) {
      const event = parse(text.slice(0, end));
      text = text.slice(end + 2);
      if (event.data !== null) yield event;
    }
  }
}

function parse(block) {
  const event = { event: 'message', id: null, data: null };
  for (const line of block.split('\n')) {
    const [, name, value] = /^(event|id|data): ?(.*)$/s.exec(line) ?? [];
    if (name === 'data') event.data = event.data === null ? value : `${event.data}\n${value}`;
    else if (name) event[name] = value;
  }
  return event;
}
