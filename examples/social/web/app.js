'use strict';
const $ = id => document.getElementById(id);
const json = { 'Content-Type': 'application/json', 'X-Requested-With': 'social' };
let refreshing = null;

// call fetches a path; on 401 it refreshes once and tries again. The tokens of the
// session are in HttpOnly cookies: this script never sees them.
async function call(method, path, body, again = true) {
  const res = await fetch(path, { method, headers: json, body: body && JSON.stringify(body), credentials: 'same-origin' });
  if (res.status === 401 && again) {
    refreshing ??= fetch('/auth/refresh', { method: 'POST', headers: json }).finally(() => { refreshing = null; });
    if ((await refreshing).ok) return call(method, path, body, false);
  }
  const data = res.status === 204 ? null : await res.json();
  if (!res.ok) throw Object.assign(new Error([data.detail, ...(data.errors ?? []).map(e => e.path + ' ' + e.message)].join(' ')), { status: res.status, code: data.code });
  return data;
}

function say(text, error = false) {
  $('message').textContent = text;
  $('message').classList.toggle('error', error);
}

// on runs f when the form is sent or the button pressed, and says what went wrong.
function on(id, f) {
  const run = async event => {
    event.preventDefault();
    try { await f(); } catch (e) { say(e.message, true); }
  };
  $(id).addEventListener($(id).tagName === 'FORM' ? 'submit' : 'click', run);
}

function button(text, f) {
  const b = document.createElement('button');
  b.type = 'button';
  b.textContent = text;
  b.addEventListener('click', () => f().catch(e => say(e.message, true)));
  return b;
}

// Why a sign-in by another provider came to nothing.
const refusals = {
  access_denied: 'You have cancelled the sign-in.',
  flow_invalid: 'The sign-in was not begun in this browser, or took too long. Please try again.',
  link_forbidden: 'Only an identity with the same address can be linked, and both have to be verified.',
  identity_taken: 'This identity signs in to another account.',
  account_exists: 'An account has this address. Sign in there and link the identity.',
  provider_unavailable: 'The provider does not answer. Please try again.',
};

let address = ''; // of whoever is signed in

async function overview() {
  const { providers } = await call('GET', '/auth/oauth/providers', undefined, false);
  let me = null;
  try { me = await call('GET', '/whoami'); } catch (e) { if (e.status !== 401) throw e; }
  $('signed-out').hidden = !!me;
  $('signed-in').hidden = !me;
  if (!me) {
    $('providers').replaceChildren(...providers.map(p => {
      const a = document.createElement('a');
      a.className = 'button';
      a.href = p.login_url + '?next=/';
      a.textContent = 'Sign in with ' + p.display_name;
      return a;
    }));
    return;
  }
  address = me.email ?? '';
  $('who').textContent = me.email ?? me.profile?.name ?? me.id;
  $('verified').textContent = !me.email ? 'no address' : me.email_verified ? 'verified' : 'not verified';
  $('verify-mail').hidden = me.email_verified || !me.email;
  await identities(providers);
}

async function identities(providers) {
  const { identities } = await call('GET', '/auth/identities');
  $('identities').replaceChildren(...identities.map(i => {
    const item = document.createElement('li');
    item.append(`${i.provider}: ${i.email ?? i.subject}`, button('Remove', async () => {
      await call('DELETE', '/auth/identities?' + new URLSearchParams({ provider: i.provider, subject: i.subject }));
      await overview();
      say('Removed.');
    }));
    return item;
  }));
  $('link').replaceChildren(...providers.map(p => button('Link ' + p.display_name, async () => {
    const { url } = await call('POST', '/auth/identities/' + encodeURIComponent(p.name), { next: '/' });
    location.assign(url);
  })));
}

async function enter(path, body) {
  await call('POST', path, { ...body, transport: 'cookie' }, false);
  $('password').value = '';
  say('Welcome.');
  await overview();
}

const form = () => ({ email: $('email').value, password: $('password').value });
on('password-form', () => enter('/auth/login', form()));
on('register', async () => { if ($('password-form').reportValidity()) await enter('/auth/register', form()); });

// None of these tells whether there is an account: who asks could be anybody.
const ask = (path, text) => async () => {
  if (!$('mail-form').reportValidity()) return null;
  const answer = await call('POST', path, { email: $('mail-email').value }, false);
  say(text);
  return answer;
};
on('mail-form', ask('/auth/magic-link', 'If there is an account, a link is in the mails.'));
on('forgot', ask('/auth/password/forgot', 'If there is an account, a link to set a new password is in the mails.'));
let flow = null;
on('send-code', async () => {
  const answer = await ask('/auth/code', 'If there is an account, a code is in the mails.')();
  if (!answer) return;
  flow = answer.flow_id;
  $('code-form').hidden = false;
  $('code').focus();
});
on('code-form', async () => {
  await enter('/auth/code/consume', { flow_id: flow, code: $('code').value.trim() });
  $('code-form').hidden = true;
});

on('sign-out', async () => { await call('POST', '/auth/logout', undefined, false); say('Signed out.'); await overview(); });
on('verify-mail', async () => { await call('POST', '/auth/email/verify/send', { email: address }); say('A link is in the mails.'); });
on('change-form', async () => {
  const password = $('change-password').value;
  await call('POST', '/auth/email/change', { new_email: $('new-email').value, ...(password && { current_password: password }) });
  $('change-form').reset();
  say('A link is in the mails of the new address.');
});

// The pages that mailed links lead to. Each asks for a click, because some mail
// programs open links on their own.
const pages = {
  '/verify': { title: 'Verify your address', path: '/auth/email/verify', done: 'Your address is verified.' },
  '/change-email': { title: 'Use the new address', path: '/auth/email/change/confirm', done: 'Your address is changed.' },
  '/reset': { title: 'Set a new password', path: '/auth/password/reset', done: 'Your password is set. Sign in with it.', password: true },
  '/magic': { title: 'Sign in', path: '/auth/magic-link/consume', signIn: true },
};

function tokenPage(page) {
  const token = new URLSearchParams(location.hash.slice(1)).get('token');
  history.replaceState(null, '', location.pathname); // it stays in no history
  $('token-form').hidden = false;
  $('token-title').textContent = page.title;
  $('new-password-label').hidden = !page.password;
  $('new-password').required = !!page.password;
  on('token-form', async () => {
    if (page.signIn) await enter(page.path, { token });
    else {
      await call('POST', page.path, { token, ...(page.password && { new_password: $('new-password').value }) }, false);
      say(page.done);
      await overview();
    }
    $('token-form').hidden = true;
    history.replaceState(null, '', '/');
  });
}

const page = pages[location.pathname];
if (page && location.hash) tokenPage(page);
else {
  const error = new URLSearchParams(location.search).get('error');
  if (error) {
    say(refusals[error] ?? `The sign-in came to nothing: ${error}.`, true);
    history.replaceState(null, '', '/');
  }
  overview().catch(e => say(e.message, true));
}
