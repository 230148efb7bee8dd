// An OpenID provider for tests: the certified `oidc-provider`, with accounts that are what their names say. Prints `ready URL`.
//
// Usage: node provider.mjs FOLDER [KEY CERTIFICATE], where FOLDER has the package in its node_modules. PORT says where to listen.
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { createServer as createSecureServer } from 'node:https';
import { pathToFileURL } from 'node:url';

const [folder, key, certificate] = process.argv.slice(2);
const { Provider } = await import(pathToFileURL(`${folder}/node_modules/oidc-provider/lib/index.js`));

// Methods of ours by client; each has a path of its own.
const methods = { ringfort: ['sso'], short: ['short', 'trusted', 'untrusted'], lasting: ['lasting'] };
const native = (client_id, more) => ({
  client_id,
  application_type: 'native',
  redirect_uris: methods[client_id].map((method) => `http://127.0.0.1/callback/${method}`),
  response_types: ['code'],
  grant_types: ['authorization_code', 'refresh_token'],
  ...more,
});
const open = { token_endpoint_auth_method: 'none' };
// Seconds that access tokens live, by client.
const lives = { ringfort: 300, short: 3, lasting: 6 };

const configuration = {
  clients: [
    native('ringfort', { client_secret: 'hush: a secret', token_endpoint_auth_method: 'client_secret_basic' }),
    native('short', open),
    native('lasting', open),
  ],
  claims: { openid: ['sub'], email: ['email', 'email_verified'], groups: ['groups'] },
  scopes: ['openid', 'email', 'groups', 'offline_access'],
  features: { devInteractions: { enabled: true } },
  ttl: {
    AccessToken: (ctx, token, client) => lives[client.clientId],
    IdToken: 3600,
    Interaction: 600,
    Session: 3600,
    Grant: 3600,
    AuthorizationCode: 60,
    RefreshToken: 3600,
  },
  cookies: { keys: ['not worth keeping'] },
  findAccount: (ctx, id) => ({
    accountId: id,
    claims: () => ({ sub: id, email: `${id}@example.org`, email_verified: id !== 'unverified', groups: ['staff'] }),
  }),
};

let answer;
const handler = (request, response) => answer(request, response);
const server = key
  ? createSecureServer({ key: readFileSync(key), cert: readFileSync(certificate) }, handler)
  : createServer(handler);
server.listen(Number(process.env.PORT ?? 0), '127.0.0.1', () => {
  const url = `${key ? 'https' : 'http'}://127.0.0.1:${server.address().port}`;
  answer = new Provider(url, configuration).callback();
  console.log(`ready ${url}`);
});
// It ends with whoever started it.
process.stdin.resume();
process.stdin.on('end', () => process.exit(0));
