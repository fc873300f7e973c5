// A page in Chromium, through the gateway before the demo: page.mjs URL, with PACKAGES naming a node_modules. What it loads, a WebSocket and
// server-sent events included, goes over one connection of HTTP/2.
import assert from 'node:assert/strict';
import { createRequire } from 'node:module';

const { chromium } = createRequire(`${process.env.PACKAGES}/`)('playwright-core');
const [url] = process.argv.slice(2);
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  args: ['--no-sandbox', '--ignore-certificate-errors', '--no-proxy-server'],
});
try {
  const page = await (await browser.newContext({ ignoreHTTPSErrors: true })).newPage();
  await page.goto(`${url}/page`);
  assert.equal(await page.textContent('p'), 'a page');
  const protocols = await page.evaluate(async () => {
    const answer = await fetch('/users/7');
    await answer.text();
    return performance.getEntries().filter((entry) => entry.nextHopProtocol).map((entry) => entry.nextHopProtocol);
  });
  assert.ok(protocols.length >= 2 && protocols.every((protocol) => protocol === 'h2'), `${protocols}`);

  const echoes = await page.evaluate(
    (base) =>
      new Promise((resolve, reject) => {
        const socket = new WebSocket(`${base}/ws`);
        const received = [];
        socket.onopen = () => ['one', 'two', 'x'.repeat(100_000)].forEach((text) => socket.send(text));
        socket.onmessage = ({ data }) => {
          received.push(data.length);
          if (received.length === 3) socket.close(1000, 'enough');
        };
        socket.onerror = () => reject(new Error('the socket failed'));
        socket.onclose = ({ code, wasClean }) => resolve({ received, code, wasClean });
      }),
    url.replace('https', 'wss'),
  );
  assert.deepEqual(echoes, { received: [3, 3, 100_000], code: 1000, wasClean: true });

  const events = await page.evaluate(
    () =>
      new Promise((resolve, reject) => {
        const source = new EventSource('/events');
        const received = [];
        source.onmessage = ({ data }) => {
          received.push(data);
          if (received.length === 3) {
            source.close();
            resolve(received);
          }
        };
        source.onerror = () => reject(new Error('the events failed'));
      }),
  );
  assert.equal(events.length, 3);
} finally {
  await browser.close();
}
