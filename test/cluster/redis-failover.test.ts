import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { Redis } from 'ioredis';
import { afterAll, expect, inject, it } from 'vitest';
import { findRedisBinary, startRedis } from '../../src/local/redis.ts';
import { startServer } from '../../src/local/server.ts';
import { eventually, openSpace } from '../integration/pipeline.ts';
import { expectAllLoaded, startProvider, type ProvidedFile } from '../integration/provider.ts';
import { events } from '../integration/records.ts';
import { quietPort } from '../stores.ts';

const LIB = resolve(import.meta.dirname, '../../.local/lib');
const PRIMARY = 'main';

interface Server {
  readonly pid: number;
  readonly port: number;
  kill(): Promise<void>;
}

/** One primary, two replicas, three sentinels that agree after three seconds that it is gone. */
async function startSentinels() {
  const folder = await mkdtemp(join(tmpdir(), 'failover-'));
  const binary = await findRedisBinary(LIB);
  const servers = new Map<number, Server>();
  afterAll(async () => {
    await Promise.all([...servers.values()].map((server) => server.kill()));
    await rm(folder, { recursive: true, maxRetries: 10 });
  });

  async function startNode(port: number, args: string[] = []): Promise<number> {
    // A replica gets its copy at once, not after waiting for others that want one too.
    const settings = ['--repl-diskless-sync-delay', '0', ...args];
    servers.set(port, await startRedis({ binary, directory: join(folder, String(port)), port, args: settings }));
    return port;
  }
  async function startSentinel(port: number, watched: number): Promise<void> {
    const directory = join(folder, String(port));
    const settings = join(directory, 'sentinel.conf');
    await mkdir(directory);
    await writeFile(
      settings,
      `port ${port}
bind 127.0.0.1
dir ${directory}
set-proc-title no
sentinel monitor ${PRIMARY} 127.0.0.1 ${watched} 2
sentinel down-after-milliseconds ${PRIMARY} 3000
sentinel failover-timeout ${PRIMARY} 6000
`,
    );
    const command = [binary, settings, '--sentinel'];
    servers.set(port, await startServer('Redis Sentinel', command, '+monitor master', { directory, port }));
  }

  const first = await startNode(await quietPort());
  for (let replicas = 0; replicas < 2; replicas += 1)
    await startNode(await quietPort(), ['--replicaof', '127.0.0.1', String(first)]);
  const sentinels: { host: string; port: number }[] = [];
  while (sentinels.length < 3) {
    const port = await quietPort();
    await startSentinel(port, first);
    sentinels.push({ host: '127.0.0.1', port });
  }

  /** Asks one node, which may be a sentinel. */
  async function ask<T>(port: number, question: (redis: Redis) => Promise<T>): Promise<T> {
    const redis = new Redis(port, { maxRetriesPerRequest: 1 });
    redis.on('error', () => undefined);
    try {
      return await question(redis);
    } finally {
      redis.disconnect();
    }
  }
  const fields = (reply: unknown) => (Array.isArray(reply) ? reply.map(String) : []);
  const askSentinel = (what: string) =>
    ask(sentinels[0]?.port ?? 0, async (redis) => redis.call('SENTINEL', what, PRIMARY));
  return {
    url: `redis+sentinel://${sentinels.map(({ host, port }) => `${host}:${port}`).join()}/${PRIMARY}`,
    connect: () => new Redis({ sentinels, name: PRIMARY, maxRetriesPerRequest: null, socketTimeout: 15_000 }),
    ask,
    primary: async () => Number(fields(await askSentinel('get-master-addr-by-name'))[1]),
    pid: (port: number) => servers.get(port)?.pid ?? 0,
    kill: async (port: number) => servers.get(port)?.kill(),
    restart: startNode,
    /** Ports of the replicas, when both follow the primary and every sentinel knows of them and of the others. */
    replicas: () =>
      eventually(async () => {
        const known = await askSentinel('replicas');
        const replicas = (Array.isArray(known) ? known : []).map(fields);
        const value = (of: string[], field: string) => of[of.indexOf(field) + 1] ?? '';
        const healthy = replicas.filter(
          (one) => value(one, 'flags') === 'slave' && value(one, 'master-link-status') === 'ok',
        );
        expect(healthy).toHaveLength(2);
        for (const { port } of sentinels) {
          const others = await ask(port, async (redis) => redis.call('SENTINEL', 'sentinels', PRIMARY));
          expect(others).toHaveLength(2);
        }
        return healthy.map((one) => Number(value(one, 'port')));
      }),
  };
}

const redis = await startSentinels();
await redis.replicas();
const space = await openSpace(
  { INGEST_ATTEMPTS: 2 },
  { redisUrl: redis.url, cassandraPort: inject('cassandraPort'), connectRedis: redis.connect },
);
const roles = { watch: space.startRole('watch'), process: space.startRole('process') };
const provided: ProvidedFile[] = [];

/** Files arrive, `fail` happens to the primary, files go on arriving until there is another primary, and some more. */
async function failOver(name: string, fail: (primary: number) => Promise<unknown>): Promise<number> {
  const before = await redis.primary();
  const provider = startProvider(space, name);
  await provider.hasWritten(20);
  await space.loaded([`vehicles_events_${name}_0.json`]);
  await fail(before);
  await eventually(async () => expect(await redis.primary()).not.toBe(before));
  const written = provider.written.length;
  await provider.hasWritten(written + 40);
  await provider.stop();
  provided.push(...provider.written);
  return before;
}

it('the primary is killed while files arrive: a replica takes over, and all are loaded once', async () => {
  const killed = await failOver('killed', redis.kill);
  await expectAllLoaded(space, provided);
  await redis.restart(killed);
  expect(await redis.replicas()).toContain(killed);
});

it('the primary hangs while files arrive: the roles leave it for the one that takes over', async () => {
  const hang = (primary: number) => Promise.resolve(process.kill(redis.pid(primary), 'SIGSTOP'));
  const stopped = await failOver('hanging', hang);
  await expectAllLoaded(space, provided).finally(() => process.kill(redis.pid(stopped), 'SIGCONT'));
  expect(await redis.replicas()).toContain(stopped);
});

it('what no replica had got when the primary was killed is queued again from the folder', async () => {
  const primary = await redis.primary();
  const replicas = await redis.replicas();
  const waiting = (port: number) =>
    redis.ask(port, async (node) => {
      const [arrived, backlog] = [
        `${space.config.QUEUE_PREFIX}:ingest:wait`,
        `${space.config.QUEUE_PREFIX}:ingest:prioritized`,
      ];
      return (await node.llen(arrived)) + (await node.zcard(backlog));
    });
  await roles.process.stop();
  // The replicas are cut off, and may not come back.
  await redis.ask(primary, async (node) => {
    await node.call('ACL', 'SETUSER', 'default', '-psync', '-sync');
    await node.call('CLIENT', 'KILL', 'TYPE', 'replica');
  });
  const files = Array.from({ length: 50 }, (_, n) => ({
    name: `vehicles_events_lost_${n}.json`,
    records: events(10, { vehicle_id: `lost-${n}` }),
  }));
  for (const { name, records } of files) await space.put(name, records);
  await eventually(async () => expect(await waiting(primary)).toBe(50));
  for (const replica of replicas) expect(await waiting(replica)).toBe(0);

  await redis.kill(primary);
  const queuedAgain = () => redis.primary().then(waiting);
  await eventually(async () => expect(await queuedAgain()).toBe(50));
  space.startRole('process');
  await expectAllLoaded(space, [...provided, ...files]);
});
