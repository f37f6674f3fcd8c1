import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { Cluster, Redis } from 'ioredis';
import { afterAll, expect, inject, it } from 'vitest';
import { openAll } from '../../src/commands/connect.ts';
import { findRedisBinary, startRedis } from '../../src/local/redis.ts';
import { createLetterRestorer } from '../../src/producers/letters.ts';
import { eventually, openSpace } from '../integration/pipeline.ts';
import { expectAllLoaded, startProvider } from '../integration/provider.ts';
import { quietPort } from '../stores.ts';

const LIB = resolve(import.meta.dirname, '../../.local/lib');
const SLOTS = 16_384;
const MASTERS = 3;

/** A port whose cluster bus, 10,000 above it, is below those of connections, too. */
async function nodePort(): Promise<number> {
  const port = await quietPort();
  return port + 10_000 < 32_768 ? port : nodePort();
}

/** Three masters that share the slots. */
async function startCluster() {
  const folder = await mkdtemp(join(tmpdir(), 'cluster-'));
  const binary = await findRedisBinary(LIB);
  const nodes: Redis[] = [];
  const ports: number[] = [];
  for (let n = 0; n < MASTERS; n += 1) {
    const port = await nodePort();
    const args = ['--cluster-enabled', 'yes', '--cluster-require-full-coverage', 'no'];
    const server = await startRedis({ binary, directory: join(folder, String(port)), port, args });
    afterAll(server.kill);
    const node = new Redis(port);
    afterAll(() => node.disconnect());
    const first = Math.floor((n * SLOTS) / MASTERS);
    const end = Math.floor(((n + 1) * SLOTS) / MASTERS);
    await node.cluster('ADDSLOTS', ...Array.from({ length: end - first }, (_, slot) => first + slot));
    await node.cluster('SET-CONFIG-EPOCH', n + 1);
    nodes.push(node);
    ports.push(port);
  }
  afterAll(() => rm(folder, { recursive: true, maxRetries: 10 }));
  for (const node of nodes) for (const port of ports) await node.cluster('MEET', '127.0.0.1', port);
  await eventually(async () => {
    for (const node of nodes) {
      const info = await node.cluster('INFO');
      expect(info).toMatch(/cluster_state:ok[^]*cluster_known_nodes:3/);
    }
  });
  return { nodes, ports };
}

const { nodes, ports } = await startCluster();
const addresses = ports.map((port) => ({ host: '127.0.0.1', port }));
const connectRedis = () => new Cluster(addresses, { redisOptions: { maxRetriesPerRequest: null } });
const redisUrl = `redis+cluster://127.0.0.1:${ports[0] ?? 0},127.0.0.1:${ports[1] ?? 0}`;
const space = await openSpace({}, { redisUrl, cassandraPort: inject('cassandraPort'), connectRedis });

it('files are loaded and summarized through a cluster, whose keys are all on one node', async () => {
  space.startRole('watch');
  space.startRole('process');
  const provider = startProvider(space, 'cluster');
  await provider.hasWritten(40);
  await provider.stop();
  await expectAllLoaded(space, provider.written);

  const keys = await Promise.all(nodes.map((node) => node.keys('*')));
  const used = keys.filter((some) => some.length > 0);
  expect(used).toHaveLength(1);
  expect(used.flat().filter((key) => !key.startsWith(space.config.QUEUE_PREFIX))).toEqual([]);
  await eventually(async () => expect((await space.queue('ingest').getWorkers()).length).toBe(1));
});

it('a dead letter that is sent back by hand is tried again', async () => {
  const name = 'vehicles_events_broken.json';
  await space.put(name, 'not JSON', { stoodStill: true });
  const [letter] = await eventually(async () => {
    const letters = await space.letters();
    expect(letters).toHaveLength(1);
    return letters;
  });
  const failedAt = async () => (await space.ledger()).find((row) => row.name === name)?.finishedAt ?? 0;
  const before = await failedAt();
  await letter?.retry();
  await eventually(async () => {
    expect(await failedAt()).toBeGreaterThan(before);
    expect(await space.letters()).toMatchObject([{ id: letter?.id, name }]);
  });
});

it('the node that holds the queues is asked whether it was started anew, not any of them', async () => {
  const runtime = space.runtime();
  const restore = createLetterRestorer(await openAll(runtime));
  for (let n = 0; n < 10; n += 1) await restore();
  await runtime.stop();
  const keys = (await Promise.all(nodes.map((node) => node.keys('*:letters-restored:*')))).flat();
  expect(keys).toHaveLength(1);
});
