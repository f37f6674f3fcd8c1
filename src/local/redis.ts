import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { execa } from 'execa';
import { UsageError } from '../config.ts';
import { fetchLibraries } from './maven.ts';
import { startServer, type Place } from './server.ts';

/**
 * Path of a Redis 6.2 or later: the one on the PATH, else one that Maven fetches.
 *
 * @throws UsageError when there is none for this platform, or Maven cannot fetch it
 */
export async function findRedisBinary(libDirectory: string, signal?: AbortSignal): Promise<string> {
  const onPath = 'redis-server';
  const { stdout } = await execa(onPath, ['--version'], { reject: false });
  if (/v=(6\.[2-9]|[7-9]|\d\d)/.test(stdout)) return onPath;
  const folder = await fetchLibraries(libDirectory, signal);
  const platform = `${process.platform}-${process.arch.replace('x64', 'amd64')}`;
  const binary = (await readdir(folder)).find((file) => file.startsWith('redis-server') && file.endsWith(platform));
  if (binary !== undefined) return join(folder, binary);
  throw new UsageError(`There is no ready-made Redis for ${platform}: install redis-server 6.2 or later.`);
}

/**
 * Starts a Redis that keeps every write in its append-only file and never evicts, on loopback.
 *
 * @param options `binary` is from findRedisBinary; `args` are further options of redis-server
 */
export async function startRedis(options: Place & { binary: string; args?: readonly string[] }) {
  const { binary, directory, port, args = [] } = options;
  const listen = ['--bind', '127.0.0.1', '--port', String(port)];
  const keep = ['--dir', directory, '--appendonly', 'yes', '--save', '', '--maxmemory-policy', 'noeviction'];
  // A job is a hash; kept compact, a queued file takes half of the memory.
  const compact = ['--hash-max-ziplist-value', '512'];
  // With a title of its own instead of its command line, a later start could not tell whose it is.
  const command = [binary, ...listen, ...keep, ...compact, '--set-proc-title', 'no', ...args];
  const server = await startServer('Redis', command, 'Ready to accept connections', options);
  return { ...server, url: `redis://127.0.0.1:${port}` };
}
