import { once } from 'node:events';
import { createWriteStream, writeFileSync } from 'node:fs';
import { mkdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { execa } from 'execa';
import { UsageError } from '../config.ts';
import { commandLine, findServer } from './find.ts';

export interface Place {
  /** Holds the data, `server.json` (what runs there) and `console.log` (what it prints). */
  readonly directory: string;
  readonly port: number;
  readonly signal?: AbortSignal | undefined;
}

/** Ends what a start that was killed has left running on the same data. @throws UsageError when its owner lives */
export async function endLeftover(name: string, directory: string): Promise<void> {
  const left = await findServer(directory);
  if (left === undefined) return;
  if ((await commandLine(left.owner)) === left.ownerCommand)
    throw new UsageError(`${name} already runs on ${directory}: stop process ${left.owner}, or set another LOCAL_DIR.`);
  process.kill(left.pid, 'SIGKILL');
  while ((await findServer(directory)) !== undefined) await sleep(50);
}

/**
 * Starts a server on 127.0.0.1 and resolves when it has printed `ready`.
 *
 * It gets a process group of its own, so that a terminal's Ctrl-C reaches only us and the stores stop last. It is asked
 * to stop when we end in whatever way but by a kill; it outlives that, and the next start on the directory ends it first.
 *
 * @param command with its arguments; one names the directory, which is how a later start recognises the process
 * @throws UsageError when a living process uses the directory, or when the server dies: with the end of its output
 */
export async function startServer(name: string, command: string[], ready: string, { directory, port, signal }: Place) {
  const record = join(directory, 'server.json');
  const consoleFile = join(directory, 'console.log');
  await mkdir(directory, { recursive: true });
  await endLeftover(name, directory);
  const output = createWriteStream(consoleFile);
  await once(output, 'open');
  const ownerCommand = await commandLine(process.pid);
  const [file = '', ...args] = command;
  const child = execa(file, args, {
    cwd: directory,
    detached: true,
    stdio: ['ignore', output, output],
    reject: false,
    forceKillAfterDelay: 5_000,
  });
  output.close();
  const { pid = 0 } = child;
  const onExit = () => child.kill('SIGTERM');
  process.once('exit', onExit);
  const exited = child.then(({ signal: by, exitCode }) => {
    process.off('exit', onExit);
    return `${name} ended (${by ?? `exit code ${exitCode}`})`;
  });
  const end = async (by: NodeJS.Signals) => {
    child.kill(by);
    await exited;
    await rm(record, { force: true });
  };

  try {
    // Before anything else is done: what a start that is killed leaves running is found by this.
    writeFileSync(record, JSON.stringify({ pid, port, owner: process.pid, ownerCommand }));
    for (let said = ''; !said.includes(ready); said = await readFile(consoleFile, 'utf8')) {
      signal?.throwIfAborted();
      if (child.exitCode !== null || child.signalCode !== null) {
        const last = (await readFile(consoleFile, 'utf8')).trim().split('\n').slice(-12).join('\n');
        throw new UsageError(`${await exited}; the last it said, in ${consoleFile}:\n${last}`);
      }
      await sleep(50);
    }
  } catch (error) {
    await end('SIGKILL');
    throw error;
  }
  return {
    pid,
    port,
    host: '127.0.0.1',
    /** Resolves, with how it ended, when the server is gone for whatever reason. */
    exited,
    /** Asks it to stop and returns when it is gone; after five seconds it is killed. */
    stop: () => end('SIGTERM'),
    /** Ends it the hard way: what a crash leaves behind. */
    kill: () => end('SIGKILL'),
  };
}

export type LocalServer = Awaited<ReturnType<typeof startServer>>;
