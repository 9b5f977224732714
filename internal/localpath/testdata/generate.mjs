// Asks headless Chromium what it makes of each payload, and prints payloads.json:
//
//   payload   what a callback was asked to redirect to
//   ordinary  true for paths that a service really has
//   resolved  new URL(payload, the callback), null if there is none
//   local     whether the origin of that is the callback's
//   asked     the host that a navigation asked after "303 See Other" with the payload
//             as its Location, null if the browser asked nobody
//   path      what it asked that host for
//
// Every name leads to one listener on loopback, with and without TLS, so that no
// payload reaches anybody. To run it, with Node.js, OpenSSL and Chromium installed:
//
//   cd "$(mktemp -d)" && npm install playwright-core@1.64.1
//   node …/internal/localpath/testdata/generate.mjs > …/internal/localpath/testdata/payloads.json
//
// CHROMIUM names the browser, /usr/bin/chromium by default.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import http from 'node:http';
import https from 'node:https';
import { createRequire } from 'node:module';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { list } from './list.mjs';

const { chromium } = createRequire(join(process.cwd(), 'x'))('playwright-core');
const callback = 'https://app.example/auth/oauth/x/callback';

let current; // the payload that is being asked about
let requests = []; // what was asked for since

// answer is that of every host. The redirect is written as bytes, because Node.js
// refuses some of them; net/http replaces line ends by spaces, so they are here.
function answer(req, res) {
  if (req.url === '/favicon.ico') { // whenever Chromium likes
    res.end();
    return;
  }
  requests.push({ asked: req.headers.host, path: req.url });
  if (requests.length > 1) {
    res.setHeader('Content-Type', 'text/html').end('<link rel=icon href=data:,>');
    return;
  }
  const location = Buffer.from(current.replace(/[\r\n]/g, ' '));
  req.socket.end(Buffer.concat([Buffer.from('HTTP/1.1 303 See Other\r\nConnection: close\r\nContent-Length: 0\r\nLocation: '), location, Buffer.from('\r\n\r\n')]));
}

function listen() {
  const directory = mkdtempSync(join(tmpdir(), 'payloads-'));
  const file = name => join(directory, name);
  execFileSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '1', '-subj', '/CN=app.example', '-keyout', file('key'), '-out', file('cert')], { stdio: 'ignore' });
  const secure = https.createServer({ key: readFileSync(file('key')), cert: readFileSync(file('cert')) }, answer);
  const plain = http.createServer(answer);
  rmSync(directory, { recursive: true });
  const server = net.createServer(socket => {
    socket.on('error', () => {});
    socket.once('data', first => {
      socket.pause();
      socket.unshift(first);
      (first[0] === 22 ? secure : plain).emit('connection', socket); // 22 begins a TLS handshake
      process.nextTick(() => socket.resume());
    });
  });
  return new Promise(resolve => server.listen(0, '127.0.0.1', () => resolve(server)));
}

const server = await listen();
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync',
    '--ignore-certificate-errors', // and what Chromium asks for by itself stays out:
    `--host-resolver-rules=MAP *.google.com ~NOTFOUND, MAP *.googleapis.com ~NOTFOUND, MAP * 127.0.0.1:${server.address().port}`],
});
console.error(`Chromium ${browser.version()}, ${list.length} payloads`);
const verdicts = [];
for (const { payload, ordinary } of list) {
  const context = await browser.newContext({ ignoreHTTPSErrors: true });
  const page = await context.newPage();
  const resolved = await page.evaluate(([payload, base]) => {
    try {
      const url = new URL(payload, base);
      return { resolved: url.href, local: url.origin === new URL(base).origin };
    } catch {
      return { resolved: null, local: false };
    }
  }, [payload, callback]);
  [current, requests] = [payload, []];
  await page.goto(callback, { timeout: 5000 }).catch(() => {}); // many lead nowhere
  await context.close();
  const { asked = null, path = null } = requests[1] ?? {};
  verdicts.push({ payload, ...(ordinary && { ordinary }), ...resolved, asked, path });
}
await browser.close();
server.close();
process.stdout.write(`[\n${verdicts.map(v => JSON.stringify(v)).join(',\n')}\n]\n`);
process.exit();
