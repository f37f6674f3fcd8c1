import { chmod, rename } from 'node:fs/promises';
import { join } from 'node:path';
import { execa } from 'execa';
import { Redis } from 'ioredis';
import { UsageError } from '../config.ts';
import { fetchArtifact, runTool } from './maven.ts';
import { startServer, type LocalServer } from './server.ts';

const REDIS_ON_PATH = 'redis-server';
const EMBEDDED_REDIS = { groupId: 'com.github.codemonstur', artifactId: 'embedded-redis', version: '1.4.3' };

/** The servers inside that jar, by `process.platform` and `process.arch`. */
const BINARIES: Record<string, string> = {
  'linux-x64': 'redis-server-6.2.6-v5-linux-amd64',
  'linux-arm64': 'redis-server-6.2.7-linux-arm64',
  'darwin-x64': 'redis-server-6.2.6-v5-darwin-amd64',
  'darwin-arm64': 'redis-server-6.2.6-v5-darwin-arm64',
};

/**
 * Path of a Redis 6.2 or later: the one on the PATH, else the binary that a Maven artifact carries.
 *
 * @throws UsageError when there is none for this platform
 */
export async function findRedisBinary(libDirectory: string, signal?: AbortSignal): Promise<string> {
  const { stdout } = await execa(REDIS_ON_PATH, ['--version'], { reject: false });
  const [, major, minor] = /v=(\d+)\.(\d+)/.exec(stdout) ?? [];
  if (Number(major) > 6 || (Number(major) === 6 && Number(minor) >= 2)) return REDIS_ON_PATH;

  const binary = BINARIES[`${process.platform}-${process.arch}`];
  if (binary === undefined) {
    throw new UsageError(
      `There is no ready-made Redis for ${process.platform} on ${process.arch}: install redis-server 6.2 or later, or set REDIS_URL.`,
    );
  }
  const folder = await fetchArtifact(EMBEDDED_REDIS, libDirectory, {
    signal,
    prepare: async (temporary) => {
      const jar = `${EMBEDDED_REDIS.artifactId}-${EMBEDDED_REDIS.version}.jar`;
      await runTool('Unpacking Redis needs', 'jar', ['xf', jar, binary], { cwd: temporary, signal });
      await rename(join(temporary, binary), join(temporary, 'redis-server'));
      await chmod(join(temporary, 'redis-server'), 0o755);
    },
  });
  return join(folder, 'redis-server');
}

export interface LocalRedis extends LocalServer {
  readonly host: string;
  readonly port: number;
  readonly url: string;
}

async function answers(url: string): Promise<boolean> {
  // connect() waits for the data to be loaded: its ready check reads `loading` from INFO.
  const redis = new Redis(url, { lazyConnect: true, retryStrategy: null, connectTimeout: 1_000 });
  redis.on('error', () => undefined);
  try {
    await redis.connect();
    await redis.ping();
    return true;
  } catch {
    return false;
  } finally {
    redis.disconnect();
  }
}

/**
 * Starts a Redis that keeps every write in its append-only file and never evicts, on loopback.
 *
 * @param args further options of redis-server, as on its command line
 */
export async function startRedis(options: {
  binary: string;
  directory: string;
  port: number;
  password?: string;
  args?: readonly string[];
  signal?: AbortSignal | undefined;
}): Promise<LocalRedis> {
  const { binary, directory, port, password, signal } = options;
  const host = '127.0.0.1';
  const url = `redis://${password === undefined ? '' : `:${encodeURIComponent(password)}@`}${host}:${port}`;
  const settings: Record<string, string> = {
    bind: host,
    port: String(port),
    dir: directory,
    'protected-mode': 'yes',
    daemonize: 'no',
    appendonly: 'yes',
    save: '',
    'maxmemory-policy': 'noeviction',
    // Redis would replace its command line, and a later start could not tell whose it is.
    'set-proc-title': 'no',
    ...(password === undefined ? {} : { requirepass: password }),
  };
  const server = await startServer({
    name: 'Redis',
    command: binary,
    args: [...Object.entries(settings).flatMap(([name, value]) => [`--${name}`, value]), ...(options.args ?? [])],
    directory,
    address: { url },
    isReady: () => answers(url),
    readyWithinMs: 60_000,
    stopWithinMs: 3_000,
    signal,
  });
  return { ...server, host, port, url };
}
