import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { request as httpRequest, type IncomingMessage } from 'node:http';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { gzipSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { createDeadLetters, createDeadLetterWorker } from '../../src/processors/dead-letter.ts';
import { createIngestWorker } from '../../src/processors/ingest.ts';
import { createBoardUnderTest, type BoardUnderTest } from '../browser/board-under-test.ts';

const PASSWORD = 'correct horse battery';
const authorization = `Basic ${Buffer.from(`admin:${PASSWORD}`).toString('base64')}`;
const OWN_JSON = { 'sec-fetch-site': 'same-origin', 'content-type': 'application/json' };
const ADD = '/board/api/queues/ingest/add';

let folder: string;
let board: BoardUnderTest;
let open: BoardUnderTest;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'attacks-'));
  const guarded = createBoardUnderTest({ BOARD_PASSWORD: PASSWORD, DATA_DIR: folder });
  [board, open] = await Promise.all([guarded, createBoardUnderTest()]);
});
afterAll(async () => {
  await Promise.all([board.close(), open.close()]);
  await rm(folder, { recursive: true });
});

interface Sent {
  readonly method?: string;
  readonly headers?: Record<string, string>;
  readonly body?: string;
  readonly anonymous?: boolean;
}

/** Sends a request just as it is, by default as somebody who knows the password. */
async function send(path: string, { method = 'GET', headers = {}, body, anonymous = false }: Sent = {}, to = board) {
  const { hostname, port } = new URL(to.url);
  const all = anonymous ? headers : { authorization, ...headers };
  const request = httpRequest({ hostname, port, path, method, headers: all, agent: false });
  request.on('error', () => undefined);
  request.end(body);
  const [response]: IncomingMessage[] = await once(request, 'response');
  if (response?.statusCode === undefined) throw new Error('no answer');
  const answer = { status: response.statusCode, headers: response.headers, text: await text(response) };
  // Whatever was asked for, nobody learns what the program looks like inside.
  expect(answer.text).not.toMatch(/node_modules|\bat .*[/(]\S+:\d+|ReplyError|Error:/);
  expect(answer.headers).not.toHaveProperty('x-powered-by');
  return answer;
}

/** Writes bytes to the board and resolves to all that it says until it closes the connection. */
async function sendBytes(
  bytes: string | Buffer,
  everyMs?: { ms: number; drop: string },
): Promise<{ said: string; ms: number }> {
  const started = performance.now();
  const socket = connect(Number(new URL(board.url).port), '127.0.0.1');
  socket.on('error', () => undefined);
  socket.write(bytes);
  const timer = everyMs && setInterval(() => socket.writable && socket.write(everyMs.drop), everyMs.ms);
  let said = '';
  socket.on('data', (chunk: Buffer) => (said += chunk.toString()));
  await once(socket, 'close');
  clearInterval(timer);
  return { said, ms: performance.now() - started };
}

const jobs = () => board.ingestQueue.getJobCountByTypes('waiting', 'delayed', 'active', 'prioritized', 'failed');

describe('a page of another site, in the browser of somebody who is logged in,', () => {
  const job = JSON.stringify({ name: 'forged', data: { name: 'x', size: 1, mtimeNs: '1' }, options: { delay: 1e7 } });
  const site = (value: string) => ({ 'sec-fetch-site': value });
  const form = { 'content-type': 'application/x-www-form-urlencoded' };
  const json = { 'content-type': 'application/json' };

  it.each<[string, string, Sent]>([
    ['posts a form', 'POST', { headers: { ...site('cross-site'), ...form }, body: 'name=forged&data[name]=x' }],
    [
      'posts a form with a body that is also JSON',
      'POST',
      { headers: { origin: 'https://evil.example', ...form }, body: job },
    ],
    ['sends JSON as text', 'POST', { headers: { ...site('cross-site'), 'content-type': 'text/plain' }, body: job }],
    ['sends JSON without saying so', 'POST', { headers: site('cross-site'), body: job }],
    ['sends JSON from a sandboxed frame', 'POST', { headers: { origin: 'null', ...json }, body: job }],
    [
      'sends JSON from a sandboxed frame of a new browser',
      'POST',
      { headers: { origin: 'null', ...site('cross-site'), ...json }, body: job },
    ],
    ['sends JSON from another port of this machine', 'POST', { headers: { ...site('same-site'), ...json }, body: job }],
    [
      'sends JSON from a name that begins like ours',
      'POST',
      { headers: { origin: 'http://127.0.0.1.evil.example', ...json }, body: job },
    ],
    ['sends JSON with a method of its own', 'post', { headers: { ...site('cross-site'), ...json }, body: job }],
    ['sends nothing at all', 'POST', { headers: site('cross-site') }],
    ['opens a window on it', 'POST', { headers: { ...site('none'), ...json }, body: job }],
  ])('%s: no job is made', async (_what, method, sent) => {
    expect((await send(ADD, { ...sent, method })).status).toBeGreaterThanOrEqual(400);
    expect(await jobs()).toBe(0);
  });

  it.each(['PUT', 'PATCH', 'DELETE', 'OPTIONS', 'PROPFIND'])('may not use %s, whatever it is for', async (method) => {
    for (const path of ['/', '/metrics', '/board/api/queues/ingest/pause', '/board/api/queues/ingest/clean/failed']) {
      expect((await send(path, { method, headers: { origin: 'https://evil.example' } })).status, path).toBe(403);
    }
    expect(await board.ingestQueue.isPaused()).toBe(false);
  });

  it('cannot make it change something by a GET', async () => {
    const queue = '/board/api/queues/ingest';
    for (const path of [`${queue}/pause`, `${queue}/empty`, `${queue}/clean/failed`, `${queue}/obliterate`, ADD]) {
      expect((await send(path, { headers: site('cross-site') })).status, path).toBe(404);
      const overridden = { ...site('cross-site'), 'x-http-method-override': 'PUT', 'x-method-override': 'PUT' };
      expect((await send(`${path}?_method=PUT`, { headers: overridden })).status, path).toBe(404);
    }
    expect(await board.ingestQueue.isPaused()).toBe(false);
  });

  it('cannot read an answer, nor show the board in a frame of its own', async () => {
    for (const path of ['/', '/board', '/metrics', '/board/api/queues', '/healthz', '/nothing']) {
      const { headers } = await send(path, { headers: { origin: 'https://evil.example' } });
      expect(headers, path).not.toHaveProperty('access-control-allow-origin');
      expect(headers, path).toMatchObject({
        'content-security-policy': expect.stringMatching(/default-src 'self'.*frame-ancestors 'none'/),
        'x-frame-options': 'SAMEORIGIN',
        'x-content-type-options': 'nosniff',
        'cross-origin-resource-policy': 'same-origin',
        'cross-origin-opener-policy': 'same-origin',
        'referrer-policy': 'same-origin',
      });
      expect(headers['content-security-policy']).not.toMatch(/script-src [^;]*(unsafe|\*|https?:)/);
    }
  });

  it('whose name was made to lead to this machine gets nothing from a board without a password', async () => {
    const names = ['evil.example', 'evil.example:3000', '127.0.0.1.evil.example', 'localhost.', '0x7f.1', '2130706433'];
    for (const host of names) {
      for (const path of ['/', '/metrics', '/board', '/board/api/queues']) {
        expect((await send(path, { headers: { host }, anonymous: true }, open)).status, `${host} ${path}`).toBe(421);
      }
      const sent = {
        method: 'POST',
        headers: { host, origin: `http://${host}`, ...OWN_JSON },
        body: job,
        anonymous: true,
      };
      expect((await send(ADD, sent, open)).status, host).toBe(421);
    }
    expect(await open.ingestQueue.count()).toBe(0);
  });
});

describe('a path', () => {
  const tricks = [
    '/board/../metrics',
    '/board/static/../../metrics',
    '//board/api/queues',
    '///metrics',
    '/board//api/queues',
    '/healthz/../board/api/queues',
    '/healthz/..;/metrics',
    '/%62oard/api/queues',
    '/board%2fapi%2fqueues',
    '/healthz%2f..%2f..%2fmetrics',
    '/healthz%00/../metrics',
    '/healthz\\..\\metrics',
    '/BOARD/API/QUEUES',
    '/board/api/queues/%2e%2e%2fqueues',
    '/board/static/%2e%2e/%2e%2e/%2e%2e/etc/passwd',
    '/board/static/..%252f..%252f..%252fetc/passwd',
    'http://elsewhere.example/metrics',
  ];

  it.each(tricks)('%s shows nothing without the password', async (path) => {
    const answer = await send(path, { anonymous: true });
    expect(answer.status).toBe(401);
    expect(answer.text).toBe('The board needs its user name and password.\n');
  });

  it.each(tricks)('%s leads to no file of this machine', async (path) => {
    const answer = await send(path);
    expect(answer.text).not.toMatch(/root:|"dependencies"/);
    expect(answer.status).toBeLessThan(500);
  });

  it.each(['/%', '/board/%ff', '/board/api/queues/%E0%A4%A', `/${'a'.repeat(10_000)}`, '/board/api/queues/__proto__'])(
    'that is malformed is the fault of the client: %#',
    async (path) => {
      const { status } = await send(path);
      expect(status).toBeGreaterThanOrEqual(400);
      expect(status).toBeLessThan(500);
    },
  );
});

describe('a job that is added through Bull Board', () => {
  const add = (data: unknown, more: object = {}) =>
    send(ADD, {
      method: 'POST',
      headers: OWN_JSON,
      body: JSON.stringify({ name: 'by hand', data, options: {}, ...more }),
    });

  it('loads nothing from outside the folder, whatever its name, and ends as a dead letter', async () => {
    const names = [
      '/etc/passwd',
      '../vehicles_events_1.json',
      'a/../../vehicles_events_1.json',
      '..\\vehicles_events_1.json',
      './../vehicles_events_1.json',
      '/proc/self/environ',
      'vehicles_events_\0.json',
      `${'deep/'.repeat(800)}vehicles_events_1.json`,
      `vehicles_events_${'x'.repeat(300)}.json`,
      'vehicles_events_missing.json/',
      '%2e%2e/vehicles_events_1.json',
      '',
    ];
    const strange = [
      null,
      [],
      'text',
      { name: 1 },
      { name: 'vehicles_events_1.json', size: -1, mtimeNs: 'x' },
      { __proto__: [] },
    ];
    const ingest = createIngestWorker({ ...board.workerNeeds, config: { ...board.config, INGEST_ATTEMPTS: 1 } });
    const letters = createDeadLetters(board.workerNeeds);
    const letterWorker = createDeadLetterWorker(board.workerNeeds);
    ingest.on('failed', letters.onFailed);
    onTestFinished(async () => {
      await ingest.close();
      await letters.close();
      await letterWorker.close();
    });
    let taken = 0;
    for (const data of [...names.map((name) => ({ name, size: 1, mtimeNs: '1' })), ...strange]) {
      const { status } = await add(data);
      expect(status, JSON.stringify(data)).toBeLessThan(500);
      if (status === 200) taken += 1;
    }
    expect(taken).toBeGreaterThanOrEqual(names.length);
    await expect.poll(jobs).toBe(0);
    await expect.poll(() => board.deadLetterQueue.getFailedCount()).toBe(taken);
    const failed = await board.deadLetterQueue.getFailed();
    for (const { data } of failed) {
      expect(data.reason).toMatch(
        /below the data folder|not a file version|no kind of file|not in the data folder|path is too long|cannot be opened/i,
      );
    }
    expect((await board.store.run('SELECT vehicle_id FROM vehicle_events')).first()).toBeNull();
  });

  it('may not be huge, nor nested without end', async () => {
    const before = await jobs();
    const large = { name: 'x'.repeat(70_000), size: 1, mtimeNs: '1' };
    expect((await add(large)).status).toBe(413);
    const nested = `{"name":"by hand","options":{},"data":${'['.repeat(20_000)}${']'.repeat(20_000)}}`;
    // From Node 26 on, JSON of any depth can be written; as a job it is one of no file.
    const isTaken = Number.parseInt(process.versions.node, 10) >= 26;
    const { status } = await send(ADD, { method: 'POST', headers: OWN_JSON, body: nested });
    expect(status >= 400).toBe(!isTaken);
    expect(await jobs()).toBe(before + (isTaken ? 1 : 0));
    expect((await send('/readyz')).status).toBe(200);
  });
});

describe('a client that is wasteful', () => {
  const request = (...lines: string[]) => `${lines.join('\r\n')}\r\n`;

  it('sends too large a header: it is refused', async () => {
    const { said } = await sendBytes(
      `${request('GET / HTTP/1.1', 'Host: localhost', `X-Large: ${'x'.repeat(64_000)}`)}\r\n`,
    );
    expect(said).toMatch(/^HTTP\/1\.1 431 /);
  });

  it('announces a body of a gigabyte: it is refused before it is sent', async () => {
    const head = request(
      'POST /board/api/queues/ingest/add HTTP/1.1',
      'Host: localhost',
      `Authorization: ${authorization}`,
      'Content-Type: application/json',
      'Content-Length: 1000000000',
      'Connection: close',
      '',
    );
    const { said } = await sendBytes(head);
    expect(said).toMatch(/^HTTP\/1\.1 413 /);
  });

  it('sends a compressed body that expands: it is refused', async () => {
    const bomb = gzipSync(JSON.stringify({ name: 'x'.repeat(10_000_000) }));
    const head = request(
      'POST /board/api/queues/ingest/add HTTP/1.1',
      'Host: localhost',
      `Authorization: ${authorization}`,
      'Content-Type: application/json',
      'Content-Encoding: gzip',
      `Content-Length: ${bomb.length}`,
      'Connection: close',
      '',
    );
    const { said } = await sendBytes(Buffer.concat([Buffer.from(head), bomb]));
    expect(said).toMatch(/^HTTP\/1\.1 413 /);
  });

  it.concurrent('sends its headers drop by drop: it is cut off', async () => {
    const { said, ms } = await sendBytes(request('GET / HTTP/1.1', 'Host: localhost'), {
      ms: 500,
      drop: 'X-More: 1\r\n',
    });
    expect(said).toMatch(/^(HTTP\/1\.1 408 |$)/);
    expect(ms).toBeGreaterThan(4_000);
    // It would go on for ever.
    expect(ms).toBeLessThan(60_000);
  });

  it.concurrent('sends its body drop by drop: it is cut off', async () => {
    const head = request(
      'POST /board/api/queues/ingest/add HTTP/1.1',
      'Host: localhost',
      `Authorization: ${authorization}`,
      'Content-Type: application/json',
      'Content-Length: 60000',
      '',
    );
    const { said, ms } = await sendBytes(head, { ms: 500, drop: ' ' });
    expect(said).toMatch(/^(HTTP\/1\.1 408 |$)/);
    expect(ms).toBeGreaterThan(9_000);
    expect(ms).toBeLessThan(60_000);
  });

  it.each([
    ['two lengths', ['Content-Length: 5', 'Content-Length: 6']],
    ['a length and chunks', ['Content-Length: 5', 'Transfer-Encoding: chunked']],
    ['an unknown transfer', ['Transfer-Encoding: chunked, identity']],
  ])('smuggles a request by %s: it is refused', async (_what, headers) => {
    const smuggled = request('GET /metrics HTTP/1.1', `Authorization: ${authorization}`, 'Host: localhost', '');
    const { said } = await sendBytes(
      `${request('POST / HTTP/1.1', 'Host: localhost', ...headers, '')}0\r\n\r\n${smuggled}`,
    );
    expect(said).toMatch(/^HTTP\/1\.1 400 /);
    expect(said).not.toContain('process_cpu');
  });
});
