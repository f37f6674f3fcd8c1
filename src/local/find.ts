import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';

/** A server, and the process that started it, by its number and its command line, since numbers are used again. */
const recordSchema = z.object({ pid: z.int(), port: z.int(), owner: z.int(), ownerCommand: z.string() });

/** Command line of a living process; empty when there is none. */
export async function commandLine(pid: number): Promise<string> {
  const ps = async () => {
    const { execa } = await import('execa');
    return (await execa('ps', ['-ww', '-o', 'args=', '-p', String(pid)])).stdout;
  };
  return (process.platform === 'linux' ? readFile(`/proc/${pid}/cmdline`, 'utf8') : ps()).catch(() => '');
}

/** The living server of `directory`; undefined when there is none. */
export async function findServer(directory: string): Promise<z.infer<typeof recordSchema> | undefined> {
  // None, or one that was cut short by a kill: no server was up yet.
  const json: unknown = await readFile(join(directory, 'server.json'), 'utf8')
    .then(JSON.parse)
    .catch(() => undefined);
  const record = recordSchema.safeParse(json).data;
  // Some other process may have the number by now.
  return record !== undefined && (await commandLine(record.pid)).includes(directory) ? record : undefined;
}

/** The configuration that points to the local stores that run now, whichever process started them; empty when there are none. */
export async function findLocalServices(localDir: string) {
  const redis = await findServer(join(localDir, 'redis'));
  const node = await findServer(join(localDir, 'cassandra'));
  return {
    ...(redis && { REDIS_URL: `redis://127.0.0.1:${redis.port}` }),
    ...(node && {
      CASSANDRA_CONTACT_POINTS: ['127.0.0.1'],
      CASSANDRA_PORT: node.port,
      CASSANDRA_LOCAL_DATACENTER: 'datacenter1',
    }),
  };
}
