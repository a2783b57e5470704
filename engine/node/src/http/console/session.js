// Who uses the console.

import { ask, Refused, SignedOut } from './api.js';
import { h, show } from './dom.js';

/** The user, or null. `open` says that this node asks for no token. */
export const session = { user: null, open: false };

/** Asks the node who the user is. Returns whether anybody is. */
export async function recognise() {
  try {
    session.user = await (await ask('/v1/session')).json();
    // A node without tokens has nobody to sign out.
    session.open = session.user.tokens === false;
  } catch (error) {
    if (error instanceof Refused && error.status === 404) {
      // A node without tokens lets everybody do everything.
      session.user = { name: null, role: 'operator' };
      session.open = true;
    } else if (error instanceof SignedOut) {
      session.user = null;
    } else {
      throw error;
    }
  }
  return session.user !== null;
}

export function mayAct() {
  return session.user?.role === 'operator';
}

export async function signOut() {
  await ask('/v1/session', { method: 'DELETE' });
  session.user = null;
}

/** Shows the form in `place`, and returns when the user has signed in. */
export function signIn(place) {
  return new Promise((resolve) => {
    const draw = (error) => {
      show(
        place,
        h('form', { class: 'sign-in', 'data-key': 'sign-in' },
          h('h1', { tabindex: '-1' }, 'Sign in'),
          h('p', { class: 'quiet' }, 'This cluster asks for a token. The command ', h('code', null, 'fluvial tokens create'), ' makes one.'),
          h('label', { for: 'token' }, 'Token'),
          h('input', {
            id: 'token', name: 'token', type: 'password', required: true, autocomplete: 'current-password', spellcheck: 'false',
            'aria-describedby': 'token-error', 'aria-invalid': error ? 'true' : null,
          }),
          h('p', { id: 'token-error', class: 'error', role: 'alert' }, error),
          h('button', { class: 'primary', type: 'submit' }, 'Sign in')),
      );
    };
    draw('');
    const form = place.querySelector('form');
    form.querySelector('input').focus();
    form.addEventListener('submit', async (event) => {
      event.preventDefault();
      try {
        await ask('/v1/session', { method: 'POST', body: { token: form.elements.token.value.trim() } });
        if (await recognise()) return resolve();
        draw('The browser did not keep the session: allow cookies for this address.');
      } catch (error) {
        if (error instanceof SignedOut) draw('This token is not known, or has expired.');
        else draw(error instanceof TypeError ? 'The node does not answer. Try again.' : error.message);
      }
      form.querySelector('input').focus();
    });
  });
}
