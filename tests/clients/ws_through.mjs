// WebSockets through the gateway, before ws_server.mjs: ws_through.mjs PLAIN SECURE ROOT, with PACKAGES naming a node_modules. By
// HTTP/1.1 with the package ws, and by HTTP/2 (RFC 8441) with node's own http2, frame by frame.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import http2 from 'node:http2';
import { createRequire } from 'node:module';

const WebSocket = createRequire(`${process.env.PACKAGES}/`)('ws');
const [plain, secure, root] = process.argv.slice(2);
const ca = readFileSync(root);

async function byHttp1(url, options) {
  const socket = new WebSocket(url, { perMessageDeflate: true, ...options });
  await once(socket, 'open');
  for (const length of [0, 1, 125, 126, 65_535, 65_536, 300_000]) {
    socket.send(Buffer.alloc(length, 7));
    const [data] = await once(socket, 'message');
    assert.ok(data.equals(Buffer.alloc(length, 7)), `${length} bytes`);
  }
  socket.ping('there');
  assert.equal((await once(socket, 'pong'))[0].toString(), 'there');
  // The server's code and reason come as they are.
  socket.send('close 4321 enough');
  const [code, reason] = await once(socket, 'close');
  assert.deepEqual([code, reason.toString()], [4321, 'enough']);
  // And the client's own.
  const other = new WebSocket(url, options);
  await once(other, 'open');
  other.close(4000, 'bye');
  assert.equal((await once(other, 'close'))[0], 4000);
}

// A frame of a client, masked with zeros.
function frame(opcode, payload) {
  assert.ok(payload.length < 126);
  return Buffer.concat([Buffer.from([0x80 | opcode, 0x80 | payload.length, 0, 0, 0, 0]), payload]);
}

async function byHttp2(url, options) {
  const session = http2.connect(url, options);
  const [settings] = await once(session, 'remoteSettings');
  assert.equal(settings.enableConnectProtocol, true);
  const stream = session.request({
    ':method': 'CONNECT',
    ':protocol': 'websocket',
    ':path': '/echo',
    'sec-websocket-version': '13',
  });
  const [answer] = await once(stream, 'response');
  assert.equal(answer[':status'], 200);
  for (const text of ['hello', 'again', '']) {
    stream.write(frame(1, Buffer.from(text)));
    const expected = Buffer.concat([Buffer.from([0x81, text.length]), Buffer.from(text)]);
    let received = Buffer.alloc(0);
    while (received.length < expected.length) received = Buffer.concat([received, (await once(stream, 'data'))[0]]);
    assert.deepEqual(received, expected);
  }
  stream.end(frame(8, Buffer.from([0x03, 0xe8])));
  const [close] = await once(stream, 'data');
  assert.deepEqual(close, Buffer.from([0x88, 2, 0x03, 0xe8]));
  await once(stream, 'close');
  session.close();
}

await byHttp1(plain.replace('http', 'ws'), {});
await byHttp1(secure.replace('https', 'wss'), { ca });
await byHttp2(plain, {});
await byHttp2(secure, { ca });
