import { once } from 'node:events';
import { request as httpRequest, type IncomingMessage } from 'node:http';
import { connect, createServer } from 'node:net';
import type { Worker } from 'bullmq';
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { createBoard, listen } from '../../src/board/server.ts';
import { UsageError } from '../../src/config.ts';
import { createDeadLetters, createDeadLetterWorker } from '../../src/processors/dead-letter.ts';
import { createIngestWorker } from '../../src/processors/ingest.ts';
import { ingestJobId } from '../../src/queues/ingest.ts';
import { readVersions } from '../../src/storage/files.ts';
import { createBoardUnderTest, type BoardUnderTest } from '../browser/board-under-test.ts';

const PASSWORD = 'a password of the test';
const RIGHT = `Basic ${Buffer.from(`admin:${PASSWORD}`).toString('base64')}`;
const JSON_BODY = { 'content-type': 'application/json' };

interface Answer {
  readonly status: number;
  readonly headers: Record<string, string | string[] | undefined>;
  readonly text: string;
}

/** A request just as it is given: fetch would mend paths, and sets Host and Sec-Fetch-Site itself. */
async function send(
  board: { readonly url: string },
  path: string,
  { method = 'GET', headers = {}, body }: { method?: string; headers?: Record<string, string>; body?: string } = {},
): Promise<Answer> {
  const { hostname, port } = new URL(board.url);
  const request = httpRequest({ hostname, port, path, method, headers, agent: false });
  request.on('error', () => undefined);
  request.end(body);
  const [response]: IncomingMessage[] = await once(request, 'response');
  if (response?.statusCode === undefined) throw new Error('no answer');
  let text = '';
  for await (const chunk of response) text += String(chunk);
  return { status: response.statusCode, headers: response.headers, text };
}

describe('the board without a password, on loopback', () => {
  let board: BoardUnderTest;
  let letterWorker: Worker;
  beforeAll(async () => {
    board = await createBoardUnderTest();
    letterWorker = createDeadLetterWorker(board.workerNeeds);
  });
  afterAll(async () => {
    await letterWorker.close();
    await board.close();
  });

  const add = '/board/api/queues/ingest/add';
  const job = JSON.stringify({
    name: 'from elsewhere',
    data: { name: 'x', size: 1, mtimeNs: '1' },
    options: { delay: 1e7 },
  });
  const ingestJobs = () => board.ingestQueue.getJobCountByTypes('waiting', 'delayed', 'active', 'failed');

  it.each([
    ['a form of another site', { 'sec-fetch-site': 'cross-site', 'content-type': 'application/x-www-form-urlencoded' }],
    ['a script of another site', { 'sec-fetch-site': 'cross-site', origin: 'https://evil.example', ...JSON_BODY }],
    ['a page of another port', { 'sec-fetch-site': 'same-site', ...JSON_BODY }],
    ['an old browser on another site', { origin: 'https://evil.example', ...JSON_BODY }],
    ['a sandboxed frame', { origin: 'null', ...JSON_BODY }],
    ['an origin that is no address', { origin: 'board', ...JSON_BODY }],
  ])('refuses what %s sends', async (_who, headers) => {
    const answer = await send(board, add, { method: 'POST', headers, body: job });
    expect(answer.status).toBe(403);
    expect(await ingestJobs()).toBe(0);
  });

  it.each([
    ['form fields', 'application/x-www-form-urlencoded', 'name=a&data[name]=b', 415],
    ['text', 'text/plain', job, 415],
    ['a file', 'multipart/form-data; boundary=x', job, 415],
    ['JSON that is too long', 'application/json', JSON.stringify({ name: 'x'.repeat(100_000) }), 413],
    ['JSON that is none', 'application/json', '{"name":', 400],
  ])('does not take %s', async (_what, type, body, status) => {
    const headers = { 'sec-fetch-site': 'same-origin', 'content-type': type };
    const answer = await send(board, add, { method: 'POST', headers, body });
    expect(answer.status).toBe(status);
    expect(answer.text).not.toMatch(/node_modules|\bat .*:\d+/);
    expect(await ingestJobs()).toBe(0);
  });

  it('answers only under the names of this machine, so that no foreign name can be pointed at it', async () => {
    for (const host of ['evil.example', 'localhost.evil.example', '127.0.0.1.evil.example:80', 'a b', '@localhost@']) {
      expect((await send(board, '/', { headers: { host } })).status, host).toBe(421);
    }
    for (const host of ['localhost', 'LOCALHOST:99', '127.0.0.1', '[::1]:3000']) {
      expect((await send(board, '/', { headers: { host } })).status, host).toBe(200);
    }
  });

  it('takes jobs by hand from its own page and from programs, and loads nothing from outside the folder', async () => {
    const ingest = createIngestWorker(board.workerNeeds);
    const letters = createDeadLetters(board.workerNeeds);
    ingest.on('failed', letters.onFailed);
    onTestFinished(async () => {
      await ingest.close();
      await letters.close();
    });
    const origins = [{ 'sec-fetch-site': 'same-origin' }, { origin: board.url }, {}];
    const paths = ['/etc/passwd', '../outside.json', 'a/../../outside.json'];
    for (const [index, name] of paths.entries()) {
      const data = { name, size: 1, mtimeNs: '1' };
      const body = JSON.stringify({ name: `by hand ${index}`, data, options: {} });
      const answer = await send(board, add, { method: 'POST', headers: { ...JSON_BODY, ...origins[index] }, body });
      expect(answer.status).toBe(200);
    }
    await expect.poll(() => board.deadLetterQueue.getFailedCount()).toBe(paths.length);
    const failed = await board.deadLetterQueue.getFailed();
    const names = [0, 1, 2].map((n) => expect.stringMatching(new RegExp(`^by hand ${n} \\(job \\w+\\)$`)) as unknown);
    expect(failed.map(({ name }) => name).sort()).toEqual(names);
    for (const { data } of failed) expect(data.reason).toContain('below the data folder');
    for (const letter of failed) await letter.remove();
  });

  it.each([
    ['taking a queue away', 'PUT', 'ingest/obliterate', '{"force":true}'],
    ['overlapping runs', 'PUT', 'aggregation/concurrency', '{"concurrency":5}'],
    ['removing the schedule', 'PUT', 'aggregation/job-schedulers/any/remove', undefined],
    ['putting off the next run', 'PATCH', 'aggregation/any/delay', '{"runAt":4102444800000}'],
    ['putting off a slice, for which its run waits', 'PATCH', 'aggregation-slice/any/delay', '{"runAt":4102444800000}'],
    ['changing a job', 'PATCH', 'ingest/any/update-data', '{"jobData":{}}'],
  ])('refuses %s, with the reason', async (_what, method, path, body) => {
    const headers = { 'sec-fetch-site': 'same-origin', ...(body === undefined ? {} : JSON_BODY) };
    const answer = await send(board, `/board/api/queues/${path}`, {
      method,
      headers,
      ...(body === undefined ? {} : { body }),
    });
    expect(answer.status).toBe(403);
    expect(JSON.parse(answer.text)).toMatchObject({ message: expect.stringMatching(/^.{30,}\.$/) });
  });

  it('gives a dead letter up for good when it is removed, one or all', async () => {
    const headers = { 'sec-fetch-site': 'same-origin' };
    const files = ['one', 'two', 'three'].map((name) => ({ name: `events_${name}.json`, size: 10, mtimeNs: '20' }));
    for (const file of files) await board.addLetter(file, 'not JSON');
    await expect.poll(() => board.deadLetterQueue.getFailedCount()).toBe(3);
    const states = () =>
      Promise.all(files.map(async ({ name }) => (await readVersions(board.store, name)).map(({ state }) => state)));

    const [first = { name: '', size: 0, mtimeNs: '' }] = files;
    const one = await send(board, `/board/api/queues/dead-letter/${ingestJobId(first)}/clean`, {
      method: 'PUT',
      headers,
    });
    expect(one.status).toBe(204);
    expect(await states()).toEqual([['discarded'], ['dead_letter'], ['dead_letter']]);
    expect(await board.deadLetterQueue.getFailedCount()).toBe(2);

    const cleanAll = async () => {
      const all = await send(board, '/board/api/queues/dead-letter/clean/failed', { method: 'PUT', headers });
      expect(all.status).toBe(200);
      return board.deadLetterQueue.getFailedCount();
    };
    // Bull Board leaves what failed in the last five seconds.
    await expect.poll(cleanAll, { interval: 500 }).toBe(0);
    expect(await states()).toEqual([['discarded'], ['discarded'], ['discarded']]);
  });

  it('shows hostile names as text', async () => {
    const name = `"><img src=x onerror=alert(1)>'&.json`;
    await board.addLetter({ name, size: 1, mtimeNs: '1' }, '<script>alert(2)</script>');
    await expect.poll(async () => (await send(board, '/')).text).toContain('alert(2)');
    const { text, headers } = await send(board, '/');
    expect(text).toContain('&#34;&#62;&#60;img src=x onerror=alert(1)&#62;&#39;&#38;.json');
    expect(text).toContain('&#60;script&#62;alert(2)&#60;/script&#62;');
    expect(text).not.toMatch(/<img|<script/);
    expect(headers).toMatchObject({
      'content-security-policy': expect.stringContaining("script-src 'self'"),
      'x-content-type-options': 'nosniff',
    });
    expect(headers).not.toHaveProperty('x-powered-by');
    expect((await send(board, '/board')).headers).not.toHaveProperty('x-powered-by');
  });

  it('prints metrics that a strict reader takes', async () => {
    const bounds = ['0.05', '0.1', '10', '+Inf'];
    for (const bound of bounds) board.counters.add(`file_to_rows_seconds_bucket{le="${bound}"}`, 1);
    board.counters.add('file_to_rows_seconds_sum', 0.04);
    board.counters.add('file_to_rows_seconds_count', 1);
    board.counters.add('records_loaded_total{dataset="events"}', 99);
    board.counters.add('not a metric\n{', 1);
    let metrics = new Map<string, Metric>();
    await expect
      .poll(async () => {
        const answer = await send(board, '/metrics');
        expect(answer.headers['content-type']).toBe('text/plain; version=0.0.4; charset=utf-8');
        metrics = parseMetrics(answer.text);
        return metrics.get('vehicle_data_records_loaded_total')?.samples;
      })
      .toEqual(['vehicle_data_records_loaded_total{dataset="events"} 99']);
    expect(metrics.get('vehicle_data_file_to_rows_seconds')).toMatchObject({
      type: 'histogram',
      samples: expect.arrayContaining(bounds.map((le) => `vehicle_data_file_to_rows_seconds_bucket{le="${le}"} 1`)),
    });
    expect(metrics.get('bullmq_job_count')?.samples.filter((sample) => sample.includes('state="failed"'))).toHaveLength(
      5,
    );
    for (const name of ['watermark_lag_seconds', 'dead_letters', 'queued_files', 'clock_skew_seconds', 'workers']) {
      expect(metrics.get(`vehicle_data_${name}`), name).toMatchObject({ type: 'gauge', samples: [expect.any(String)] });
    }
    expect(metrics.get('process_resident_memory_bytes')?.type).toBe('gauge');
  });

  it.each(['cut', 'frozen'] as const)(
    'says which store is away, and renders, while the way to it is %s',
    async (how) => {
      await expect.poll(async () => (await send(board, '/readyz')).status).toBe(200);
      const all = async () => {
        const started = performance.now();
        const [ready, page, metrics, health] = await Promise.all(
          ['/readyz', '/', '/metrics', '/healthz'].map((path) => send(board, path)),
        );
        // A store is given two seconds.
        expect(performance.now() - started).toBeLessThan(10_000);
        expect([page?.status, metrics?.status, health?.status]).toEqual([200, 200, 200]);
        parseMetrics(metrics?.text ?? '');
        return { ready, page: page?.text };
      };

      board.redisWay.set(how);
      const withoutRedis = await all();
      expect(withoutRedis.ready).toMatchObject({ status: 503, text: '{"redis":"away","cassandra":"ok"}' });
      expect(withoutRedis.page).toContain('Redis is <strong>away');
      expect(withoutRedis.page).toContain('Cassandra answers');
      board.redisWay.set('open');
      await expect.poll(async () => (await send(board, '/readyz')).status).toBe(200);

      board.cassandraWay.set(how);
      const withoutCassandra = await all();
      expect(withoutCassandra.ready).toMatchObject({ status: 503, text: '{"redis":"ok","cassandra":"away"}' });
      expect(withoutCassandra.page).toContain('Cassandra is <strong>away');
      board.cassandraWay.set('open');
      await expect.poll(async () => (await send(board, '/readyz')).status).toBe(200);
      await expect.poll(async () => (await send(board, '/')).text).toContain('Cassandra answers');
    },
  );

  it('needs a password on any other address', () => {
    for (const BOARD_HOST of ['0.0.0.0', '::', '192.0.2.1', 'board.example']) {
      const config = { ...board.config, BOARD_HOST };
      expect(() => createBoard({ ...board, config }), BOARD_HOST).toThrow(UsageError);
    }
  });

  it('names BOARD_PORT when its port is taken', async () => {
    const other = createServer().listen(0, '127.0.0.1');
    await once(other, 'listening');
    onTestFinished(() => void other.close());
    const address = other.address();
    const BOARD_PORT = typeof address === 'object' && address !== null ? address.port : 0;
    const starting = listen(createBoard(board), { BOARD_HOST: '127.0.0.1', BOARD_PORT });
    await expect(starting).rejects.toThrow(UsageError);
    await expect(starting).rejects.toThrow(/address already in use 127\.0\.0\.1:\d+.*BOARD_PORT/);
  });
});

describe('the board with a password', () => {
  let board: BoardUnderTest;
  beforeAll(async () => {
    board = await createBoardUnderTest({ BOARD_PASSWORD: PASSWORD });
  });
  afterAll(() => board.close());

  it('shows nothing without it but whether it lives', async () => {
    for (const path of ['/healthz', '/readyz']) expect((await send(board, path)).status, path).toBe(200);
    for (const path of ['/', '/metrics', '/board', '/board/api/queues', '/nothing']) {
      const answer = await send(board, path);
      expect(answer.status, path).toBe(401);
      expect(answer.headers['www-authenticate']).toMatch(/^Basic /);
      expect((await send(board, path, { headers: { authorization: RIGHT } })).status, path).not.toBe(401);
    }
  });

  it.each([
    '//metrics',
    '/METRICS',
    '/healthz/../metrics',
    '/healthz/..%2fmetrics',
    '/healthz%2f..%2fmetrics',
    '/%2e%2e/metrics',
    '/readyz;/metrics',
    '/healthz/metrics',
    '/board/static/../api/queues',
    '/board/static/..%2f..%2f..%2fpackage.json',
    'http://127.0.0.1/metrics',
    '/board/api/queues?x=/healthz',
  ])('cannot be passed by the path %s', async (path) => {
    expect((await send(board, path)).status).toBe(401);
  });

  it.each([
    '/board/static/..%2f..%2fpackage.json',
    '/board/static/../../package.json',
    '/board/%2e%2e/%2e%2e/package.json',
  ])('gives no file outside its own at %s', async (path) => {
    const answer = await send(board, path, { headers: { authorization: RIGHT } });
    expect(answer.text).not.toContain('"version"');
  });

  it('can be reached by any name, for a proxy before it', async () => {
    expect((await send(board, '/', { headers: { host: 'board.example', authorization: RIGHT } })).status).toBe(200);
  });

  /** A board that believes these proxies: what it answers to whom a proxy names, and a login. */
  async function tryBehind(proxies: string | number) {
    const config = { ...board.config, BOARD_PROXIES: proxies };
    const { url, close } = await listen(createBoard({ ...board, config }), { BOARD_HOST: '127.0.0.1', BOARD_PORT: 0 });
    onTestFinished(async () => {
      await close();
    });
    return async (addresses: string, authorization: string) =>
      (await send({ url }, '/metrics', { headers: { authorization, 'x-forwarded-for': addresses } })).status;
  }

  it('tells apart whose requests a proxy passes on', async () => {
    const tryWith = async (address: string, authorization: string) =>
      (await send(board, '/metrics', { headers: { authorization, 'x-forwarded-for': address } })).status;
    for (let guess = 0; guess < 10; guess += 1) expect(await tryWith('203.0.113.1', 'Basic eDp5')).toBe(401);
    expect(await tryWith('203.0.113.1', RIGHT)).toBe(429);
    expect(await tryWith('203.0.113.2', RIGHT)).toBe(200);
  });

  it('believes only the proxies that it is told of', async () => {
    const tryWith = await tryBehind('192.0.2.1');
    for (let guess = 0; guess < 10; guess += 1) expect(await tryWith('203.0.113.1', 'Basic eDp5')).toBe(401);
    expect(await tryWith('203.0.113.2', RIGHT)).toBe(429);
  });

  it('believes no more of a proxy than that one', async () => {
    const tryWith = await tryBehind(1);
    // What the client says of itself comes before what the proxy adds.
    for (let guess = 0; guess < 10; guess += 1)
      expect(await tryWith(`203.0.113.${guess}, 192.168.1.7`, 'Basic eDp5')).toBe(401);
    expect(await tryWith('203.0.113.99, 192.168.1.7', RIGHT)).toBe(429);
    expect(await tryWith('203.0.113.99, 192.168.1.8', RIGHT)).toBe(200);
  });

  it('does not tell which of many guesses at once is right', async () => {
    const { hostname, port } = new URL(board.url);
    const guess = (authorization: string, more = '') =>
      `GET /metrics HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 203.0.113.3\r\nAuthorization: ${authorization}\r\n${more}\r\n`;
    const socket = connect(Number(port), hostname);
    socket.write(guess('Basic eDp5').repeat(50) + guess(RIGHT, 'Connection: close\r\n'));
    let text = '';
    for await (const chunk of socket) text += String(chunk);
    const statuses = text.match(/^HTTP\/1\.1 \d+/gm)?.map((line) => line.slice(-3));
    expect(statuses).toHaveLength(51);
    expect(statuses).not.toContain('200');
  });

  it('limits wrong passwords, and only those', async () => {
    const tryWith = async (authorization: string) =>
      (await send(board, '/metrics', { headers: { authorization } })).status;
    const wrong = ['admin:wrong', `root:${PASSWORD}`, 'admin:', ':', 'admin', `admin:${PASSWORD} `].map(
      (text) => `Basic ${Buffer.from(text).toString('base64')}`,
    );
    for (let index = 0; index < 20; index += 1) expect(await tryWith(RIGHT)).toBe(200);
    for (const guess of [...wrong, 'Bearer x', 'Basic', RIGHT.replace('Basic', 'Digest'), 'Basic ==']) {
      expect(await tryWith(guess), guess).toBe(401);
    }
    expect(await tryWith('Basic eDp5')).toBe(429);
    expect(await tryWith(RIGHT)).toBe(429);
    expect((await send(board, '/healthz')).status).toBe(200);
  });
});

interface Metric {
  type: string;
  samples: string[];
}

/** Reads the Prometheus text format and throws on whatever it does not allow. */
function parseMetrics(text: string): Map<string, Metric> {
  const metrics = new Map<string, Metric>();
  const seen = new Set<string>();
  let current = '';
  expect(text.endsWith('\n')).toBe(true);
  for (const line of text.slice(0, -1).split('\n')) {
    const header = /^# (HELP|TYPE) ([a-zA-Z_:][a-zA-Z0-9_:]*) (.+)$/.exec(line);
    if (header !== null) {
      const [, kind = '', name = '', rest = ''] = header;
      expect(seen.has(`${kind} ${name}`), `a second ${kind} of ${name}`).toBe(false);
      seen.add(`${kind} ${name}`);
      if (kind === 'TYPE') {
        expect(rest).toMatch(/^(counter|gauge|histogram|summary)$/);
        expect(metrics.has(name)).toBe(false);
        metrics.set(name, { type: rest, samples: [] });
        current = name;
      }
      continue;
    }
    const sample =
      /^([a-zA-Z_:][a-zA-Z0-9_:]*)(\{(?:[a-zA-Z_]\w*="(?:[^"\\\n]|\\["\\n])*"(?:, ?)?)*\})? (-?\d+(?:\.\d+)?(?:e[+-]?\d+)?|NaN|[+-]Inf)$/.exec(
        line,
      );
    expect(sample, `not a sample: ${line}`).not.toBeNull();
    const [, name = '', labels = ''] = sample ?? [];
    const metric = metrics.get(current);
    const suffixes = metric?.type === 'histogram' || metric?.type === 'summary' ? '(_bucket|_sum|_count)?' : '';
    expect(name, `a sample among those of ${current}`).toMatch(new RegExp(`^${current}${suffixes}$`));
    expect(seen.has(name + labels), `a second ${name}${labels}`).toBe(false);
    seen.add(name + labels);
    metric?.samples.push(line);
  }
  return metrics;
}
