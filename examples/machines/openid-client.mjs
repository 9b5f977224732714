// Holds the example against openid-client, an OAuth 2.0 client that was certified by
// others: discovery (RFC 8414), client_credentials (RFC 6749) by both ways to
// authenticate, introspection (RFC 7662) and revocation (RFC 7009).
//
//   npm install openid-client
//   node openid-client.mjs http://127.0.0.1:8083 CLIENT_ID CLIENT_SECRET
import * as client from 'openid-client'

const [server, id, secret] = process.argv.slice(2)
if (!secret) {
  console.error('usage: node openid-client.mjs SERVER CLIENT_ID CLIENT_SECRET')
  process.exit(2)
}

function expect(what, got, want) {
  if (got !== want) {
    console.error(`${what}: got ${got}, want ${want}`)
    process.exit(1)
  }
  console.log(`  ${what}: ${got}`)
}

// refused is the error code of a call that has to fail.
async function refused(call) {
  try {
    await call()
    return 'accepted'
  } catch (err) {
    return err.error ?? err.cause?.error ?? err.code ?? String(err)
  }
}

const loopback = { algorithm: 'oauth2', execute: [client.allowInsecureRequests] }
for (const [way, auth] of [
  ['Basic', client.ClientSecretBasic(secret)],
  ['form', client.ClientSecretPost(secret)],
]) {
  console.log(`openid-client, authenticated by ${way}:`)
  const config = await client.discovery(new URL(server), id, undefined, auth, loopback)
  expect('issuer', config.serverMetadata().issuer, server)
  const tokens = await client.clientCredentialsGrant(config, { scope: 'readings:write' })
  expect('token type', tokens.token_type, 'bearer')
  expect('scope', tokens.scope, 'readings:write')
  const call = (token) => client.fetchProtectedResource(config, token, new URL(`${server}/readings`), 'POST',
    JSON.stringify({ sensor: 'openid-client', value: 1 }), new Headers({ 'content-type': 'application/json' }))
  expect('a call with the token', (await call(tokens.access_token)).status, 201)
  expect('introspection', (await client.tokenIntrospection(config, tokens.access_token)).active, true)
  expect('a scope that it has not', await refused(() => client.clientCredentialsGrant(config, { scope: 'admin' })), 'invalid_scope')
  await client.tokenRevocation(config, tokens.access_token)
  expect('introspection after revocation', (await client.tokenIntrospection(config, tokens.access_token)).active, false)
  expect('a call after revocation', await call(tokens.access_token).then((r) => r.status, (err) => err.status ?? err.response?.status), 401)
}
const wrong = await client.discovery(new URL(server), id, undefined, client.ClientSecretBasic('wrong'), loopback)
expect('a wrong secret', await refused(() => client.clientCredentialsGrant(wrong)), 'OAUTH_WWW_AUTHENTICATE_CHALLENGE')
