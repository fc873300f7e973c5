// undici, what is below node's fetch, where it does more than fetch lets one: pipelining, both directions at once,
// Expect, upgrades, EventSource. undici.mjs URL, with PACKAGES naming a node_modules.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createRequire } from 'node:module';
import { PassThrough } from 'node:stream';

const { Client, EventSource, Pool, WebSocket } = createRequire(`${process.env.PACKAGES}/`)('undici');
const gateway = process.argv[2];

async function pipelining() {
  const client = new Client(gateway, { pipelining: 16 });
  const asked = Array.from({ length: 200 }, (_, at) => client.request({ method: 'GET', path: `/users/${at}` }));
  for (const [at, response] of (await Promise.all(asked)).entries()) {
    assert.equal(response.statusCode, 200);
    assert.equal((await response.body.json()).path, `/v2/users/${at}`);
  }
  await client.close();
}

// A piece goes up, comes back down, and only then the next goes up.
async function bothDirections() {
  const client = new Client(gateway);
  const up = new PassThrough();
  up.write('piece 0');
  const { body } = await client.request({ method: 'POST', path: '/echo', body: up });
  const down = body[Symbol.asyncIterator]();
  for (let at = 0; at < 20; at += 1) {
    assert.equal((await down.next()).value.toString(), `piece ${at}`);
    up.write(`piece ${at + 1}`);
  }
  assert.equal((await down.next()).value.toString(), 'piece 20');
  up.end();
  assert.ok((await down.next()).done);
  await client.close();
}

async function expect() {
  const client = new Client(gateway);
  const options = { method: 'POST', path: '/orders', body: 'x'.repeat(1000), expectContinue: true };
  const { statusCode, body } = await client.request(options);
  assert.equal(statusCode, 200);
  assert.equal((await body.json()).body_bytes, 1000);
  await client.close();
}

async function upgrade() {
  const client = new Client(gateway);
  const headers = { 'sec-websocket-version': '13', 'sec-websocket-key': 'SGVsbG8sIHdvcmxkIQ==' };
  const { socket, headers: answer } = await client.upgrade({ path: '/ws', protocol: 'websocket', headers });
  assert.equal(answer.upgrade, 'websocket');
  assert.equal(answer['sec-websocket-accept'], 'qGEgH3En71di5rrssAZTmtRTyFk=');
  socket.destroy();
  await client.destroy();
}

async function webSocket() {
  const socket = new WebSocket(`${gateway.replace('http', 'ws')}/ws`);
  socket.binaryType = 'arraybuffer';
  await once(socket, 'open');
  for (const text of ['grüezi', '', 'x'.repeat(100_000)]) {
    socket.send(text);
    const [{ data }] = await once(socket, 'message');
    assert.equal(data, text);
  }
  socket.send(new Uint8Array([0, 255, 7]));
  const [{ data }] = await once(socket, 'message');
  assert.deepEqual(new Uint8Array(data), new Uint8Array([0, 255, 7]));
  socket.close(1000);
  const [{ code, wasClean }] = await once(socket, 'close');
  assert.deepEqual([code, wasClean], [1000, true]);
}

async function eventSource() {
  const source = new EventSource(`${gateway}/events?n=1000&every=1`);
  const events = [];
  // Two may come at once, so none is waited for by itself.
  await new Promise((resolve, reject) => {
    source.onerror = reject;
    source.onmessage = ({ data, lastEventId }) => events.push(`${lastEventId}: ${data}`) >= 100 && resolve();
  });
  source.close();
  assert.deepEqual(events.slice(0, 100), Array.from({ length: 100 }, (_, at) => `${at + 1}: event ${at + 1} of 1000`));
}

// Clients that leave in the middle do no harm to those that stay.
async function leaving() {
  const pool = new Pool(gateway, { connections: 8 });
  for (let turn = 0; turn < 20; turn += 1) {
    const leave = new AbortController();
    const { body } = await pool.request({ method: 'GET', path: '/bytes?n=1000000000', signal: leave.signal });
    await once(body, 'data');
    leave.abort();
    await assert.rejects(body.text());
    const stays = await pool.request({ method: 'GET', path: '/healthz' });
    assert.equal(await stays.body.text(), 'ok\n');
  }
  await pool.destroy();
}

for (const check of [pipelining, bothDirections, expect, upgrade, webSocket, eventSource, leaving]) {
  await check().catch((error) => {
    console.error(`${check.name}:`, error);
    process.exit(1);
  });
}
process.exit(0);
