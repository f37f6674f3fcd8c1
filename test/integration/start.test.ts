import { once } from 'node:events';
import { mkdtemp, readdir, readFile, rm, symlink } from 'node:fs/promises';
import { createServer, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Client } from 'cassandra-driver';
import { execa } from 'execa';
import { beforeEach, expect, inject, it, onTestFinished, vi } from 'vitest';
import { freePort } from '../../src/local/ports.ts';
import { findLocalServices, findServer } from '../../src/local/find.ts';
import { quietPort } from '../stores.ts';

const ROOT = resolve(import.meta.dirname, '../..');
const POLL = { timeout: 240_000, interval: 200 };

let folder: string;
let environment: Record<string, string>;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'start-'));
  // After what else a test leaves to this: what is registered first is done last.
  onTestFinished(() => rm(folder, { recursive: true, force: true, maxRetries: 10 }));
  await symlink(join(ROOT, '.local/lib'), join(folder, 'lib'));
  const boardPort = String(await quietPort());
  environment = {
    // An empty value counts as not set, whatever this machine's own environment says.
    REDIS_URL: '',
    CASSANDRA_CONTACT_POINTS: '',
    DATA_DIR: join(folder, 'data'),
    LOCAL_DIR: folder,
    // The board's, which is asked for first: it gets it, and Redis the next one.
    LOCAL_REDIS_PORT: boardPort,
    LOCAL_CASSANDRA_PORT: '0',
    BOARD_PORT: boardPort,
    PROCESSORS: '2',
  };
});

/**
 * `npm start` as at a terminal: with a process group of its own, which Ctrl-C reaches as a whole. npm passes it on to what it
 * has started, which gets it twice.
 */
function npmStart(args: string[] = []) {
  const child = execa('npm', ['start', '--', ...args], {
    cwd: ROOT,
    env: environment,
    detached: true,
    reject: false,
    all: true,
  });
  const { pid } = child;
  if (pid === undefined) throw new Error('npm cannot be run');
  const group = { pid, signal: (signal: NodeJS.Signals) => process.kill(-pid, signal), ended: child, output: '' };
  child.all.on('data', (chunk: Buffer) => (group.output += chunk.toString()));
  onTestFinished(async () => {
    try {
      group.signal('SIGKILL');
    } catch {
      // It is gone, as it should be.
    }
    for (const store of ['redis', 'cassandra']) {
      const left = await findServer(join(folder, store));
      if (left !== undefined) process.kill(left.pid, 'SIGKILL');
    }
  });
  return group;
}

async function processes() {
  const { stdout } = await execa('ps', ['-ww', '-eo', 'pid=,ppid=,stat=,args=']);
  return stdout.split('\n').flatMap((line) => {
    const [, pid, parent, state, command = ''] = /^\s*(\d+)\s+(\d+)\s+(\S+)\s+(.*)$/.exec(line) ?? [];
    return state === undefined || state.startsWith('Z') ? [] : [{ pid: Number(pid), parent: Number(parent), command }];
  });
}

/** Everything that descends from `root`. */
async function family(root: number): Promise<{ pid: number; command: string }[]> {
  const all = await processes();
  const grow = (pid: number): typeof all =>
    all.filter(({ parent }) => parent === pid).flatMap((one) => [one, ...grow(one.pid)]);
  return grow(root);
}

async function stillRunning(some: { pid: number; command: string }[]) {
  const all = await processes();
  return some.filter(({ pid, command }) => all.some((one) => one.pid === pid && one.command === command));
}

async function countEvents(): Promise<number> {
  const { CASSANDRA_PORT: port } = await findLocalServices(folder);
  if (port === undefined) throw new Error('no local Cassandra');
  const client = new Client({
    contactPoints: ['127.0.0.1'],
    protocolOptions: { port },
    localDataCenter: 'datacenter1',
  });
  try {
    const result = await client.execute('SELECT count(*) AS n FROM vehicle_data.vehicle_events');
    return Number(result.first().get('n'));
  } finally {
    await client.shutdown();
  }
}

it('npm start loads files, and starts roles again that were killed; killed itself, it takes its roles along; the next start keeps the data, and Ctrl-C stops everything', async () => {
  const first = npmStart();
  await vi
    .waitUntil(() => first.output.includes('Ctrl-C stops everything'), POLL)
    .catch(() => expect.fail(first.output));
  await vi.waitFor(async () => expect(await countEvents()).toBeGreaterThanOrEqual(100), POLL);
  await expect.poll(async () => (await fetch(`http://127.0.0.1:${environment['BOARD_PORT']}/readyz`)).status).toBe(200);

  const another = npmStart();
  expect((await another.ended).exitCode).toBe(1);
  expect(another.output).toMatch(/Cassandra already runs on .*: stop process \d+, or set another LOCAL_DIR/);

  const rolesNow = async () =>
    (await family(first.pid)).filter(({ command }) => /pipeline\.js (?!start)\w+$/.test(command));
  const killed = (await rolesNow()).filter(({ command }) => /(watch|process)$/.test(command)).map(({ pid }) => pid);
  for (const pid of killed) process.kill(pid, 'SIGKILL');
  await vi.waitUntil(async () => {
    const pids = (await rolesNow()).map(({ pid }) => pid);
    return pids.length === 5 && !pids.some((pid) => killed.includes(pid));
  }, POLL);
  const before = await countEvents();
  await vi.waitFor(async () => expect(await countEvents()).toBeGreaterThanOrEqual(before + 100), POLL);

  const roles = await rolesNow();
  expect(roles.map(({ command }) => command.split(' ').at(-1)).sort()).toEqual([
    'board',
    'generate',
    'process',
    'process',
    'watch',
  ]);
  const stores = await Promise.all(['redis', 'cassandra'].map((store) => findServer(join(folder, store))));
  const loaded = await countEvents();
  first.signal('SIGKILL');
  await first.ended;
  await vi.waitUntil(async () => (await stillRunning(roles)).length === 0, POLL);

  const startedAt = performance.now();
  const second = npmStart(['--no-generate']);
  await vi
    .waitUntil(() => second.output.includes('Ctrl-C stops everything'), POLL)
    .catch(() => expect.fail(second.output));
  const tookMs = performance.now() - startedAt;
  const all = await processes();
  expect(stores.filter((left) => all.some(({ pid }) => pid === left?.pid))).toEqual([]);
  expect(await countEvents()).toBeGreaterThanOrEqual(loaded);
  // What the killed one has left is ended before it is asked which ports are free.
  expect((await findServer(join(folder, 'redis')))?.port).toBe(stores[0]?.port);

  const running = await family(second.pid);
  expect(running.filter(({ command }) => command.includes(folder))).toHaveLength(2);
  const since = performance.now();
  second.signal('SIGINT');
  await second.ended;
  // Where a start takes longer, so may a stop.
  expect(performance.now() - since).toBeLessThan(Math.max(10_000, tookMs));
  await vi.waitFor(async () => expect(await stillRunning(running)).toEqual([]), POLL);
  expect(await findLocalServices(folder)).toEqual({});
});

it.each([
  { end: 'its terminal is closed', signals: ['SIGHUP'] },
  { end: 'npm passes on the Ctrl-C of its terminal', signals: ['SIGINT', 'SIGINT'] },
] as const)('the stores end with `pipeline services` when $end', async ({ signals }) => {
  const services = execa(process.execPath, ['bin/pipeline.js', 'services'], {
    ...{ cwd: ROOT, env: environment, reject: false, all: true },
  });
  const running = async () => {
    const { REDIS_URL, CASSANDRA_PORT } = await findLocalServices(folder);
    return [REDIS_URL, CASSANDRA_PORT].filter((one) => one !== undefined).length;
  };
  await vi.waitUntil(async () => (await running()) === 2, POLL);
  await sleep(2_000);
  for (const signal of signals) {
    services.kill(signal);
    await sleep(20);
  }
  await services;
  await vi.waitUntil(async () => (await running()) === 0, POLL);
});

it('a board that everybody could open is one sentence, and nothing is started', async () => {
  environment['BOARD_HOST'] = '0.0.0.0';
  const { exitCode, all } = await npmStart().ended;
  expect(exitCode).toBe(1);
  expect(all).toContain('Everybody could open the board: set BOARD_PASSWORD');
  expect(await readdir(folder)).toEqual(['lib']);
});

it('a Redis of the environment that does not answer is named, without its password, and nothing is started', async () => {
  const port = await freePort(0);
  environment['REDIS_URL'] = `redis://someone:secret@127.0.0.1:${port}`;
  const { exitCode, all } = await npmStart().ended;
  expect(exitCode).toBe(1);
  expect(all).toContain(`Redis at 127.0.0.1:${port} does not answer`);
  expect(all).toContain('set REDIS_URL to one that runs');
  expect(all).not.toContain('secret');
  expect(await readdir(folder)).toEqual(['lib']);
});

it('a Cassandra of the environment that does not answer is named, and nothing is started', async () => {
  environment['REDIS_URL'] = inject('redisUrl');
  environment['CASSANDRA_CONTACT_POINTS'] = '127.0.0.1';
  environment['CASSANDRA_PORT'] = String(await freePort(0));
  const { exitCode, all } = await npmStart().ended;
  expect(exitCode).toBe(1);
  expect(all).toContain(`Cassandra at 127.0.0.1 port ${environment['CASSANDRA_PORT']} does not answer`);
  expect(all).toContain('CASSANDRA_CONTACT_POINTS');
  expect(await readdir(folder)).toEqual(['lib']);
});

it('a taken port of the board is one sentence that says how to set another', async () => {
  environment['BOARD_PORT'] = String(inject('cassandraPort'));
  const { exitCode, all } = await npmStart().ended;
  expect(exitCode).toBe(1);
  expect(all).toMatch(/Port \d+ on 127\.0\.0\.1 is taken, .* BOARD_PORT=\d+ npm start\./);
  expect(await readdir(folder)).toEqual(['lib']);
});

it('a command whose Redis hangs ends soon after the first Ctrl-C', async () => {
  const hanging = createServer().listen(0, '127.0.0.1');
  onTestFinished(() => void hanging.close());
  await once(hanging, 'listening');
  const { port } = hanging.address() as AddressInfo;
  const env = { ...environment, REDIS_URL: `redis://127.0.0.1:${port}` };
  const command = execa(process.execPath, ['--import', 'tsx', 'src/main.ts', 'failed', 'list'], {
    ...{ cwd: ROOT, env, reject: false, all: true },
  });
  await once(hanging, 'connection');
  command.kill('SIGINT');
  const { exitCode, all } = await command;
  // By itself it would say that there is no answer, after five seconds.
  expect(all).toBe('Stopped before it was done.');
  expect(exitCode).toBe(1);
});

it('--version tells the version of the package', async () => {
  const { stdout } = await execa(process.execPath, ['bin/pipeline.js', '--version'], { cwd: ROOT });
  expect(JSON.parse(await readFile(join(ROOT, 'package.json'), 'utf8'))).toMatchObject({ version: stdout });
});

it('a store that dies while the rest starts ends it, and is what it names', async () => {
  const started = npmStart();
  await vi.waitUntil(() => started.output.includes('processes start'), POLL).catch(() => expect.fail(started.output));
  const cassandra = await findServer(join(folder, 'cassandra'));
  if (cassandra === undefined) expect.fail('no local Cassandra');
  process.kill(cassandra.pid, 'SIGKILL');
  const since = performance.now();
  await started.ended;
  expect(performance.now() - since).toBeLessThan(60_000);
  expect(started.output).toMatch(/^Cassandra ended \(SIGKILL\); its logs are under /m);
});
