// An echo by node's ws, for the gateway to stand before. It prints its port, and ends with its standard input. PACKAGES names a
// node_modules.
import { createRequire } from 'node:module';

const { WebSocketServer } = createRequire(`${process.env.PACKAGES}/`)('ws');
const server = new WebSocketServer({ host: '127.0.0.1', port: 0, perMessageDeflate: true, maxPayload: 64 << 20 }, () =>
  console.log(server.address().port),
);
server.on('connection', (socket) => {
  socket.on('message', (data, isBinary) => {
    // As it asks, with a code and a reason of its own choice.
    const asked = !isBinary && /^close (\d+) (.*)$/.exec(data.toString());
    if (asked) socket.close(Number(asked[1]), asked[2]);
    else socket.send(data, { binary: isBinary });
  });
  socket.on('error', () => {});
});
process.stdin.resume().on('end', () => process.exit(0));
