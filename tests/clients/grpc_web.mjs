// The official client of gRPC-Web through the gateway, on node: grpc_web.mjs URL FORMAT, with PACKAGES naming a node_modules. FORMAT
// is `text` or `binary`. The server is grpc_server.py; messages are bytes.
import assert from 'node:assert/strict';
import { createRequire } from 'node:module';

const require = createRequire(`${process.env.PACKAGES}/`);
globalThis.XMLHttpRequest = require('xhr2');
const { GrpcWebClientBase, MethodDescriptor, MethodType, StatusCode } = require('grpc-web');

const [url, format] = process.argv.slice(2);
const client = new GrpcWebClientBase({ format });

class Bytes {}

function method(name, type) {
  return new MethodDescriptor(`/test.Echo/${name}`, type, Bytes, Bytes, (request) => request, (response) => response);
}

function unary(name, request, metadata = {}) {
  const { promise, resolve, reject } = deferred();
  const told = {};
  const call = client.rpcCall(`${url}/test.Echo/${name}`, request, metadata, method(name, MethodType.UNARY), (error, response) =>
    error ? reject(error) : resolve({ response: Buffer.from(response), ...told }),
  );
  call.on('metadata', (initial) => Object.assign(told, { initial }));
  call.on('status', (status) => Object.assign(told, { status }));
  return promise;
}

function deferred() {
  const parts = {};
  parts.promise = new Promise((resolve, reject) => Object.assign(parts, { resolve, reject }));
  return parts;
}

async function messages() {
  for (const length of [0, 1, 2, 3, 4, 100, 16_384, 65_537, 300_000]) {
    const request = new Uint8Array(length).map((_, at) => at % 251);
    const { response } = await unary('Unary', request);
    assert.deepEqual(response, Buffer.from(request), `${length} bytes`);
  }
}

async function metadata() {
  const { initial } = await unary('Unary', new Uint8Array([1]), { 'x-ask': 'who' });
  assert.equal(initial['x-initial'], 'who');
}

async function errors() {
  const failed = await unary('Fails', new Uint8Array()).then(assert.fail, (error) => error);
  assert.equal(failed.code, StatusCode.FAILED_PRECONDITION);
  assert.equal(failed.metadata['x-why'], 'because');
  const unknown = await unary('Nothing', new Uint8Array()).then(assert.fail, (error) => error);
  assert.equal(unknown.code, StatusCode.UNIMPLEMENTED);
}

async function deadline() {
  const late = await unary('Silent', new Uint8Array(), { deadline: String(Date.now() + 300) }).then(assert.fail, (error) => error);
  assert.equal(late.code, StatusCode.DEADLINE_EXCEEDED);
}

function download(count, size) {
  const { promise, resolve, reject } = deferred();
  const received = [];
  const name = 'Download';
  const stream = client.serverStreaming(`${url}/test.Echo/${name}`, Buffer.from(`${count} ${size}`), {}, method(name, MethodType.SERVER_STREAMING));
  stream.on('data', (message) => received.push(Buffer.from(message)));
  stream.on('error', reject);
  stream.on('end', () => resolve(received));
  return promise;
}

async function streams() {
  const received = await download(20, 1000);
  assert.equal(received.length, 20);
  received.forEach((message, at) => assert.deepEqual(message, Buffer.alloc(1000, at % 251)));
}

await messages();
await metadata();
await errors();
await deadline();
// In binary the client has streams of the server only as a whole, and says so by taking none.
if (format === 'text') await streams();
