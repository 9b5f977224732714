// The payloads: what open redirects have been made of, and what services really
// redirect to. Each is made from its idea, so that no spelling is forgotten.
const ordinary = [
  '/', '/a', '/a/', '/dashboard', '/dashboard/', '/account/security', '/orders/4711', '/orders/4711/items/3', '/index.html', '/docs/v1.2/start.html',
  '/search?q=hello', '/search?q=hello+world&page=2', '/search?q=caf%C3%A9', '/search?q=a%26b', '/search?q=100%25', '/search?', '/?tab=2', '/?', '/#', '/#/orders/1', '/#top',
  '/a#b', '/a?b#c', '/a?b=c#d=e', '/a?next=/b', '/a?next=https://other.example/', '/a?next=//other.example', '/a?mail=a@b.example', '/?a/..//b', '/#a/..//b', '/@user', '/@user/posts', '/user@host.example', '/a:b',
  '/a;v=1', '/a,b', '/a(b)', '/~user', '/a_b-c.d', '/a%20b', '/%C3%A9', '/a%2Fb', '/é/ü', '/日本語', '/search?q=日本', '/a/./b', '/a/../b', '/a//b', '/.well-known/x', '/...', '/..a', '/.a',
  '/a=b', '/a+b', '/a$b', "/it's", '/a!b', '/a*b', '/a|b', '/a[0]?b[1]=2', '/a?b={c}', '/a?b="c"', '/a b', '/a?b=c d', '/🙂',
];

const host = 'evil.example';
const codes = (...points) => points.map(p => String.fromCodePoint(p));
const range = (from, to) => codes(...Array.from({ length: to - from + 1 }, (_, i) => from + i));
const each = (list, make) => list.flatMap(make);

const controls = [...range(0, 0x20), ...codes(0x7f, 0x80, 0x85, 0x9f, 0xa0, 0xad)];
const invisible = codes(0x1680, 0x180e, 0x2000, 0x200b, 0x200d, 0x2028, 0x2029, 0x202e, 0x2060, 0x3000, 0xfeff, 0xfffd);
const likeSlash = codes(0x2044, 0x2215, 0x2571, 0x29f8, 0xff0f, 0x337, 0x20eb, 0x30ce, 0x4e3f);
const likeBackslash = codes(0x2216, 0x29f5, 0x29f9, 0xfe68, 0xff3c, 0xa5, 0x20a9);
const likeDot = codes(0x3002, 0xff0e, 0xff61, 0x2024, 0xfe52, 0x2026);
const likeColon = codes(0xff1a, 0xfe55, 0xa789, 0x2236);
const dot = ['.', '%2e', '%2E'];
const dotDot = each(dot, a => dot.map(b => a + b));
const encoded = ['%2f', '%2F', '%5c', '%5C', '%09', '%0a', '%0d', '%00', '%20', '%23', '%3f', '%40', '%252f', '%255c', '%c0%af', '%ef%bc%8f', '%E3%80%82', '%u002f', '%', '%2', '%zz'];

const hostile = [
  // Another host.
  ...each(['', '/', '//', '///', '////', '\\', '\\\\', '/\\', '\\/', '/\\/', '\\//', '/\\\\', '//\\', '\\\\\\', '/\\/\\', '\\/\\/', './/', '..//', '/.//', '/..//', './\\', '/./\\', '/x/..//', '/x/../\\', '?//', '#//'],
    before => [before + host, `${before}app.example@${host}`, `${before}${host}/%2f..`]),
  ...['//', '///', '//.', '//..', '//../', '//./', '//%2e', '//%2e%2e', '//?', '//#', '//@', '//:', '//:80', '//[', '//[::1]', '//0', '//127.0.0.1', '//2130706433', '//0x7f.1', '//017700000001', '//1', '//%00', '//a%00b',
    '//\\', '\\', '\\\\', '/\\', '/\\.', '/\\..', '\\.', '\\..', '//\t', '//a\tb', '//a\nb', '//x:y@z', '//x:y@app.example', '//app.example', '//app.example:443', '//app.example:8443', '//app.example.', '//APP.example', '//app%2eexample',
    '//app.example@', '//@app.example', '//app.example.evil.example', '//evil.example#app.example', '//evil.example?app.example', '//evil.example/app.example', '//evil.example:80#@app.example', '//evil.example\\@app.example', '//evil.example\\.app.example',
    '//evil.example%2f@app.example', '//evil.example%5c@app.example', '//app.example%40evil.example', '//app.example%2f@evil.example', '//app.example&@evil.example', '//app.example;@evil.example', '//app.example:a@evil.example'],
  ...likeDot.map(c => `//evil${c}example`),

  // A scheme.
  ...each(['https', 'http', 'HTTPS', 'hTtP', 'ftp', 'ws', 'wss', 'file', 'x'], s => ['', '/', '//', '///', '\\', '\\\\', '/\\'].map(a => `${s}:${a}${host}`)),
  ...['https:', 'https:/', 'https://', 'https:a', 'https:/a', 'https:?a', 'https:#a', 'https:.', 'https:..', 'https:app.example', 'https://app.example', 'https://app.example/', 'https://app.example/a', 'https://app.example:443/a', 'https://app.example:8443/a', 'http://app.example/a', 'https://app.example.',
    'https://app.example@evil.example', 'https://evil.example@app.example', 'https://evil.example\\@app.example', 'https://evil.example#@app.example', 'https://evil.example?@app.example', 'https://[evil.example', 'https://evil.example:99999', 'https://%65vil.example'],
  ...['javascript:alert(1)', 'JavaScript:alert(1)', 'javascript://app.example/%0aalert(1)', 'javascript://%0aalert(1)', '/javascript:alert(1)', '//javascript:alert(1)', '\x01javascript:alert(1)', 'java\tscript:alert(1)', 'java\nscript:alert(1)', 'java%0ascript:alert(1)', ' javascript:alert(1)',
    'javascript&colon;alert(1)', 'data:text/html,x', 'data:text/html;base64,eA==', 'vbscript:x', 'mailto:a@b.example', 'tel:1', 'blob:https://app.example/x', 'filesystem:https://app.example/x', 'view-source:https://evil.example', 'about:blank', 'chrome://version', 'intent://evil.example#Intent;end', 'urn:x', 'x:', ':', ':a', '://evil.example', ':///evil.example', ':80/a'],
  ...likeColon.map(c => `https${c}//${host}`),
  ...['/https://evil.example', '/http:evil.example', '/https:/evil.example', '/http://evil.example@app.example', '/.evil.example', '/@evil.example', '@evil.example', '.evil.example', ':@evil.example', ';@evil.example', '/;@evil.example', ';//evil.example', '/;//evil.example', '<>//evil.example', '/<>//evil.example', '/〱evil.example', '〱evil.example', '/%68ttps://evil.example'],

  // What the parser drops, or could take for a slash, at each place.
  ...each([...controls, ...invisible], c => [`/${c}/${host}`, `${c}//${host}`]),
  ...each(codes(9, 10, 13), c => [`/${c}\\${host}`, `${c}/${c}/${host}`, `/.${c}//${host}`, `/${c}..//${host}`, `/a${c}b`, `/a?b${c}c`, `/a#b${c}c`, `ht${c}tps://${host}`, `https:${c}//${host}`, `/${c}${c}/${host}`, `/a${c}`]),
  ...['/\r\n/evil.example', '/\r\n//evil.example', '/a\r\nLocation: https://evil.example', '/a\r\nSet-Cookie: a=b', '/a\n\n<script>', '/a\0b', '/a\x1fb', '/a\x7fb', '/a\u0085b', ' /a', ' //evil.example', '/a ', '/ /evil.example', '/ //evil.example'],
  ...each([...likeSlash, ...likeBackslash], c => [`/${c}${host}`, `${c}${c}${host}`, `/a${c}${c}${host}`]),

  // Escapes, which the parser leaves alone.
  ...each(encoded, e => [`/${e}${host}`, `/${e}/${host}`, `${e}${e}${host}`, `//${e}${host}`, `/${e}${e}${host}`]),

  // Dot segments.
  ...each([...dot, ...dotDot], d => [`/${d}`, `/${d}/`, `/${d}//`, `/${d}//${host}`, `/${d}///${host}`, `/a/${d}//${host}`, `/a/b/${d}//${host}`, `/${d}/\\${host}`, `/${d}${host}`, `/${d}/${host}`, `/${d}%2f${host}`]),
  ...['/a/../..//evil.example', '/a/..//..//evil.example', '/a//../..//evil.example', '/a//..//evil.example', '/a/b/../..//evil.example', '/a/.././/evil.example', '/.//..//evil.example', '/./..//evil.example', '/..//../evil.example', '/..//..', '/.//..', '/.//.', '/a/..//', '/a/..//.', '/a/..//..',
    '/..;//evil.example', '/.;//evil.example', '/...//evil.example', '/%2e%2e%2e//evil.example', '/.%2e.//evil.example', '/%252e%252e//evil.example', '/..?//evil.example', '/..#//evil.example', '/.?//evil.example', '/a/../?//evil.example', '/..//?evil', '/..//#evil', '/.//', '/././/evil.example', '.', '..', './', '../', '../a', './a', 'a/..//evil.example', 'a', 'a/b', '', '?', '?a', '#', '#a', ' '],

  // Backslashes where they do no harm to the host, and lengths.
  ...['/a\\b', '/a\\', '/a?b\\c', '/a#b\\c', '/a/..\\/evil.example', '/a/..\\\\evil.example', '/.\\/evil.example', '/..\\\\evil.example', '/a\\..\\..\\\\evil.example'],
  '/' + 'a'.repeat(2047), '/' + 'a'.repeat(2048), '/?' + 'é'.repeat(1023), '/?' + 'é'.repeat(1024),
];

const seen = new Set(ordinary);
export const list = [
  ...ordinary.map(payload => ({ payload, ordinary: true })),
  ...hostile.filter(payload => !seen.has(payload) && seen.add(payload)).map(payload => ({ payload })),
];
