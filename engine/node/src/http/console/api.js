// The requests to the node.

/** The session has ended, or there is none. */
export class SignedOut extends Error {}

/** A request that the node has refused, with the reason that it gave. */
export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** The answer to a request, of which the status says that it succeeded. */
export async function ask(path, { method = 'GET', body, signal } = {}) {
  const headers = {};
  if (method !== 'GET') headers['fluvial-client'] = 'console';
  if (body !== undefined) headers['content-type'] = 'application/json';
  const content = body === undefined ? undefined : JSON.stringify(body);
  const response = await fetch(path, { method, headers, body: content, signal, cache: 'no-store' });
  if (response.ok) return response;
  const text = await response.text();
  if (response.status === 401) throw new SignedOut(reason(text));
  throw new Refused(response.status, reason(text) || `the node answers ${response.status}`);
}

/** The content of an answer. */
export async function get(path) {
  return (await ask(path)).json();
}

function reason(text) {
  try {
    return JSON.parse(text).error ?? text;
  } catch {
    return text.trim();
  }
}

/** The path of a job in the API. */
export function jobPath(job, rest = '') {
  return `/v1/jobs/${encodeURIComponent(job)}${rest}`;
}
