import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';
import { pino } from 'pino';
import { inject } from 'vitest';
import { createBoard, listen } from '../../src/board/server.ts';
import { parseConfig } from '../../src/config.ts';
import { createCounters } from '../../src/queues/counters.ts';
import { addDeadLetter } from '../../src/queues/dead-letter.ts';
import { versionOf, type IngestJob } from '../../src/queues/ingest.ts';
import { openQueues } from '../../src/queues/open.ts';
import { createShutdown } from '../../src/runtime.ts';
import { connectStore } from '../../src/storage/client.ts';
import { migrate } from '../../src/storage/migrations.ts';

/** A way to a server that can be cut (connections are refused) or frozen (nothing comes through any more). */
async function createWay(target: { host: string; port: number }) {
  const sockets = new Set<Socket>();
  let state: 'open' | 'cut' | 'frozen' = 'open';
  const server = createServer((client) => {
    const upstream = connect(target);
    for (const [from, to] of [
      [client, upstream],
      [upstream, client],
    ] as const) {
      sockets.add(from);
      from.on('error', () => to.destroy());
      from.on('close', () => {
        sockets.delete(from);
        to.destroy();
      });
      from.on('data', (chunk) => state !== 'frozen' && to.write(chunk));
    }
    if (state === 'cut') client.destroy();
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const destroyAll = () => sockets.forEach((socket) => socket.destroy());
  return {
    port,
    set: (next: typeof state) => {
      state = next;
      if (next !== 'frozen') destroyAll();
    },
    close: () => {
      destroyAll();
      server.close();
    },
  };
}

/** A board with a keyspace and queues of its own. `close` drops them; a test that failed leaves them to be looked at. */
export async function createBoardUnderTest(environment: Record<string, string> = {}) {
  const id = randomBytes(5).toString('hex');
  const redisUrl = new URL(inject('redisUrl'));
  const redisWay = await createWay({ host: redisUrl.hostname, port: Number(redisUrl.port) });
  const cassandraWay = await createWay({ host: inject('cassandraHost'), port: inject('cassandraPort') });
  redisUrl.host = `127.0.0.1:${redisWay.port}`;
  const config = parseConfig({
    REDIS_URL: redisUrl.href,
    CASSANDRA_CONTACT_POINTS: '127.0.0.1',
    CASSANDRA_PORT: String(cassandraWay.port),
    CASSANDRA_LOCAL_DATACENTER: inject('cassandraDatacenter'),
    CASSANDRA_KEYSPACE: `test_${id}`,
    QUEUE_PREFIX: `{test-${id}}`,
    BOARD_PORT: '0',
    INGEST_ATTEMPTS: '1',
    ...environment,
  });
  const log = pino({ level: 'silent' });
  await migrate(config, log);
  const shutdown = createShutdown(log);
  const opened = await openQueues({ config, log, shutdown });
  const store = await connectStore(config, log);
  const counters = createCounters(opened.queues, log);
  const needs = { config, store, ...opened, log };
  const server = await listen(createBoard(needs), config);

  return {
    ...needs,
    counters,
    url: server.url,
    redisWay,
    cassandraWay,
    /** What workers need besides. */
    workerNeeds: { ...needs, counters, workerName: 'worker-under-test' },
    /** A dead letter as a processor makes it: in the ledger and in the queue. */
    addLetter: async (file: IngestJob, reason: string) => {
      await store.run("INSERT INTO files (name, version, state, error) VALUES (?, ?, 'dead_letter', ?)", [
        file.name,
        versionOf(file),
        reason,
      ]);
      await addDeadLetter(opened.deadLetterQueue, { ...file, reason, failedAt: Date.now(), attempts: 1 });
    },
    close: async () => {
      await server.close();
      await counters.close();
      for (const queue of opened.allQueues) await queue.obliterate({ force: true });
      await shutdown.release();
      await store.run(`DROP KEYSPACE ${config.CASSANDRA_KEYSPACE}`);
      await store.close();
      redisWay.close();
      cassandraWay.close();
    },
  };
}

export type BoardUnderTest = Awaited<ReturnType<typeof createBoardUnderTest>>;
