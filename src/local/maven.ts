import { createHash, randomUUID } from 'node:crypto';
import { existsSync, readFileSync, statSync } from 'node:fs';
import { readdir, rename, rm } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { execa, ExecaError } from 'execa';
import { UsageError } from '../config.ts';

/** Folder with the files that Maven, the JVM and Cassandra's log read. */
export const STORES = resolve(import.meta.dirname, '../../stores');

/** To fetch what they name takes minutes at most; a folder that was begun so long ago is used by nobody. */
const CUT_SHORT_MS = 3_600_000;

/** Ends a sentence about what the local stores lack. */
export const HOW_TO_MEND =
  'Install a JDK 17 and Maven (Debian: apt-get install openjdk-17-jdk-headless maven; macOS: brew install openjdk@17 maven), or run everything in containers: docker compose --profile demo up.';

/** What the tool prints. @throws UsageError, one sentence, when it is missing or fails */
export async function runTool(tool: 'java' | 'mvn', args: string[], signal?: AbortSignal): Promise<string> {
  try {
    return (await execa(tool, args, { all: true, stdin: 'ignore', ...(signal && { cancelSignal: signal }) })).all;
  } catch (error) {
    if (!(error instanceof ExecaError) || error.isCanceled) throw error;
    const reason = /^.*(ERROR|rror:).*$/m.exec(error.message)?.[0] ?? error.shortMessage;
    const problem = error.code === 'ENOENT' ? 'is not on the PATH' : `failed: ${reason.trim()}`;
    throw new UsageError(`The local stores need ${tool}, which ${problem}. ${HOW_TO_MEND}`);
  }
}

/** The version of the Java on the PATH, or else what it says of itself. @throws as runTool */
export async function javaVersion(signal?: AbortSignal): Promise<string> {
  const said = await runTool('java', ['-version'], signal);
  return /version "([^"]+)/.exec(said)?.[1] ?? said;
}

/** Whether Cassandra runs on it: from 24 on, Java has no security manager, and Cassandra 5 does not start without one. */
export const isFitForCassandra = (version: string) => /^(1[7-9]|2[0-3])\b/.test(version);

/**
 * A folder below `libDirectory` with what stores/pom.xml names, fetched the first time. It appears all at once, by a
 * rename, so several processes may ask for it together.
 */
export async function fetchLibraries(libDirectory: string, signal?: AbortSignal): Promise<string> {
  const pom = join(STORES, 'pom.xml');
  const folder = join(libDirectory, createHash('sha256').update(readFileSync(pom)).digest('hex').slice(0, 12));
  if (existsSync(folder)) return folder;
  const temporary = `${folder}.${randomUUID()}`;
  try {
    const goals = ['dependency:copy-dependencies@cassandra', 'dependency:unpack@redis'];
    await runTool('mvn', ['-q', '-B', '-f', pom, `-Dinto=${temporary}`, ...goals], signal);
    await rename(temporary, folder).catch((error: unknown) => {
      // Otherwise another process was faster; its folder holds the same.
      if (!existsSync(folder)) throw error;
    });
    // Those of processes that were killed.
    for (const name of (await readdir(libDirectory)).filter((one) => one.includes('.'))) {
      const path = join(libDirectory, name);
      const begun = statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? Infinity;
      if (Date.now() - begun > CUT_SHORT_MS) await rm(path, { recursive: true, force: true });
    }
  } finally {
    await rm(temporary, { recursive: true, force: true });
  }
  return folder;
}
