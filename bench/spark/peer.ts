import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdir, readdir, rename, rm } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { execa } from 'execa';
import { checkRows } from '../check.ts';
import { watchUsage } from '../processes.ts';
import { createProvider, putAll, type ProviderOptions } from '../provider.ts';
import { openSpace, type Space } from '../space.ts';
import type { Stores } from '../stores.ts';

const CACHE = resolve(import.meta.dirname, '../.cache');
const PYSPARK = 'pyspark==3.5.9';

/** Fetches PySpark from PyPI and the connector from Maven Central the first time. @throws Error when Java is no 17 */
export async function prepareSpark(): Promise<{ python: string; jars: string[] }> {
  const { all } = await execa('java', ['-version'], { all: true });
  if (!/version "(1\.8|11|17)\b/.test(all))
    throw new Error('Spark 3.5 runs on Java 8, 11 and 17; the java on the PATH is another.');
  const venv = join(CACHE, 'spark-python');
  const folder = join(CACHE, 'spark-jars');
  await mkdir(CACHE, { recursive: true });
  if (!existsSync(venv)) {
    await rm(`${venv}.new`, { recursive: true, force: true });
    await execa('python3', ['-m', 'venv', `${venv}.new`]);
    await execa(join(`${venv}.new`, 'bin/python'), ['-m', 'pip', 'install', '-q', PYSPARK], { stdio: 'inherit' });
    await rename(`${venv}.new`, venv);
  }
  if (!existsSync(folder)) {
    await rm(`${folder}.new`, { recursive: true, force: true });
    const pom = join(import.meta.dirname, 'pom.xml');
    const goal = ['dependency:copy-dependencies', '-DincludeScope=runtime', `-DoutputDirectory=${folder}.new`];
    await execa('mvn', ['-q', '-B', '-f', pom, ...goal], { stdio: 'inherit' });
    await rename(`${folder}.new`, folder);
  }
  const jars = (await readdir(folder)).map((jar) => join(folder, jar));
  return { python: join(venv, 'bin/python'), jars };
}

/** Starts the peer on the space's keyspace and folder; it is ready when this resolves. */
export async function startSpark(mode: 'drain' | 'stream' | 'summary', { config, folder }: Space) {
  const { python, jars } = await prepareSpark();
  const options = {
    folder: config.DATA_DIR,
    port: config.CASSANDRA_PORT,
    keyspace: config.CASSANDRA_KEYSPACE,
    jars,
    checkpoints: join(folder, 'checkpoints'),
  };
  const script = join(import.meta.dirname, 'pipeline.py');
  const log = join(folder, 'spark.log');
  const child = execa(python, [script, mode, JSON.stringify(options)], {
    cwd: folder,
    stdio: ['pipe', 'pipe', { file: log }],
    reject: false,
  });
  const lines = createInterface({ input: child.stdout });
  const line = async (): Promise<string> => {
    const ended = child.then(({ exitCode }) => {
      throw new Error(`Spark ended with ${exitCode ?? 'a signal'}: see ${log}`);
    });
    const [text] = await Promise.race([once(lines, 'line'), ended]);
    return String(text);
  };
  await line();
  return {
    pid: child.pid ?? 0,
    /** Lets it work. Resolves to the seconds that it took, when it is done; `stream` is stopped by this. */
    work: async (): Promise<number> => {
      child.stdin.write('\n');
      return Number(await line());
    },
    end: async (): Promise<void> => {
      child.stdin.end();
      await child;
    },
  };
}

/** The drain of the same files as the pipeline's, by both streams until nothing is left. */
export async function drainWithSpark(stores: Stores, pairs: number, provider: ProviderOptions) {
  const space = await openSpace(stores);
  try {
    const files = [...createProvider(provider).pairs(pairs)];
    await putAll(space.config.DATA_DIR, files);
    const spark = await startSpark('drain', space);
    await sleep(1_000);
    const usage = await watchUsage([spark.pid]);
    const seconds = await spark.work();
    const { cpuSeconds, peakRssBytes } = await usage.stop();
    await spark.end();
    // Its identities and the text of its objects are its own.
    await checkRows(space.client, files, 0);
    return {
      figures: {
        'drained, records/s': (files.length * provider.records) / seconds,
        'processor time, s': cpuSeconds,
        'peak memory, MB': peakRssBytes / 1e6,
      },
    };
  } finally {
    await space.close();
  }
}
