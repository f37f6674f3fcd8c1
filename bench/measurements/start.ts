import { mkdir, readFile, rm, symlink } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { execa } from 'execa';
import { findServer } from '../../src/local/find.ts';
import type { Measurement } from '../measurement.ts';
import { bareClient, until } from '../space.ts';
import { LIBRARIES, type Stores } from '../stores.ts';

const ROOT = resolve(import.meta.dirname, '../..');
const FIRST_ROW = 'npm start to first row, s';

/** `npm start` on a folder where it ran before, with nothing to install or fetch, until a row of its simulator is there. */
async function startToFirstRow(directory: string) {
  const data = join(directory, 'data');
  await rm(data, { recursive: true, force: true });
  const env = {
    LOCAL_DIR: directory,
    DATA_DIR: data,
    LOCAL_REDIS_PORT: '0',
    LOCAL_CASSANDRA_PORT: '0',
    BOARD_PORT: '0',
  };
  const keyspace = `bench_${Date.now()}`;
  const log = join(directory, 'npm-start.log');
  await rm(log, { force: true });
  const started = performance.now();
  const child = execa('npm', ['start'], {
    cwd: ROOT,
    env: { ...env, CASSANDRA_KEYSPACE: keyspace },
    stdin: 'ignore',
    stdout: 'ignore',
    stderr: { file: log },
    reject: false,
    detached: true,
  });
  let client: ReturnType<typeof bareClient> | undefined;
  try {
    await until('a first row', async () => {
      if (child.exitCode !== null) throw new Error(`npm start ended with ${child.exitCode}`);
      // Before that, a connection may be taken and never answered.
      const isUp = (await readFile(log, 'utf8').catch(() => '')).includes('Cassandra answers');
      const node = isUp && client === undefined ? await findServer(join(directory, 'cassandra')) : undefined;
      if (node !== undefined) {
        // The keyspace is not there yet.
        client = bareClient(node.port, 'system');
        await client.connect();
      }
      const found = await client
        ?.execute(`SELECT vehicle_id FROM ${keyspace}.vehicle_events LIMIT 1`)
        .catch(() => undefined);
      return found !== undefined && found.rowLength > 0;
    });
    return { figures: { [FIRST_ROW]: (performance.now() - started) / 1_000 } };
  } finally {
    await client?.shutdown();
    // As a terminal's Ctrl-C does: npm and what it runs.
    process.kill(-(child.pid ?? 0), 'SIGINT');
    await child;
  }
}

export const startToRow: Measurement = {
  name: 'start',
  about: '`npm start` with nothing to install or fetch, to the first row readable; every round has a new keyspace',
  plan: async (stores: Stores, options) => {
    const directory = resolve(stores.scratch, '../start');
    await mkdir(directory, { recursive: true });
    await symlink(LIBRARIES, join(directory, 'lib'));
    const contenders = [{ name: 'npm start', run: () => startToFirstRow(directory) }];
    const goals = [{ of: 'npm start', figure: FIRST_ROW, atMost: 15 }];
    return { contenders, goals, rounds: Math.min(options.rounds, 5) };
  },
};
