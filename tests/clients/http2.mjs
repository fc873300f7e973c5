// Node's http2 through the gateway, before an echo: http2.mjs PLAIN SECURE ROOT.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import http2 from 'node:http2';

const [plain, secure, root] = process.argv.slice(2);

const ask = async (session, headers, body) => {
  const stream = session.request(headers);
  stream.end(body);
  const [answer] = await once(stream, 'response');
  const pieces = [];
  for await (const piece of stream) pieces.push(piece);
  return { status: answer[':status'], body: Buffer.concat(pieces) };
};

const check = async (url, options) => {
  const session = http2.connect(url, options);
  await once(session, 'remoteSettings');
  const page = await ask(session, { ':path': '/a?b=c' });
  assert.equal(page.status, 200);
  assert.match(page.body.toString(), /^GET \/a\?b=c HTTP\/1\.1/);
  const body = randomBytes(2_000_000);
  const echoed = await ask(session, { ':method': 'POST', ':path': '/' }, body);
  assert.ok(body.equals(echoed.body), 'the body comes back changed');
  const many = Array.from({ length: 100 }, (_, at) => ask(session, { ':method': 'POST', ':path': '/' }, `${at}`));
  (await Promise.all(many)).forEach((answer, at) => assert.equal(answer.body.toString(), `${at}`));
  // Given up.
  const left = session.request({ ':method': 'POST', ':path': '/' });
  left.write('some');
  left.close(http2.constants.NGHTTP2_CANCEL);
  await once(left, 'close');
  assert.equal((await ask(session, { ':path': '/' })).status, 200);
  await new Promise((done) => session.ping(done));
  session.close();
  await once(session, 'close');
};

await check(plain);
await check(secure, { ca: readFileSync(root) });
