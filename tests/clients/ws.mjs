// node's ws through the gateway: ws.mjs URL, with PACKAGES naming a node_modules.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createRequire } from 'node:module';

const WebSocket = createRequire(`${process.env.PACKAGES}/`)('ws');
const url = `${process.argv[2].replace('http', 'ws')}/ws`;

async function opened() {
  const socket = new WebSocket(url, { perMessageDeflate: true });
  await once(socket, 'open');
  return socket;
}

async function echoed(socket, message, options) {
  socket.send(message, options);
  const [data, isBinary] = await once(socket, 'message');
  return { data, isBinary };
}

async function messages() {
  const socket = await opened();
  for (const text of ['hello', 'grüezi', '']) {
    const { data, isBinary } = await echoed(socket, text);
    assert.equal(data.toString(), text);
    assert.equal(isBinary, false);
  }
  // Lengths around those where a frame's header, or a gateway's buffer, changes.
  for (const length of [0, 1, 125, 126, 127, 16_383, 16_384, 16_385, 65_535, 65_536, 1_000_000]) {
    const bytes = randomBytes(length);
    const { data, isBinary } = await echoed(socket, bytes);
    assert.ok(isBinary && bytes.equals(data), `${length} bytes`);
  }
  socket.close(1000, 'done');
  const [code] = await once(socket, 'close');
  assert.equal(code, 1000);
}

async function fragments() {
  const socket = await opened();
  const echo = once(socket, 'message');
  socket.send('one ', { fin: false });
  socket.send('two ', { fin: false });
  socket.send('three', { fin: true });
  assert.equal((await echo)[0].toString(), 'one two three');
  socket.terminate();
}

async function pings() {
  const socket = await opened();
  socket.ping('are you there');
  assert.equal((await once(socket, 'pong'))[0].toString(), 'are you there');
  socket.close();
  await once(socket, 'close');
}

async function manyInFlight() {
  const socket = await opened();
  const count = 2000;
  const got = [];
  const all = new Promise((resolve) => {
    socket.on('message', (data) => got.push(data.toString()) === count && resolve());
  });
  for (let at = 0; at < count; at += 1) socket.send(`message ${at}`);
  await all;
  assert.deepEqual(got, got.map((_, at) => `message ${at}`));
  socket.close();
  await once(socket, 'close');
}

async function manySockets() {
  const sockets = await Promise.all(Array.from({ length: 50 }, opened));
  const echoes = await Promise.all(sockets.map((socket, at) => echoed(socket, `socket ${at}`)));
  echoes.forEach(({ data }, at) => assert.equal(data.toString(), `socket ${at}`));
  // Half of them go without a word.
  sockets.forEach((socket, at) => (at % 2 ? socket.terminate() : socket.close()));
  await Promise.all(sockets.map((socket) => socket.readyState === WebSocket.CLOSED || once(socket, 'close')));
}

// What is not a WebSocket is refused as such, and the client learns the upstream's answer.
async function refused() {
  const socket = new WebSocket(url.replace('/ws', '/users/7'));
  const [, response] = await once(socket, 'unexpected-response');
  assert.equal(response.statusCode, 200);
  response.destroy();
}

for (const check of [messages, fragments, pings, manyInFlight, manySockets, refused]) {
  await check().catch((error) => {
    console.error(`${check.name}:`, error);
    process.exit(1);
  });
}
process.exit(0);
