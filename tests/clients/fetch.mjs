// The browsers' fetch, as node has it, through the gateway: fetch.mjs URL.
import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';

const gateway = process.argv[2];
const hash = (bytes) => createHash('sha256').update(bytes).digest('hex');
const json = async (path, options) => (await fetch(gateway + path, options)).json();

async function plain() {
  const response = await fetch(`${gateway}/users/7?a=b`);
  assert.equal(response.status, 200);
  assert.equal(response.headers.get('content-type'), 'application/json');
  assert.match(response.headers.get('via'), /ringgate/);
  const report = await response.json();
  assert.equal(report.path, '/v2/users/7?a=b');
  assert.equal(report.headers['accept-language'], '*');
}

async function head() {
  const response = await fetch(`${gateway}/users/7`, { method: 'HEAD' });
  assert.ok(Number(response.headers.get('content-length')) > 0);
  assert.equal(await response.text(), '');
}

async function redirects() {
  const manual = await fetch(`${gateway}/old/7`, { redirect: 'manual' });
  assert.equal(manual.status, 308);
  assert.equal(manual.headers.get('location'), '/users/7');
  await manual.body?.cancel();
  const followed = await fetch(`${gateway}/old/7`);
  assert.ok(followed.redirected && followed.ok);
  assert.equal((await followed.json()).path, '/v2/users/7');
}

async function forms() {
  assert.equal((await json('/orders', { method: 'POST', body: new URLSearchParams({ tea: '1' }) })).body_bytes, 5);
  const form = new FormData();
  form.set('file', new Blob([randomBytes(200_000)]), 'a.bin');
  assert.ok((await json('/orders', { method: 'POST', body: form })).body_bytes > 200_000);
}

async function uploads() {
  const bytes = randomBytes(3_000_000);
  const sized = await fetch(`${gateway}/echo`, { method: 'POST', body: bytes });
  assert.equal(hash(Buffer.from(await sized.arrayBuffer())), hash(bytes));
  // A stream has no length, so it goes in chunks.
  const pieces = Array.from({ length: 100 }, (_, at) => bytes.subarray(at * 30_000, (at + 1) * 30_000));
  const stream = new ReadableStream({ pull: (to) => (pieces.length ? to.enqueue(pieces.shift()) : to.close()) });
  const chunked = await fetch(`${gateway}/echo`, { method: 'POST', body: stream, duplex: 'half' });
  assert.equal(hash(Buffer.from(await chunked.arrayBuffer())), hash(bytes));
}

async function downloads() {
  const response = await fetch(`${gateway}/bytes?n=20000000`);
  let count = 0;
  for await (const piece of response.body) count += piece.length;
  assert.equal(count, 20_000_000);
}

// An event is there before the next one is made: a stream that never ends, and is left.
async function events() {
  const leave = new AbortController();
  const response = await fetch(`${gateway}/events?n=1000&every=10000`, { signal: leave.signal });
  assert.equal(response.headers.get('content-type'), 'text/event-stream');
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  assert.equal((await reader.read()).value, 'id: 1\ndata: event 1 of 1000\n\n');
  leave.abort();
  await assert.rejects(reader.read(), { name: 'AbortError' });
}

async function failures() {
  const broken = await fetch(`${gateway}/broken`);
  assert.equal(broken.status, 200);
  await assert.rejects(broken.text(), 'a response cut short is an error');
  const refused = await fetch(`${gateway}/echo/small`, { method: 'POST', body: 'x'.repeat(17) });
  assert.equal(refused.status, 413);
  assert.equal(refused.headers.get('content-type'), 'application/problem+json');
  assert.equal((await refused.json()).status, 413);
}

async function many() {
  const asked = Array.from({ length: 200 }, (_, at) => json(`/files/${at}`));
  const paths = (await Promise.all(asked)).map((report) => report.path);
  assert.deepEqual(paths, paths.map((_, at) => `/files/${at}`));
}

for (const check of [plain, head, redirects, forms, uploads, downloads, events, failures, many]) {
  await check().catch((error) => {
    console.error(`${check.name}:`, error);
    process.exit(1);
  });
}
process.exit(0);
