// Pages of several origins in Chromium, all served by one gateway: origins.mjs PORT, with PACKAGES naming a node_modules.
import assert from 'node:assert/strict';
import { createRequire } from 'node:module';

const { chromium } = createRequire(`${process.env.PACKAGES}/`)('playwright-core');
const [port] = process.argv.slice(2);
// Pages of `web.shop` and this are of one site, so that cookies go along; those of `evil` are of another.
const api = `http://api.shop.localhost:${port}`;
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  args: ['--no-sandbox', '--no-proxy-server'],
});

// What a page of an origin gets from a fetch: the status, the body and the fields that it sees, or that it was refused.
async function asked(origin, path, options = {}) {
  const page = await context.newPage();
  await page.goto(`http://${origin}.localhost:${port}/page`);
  const got = await page.evaluate(
    async ([url, given]) => {
      const body = given.bytes ? new Uint8Array(given.bytes) : undefined;
      try {
        const answer = await fetch(url, { ...given, body });
        const bytes = [...new Uint8Array(await answer.arrayBuffer())];
        return { status: answer.status, bytes, total: answer.headers.get('x-total'), secret: answer.headers.get('x-secret') };
      } catch {
        return 'refused';
      }
    },
    [`${api}${path}`, options],
  );
  await page.close();
  return got === 'refused' ? got : { ...got, text: Buffer.from(got.bytes).toString() };
}

let context;
try {
  context = await browser.newContext();
  const simple = await asked('web.shop', '/api');
  assert.deepEqual([simple.status, simple.total, simple.secret], [200, '7', null]);
  // Another origin's page is kept from the same response.
  assert.equal(await asked('evil', '/api'), 'refused');
  assert.equal(await asked('web.shop', '/closed'), 'refused');
  // Behind a preflight: what is named may be sent, and nothing else.
  const headers = { 'X-Token': '1' };
  assert.equal((await asked('web.shop', '/api', { method: 'PUT', headers })).status, 200);
  assert.equal(await asked('web.shop', '/api', { method: 'DELETE' }), 'refused');
  assert.equal(await asked('web.shop', '/api', { headers: { 'X-Other': '1' } }), 'refused');
  assert.equal(await asked('evil', '/api', { method: 'PUT', headers }), 'refused');
  // Cookies go along where the page asks for it.
  const visit = await context.newPage();
  await visit.goto(`${api}/cookie`);
  assert.equal((await asked('web.shop', '/api', { credentials: 'include' })).text, 'who=me');
  assert.equal((await asked('web.shop', '/api', { credentials: 'omit' })).text, '');
  assert.equal(await asked('evil', '/api', { credentials: 'include' }), 'refused');
  // A call of gRPC-Web: a message of five bytes, and the trailers behind it.
  const message = [0, 0, 0, 0, 5, 104, 101, 108, 108, 111];
  const call = await asked('web.shop', '/shop.Cart/Add', {
    method: 'POST',
    headers: { 'Content-Type': 'application/grpc-web+proto', 'X-Grpc-Web': '1' },
    bytes: message,
  });
  assert.deepEqual(call.bytes.slice(0, 10), message);
  assert.equal(Buffer.from(call.bytes.slice(15)).toString(), 'grpc-status: 0\r\n');
} finally {
  await browser.close();
}
