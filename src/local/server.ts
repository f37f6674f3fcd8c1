import { spawn } from 'node:child_process';
import { closeSync, openSync, writeFileSync } from 'node:fs';
import { mkdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { execa } from 'execa';
import { z } from 'zod';
import { UsageError } from '../config.ts';

/** A server process that this process started. */
export interface LocalServer {
  readonly pid: number;
  /** Resolves, with how it ended, when the server is gone for whatever reason. */
  readonly exited: Promise<string>;
  /** Asks it to stop and returns when it is gone; after the deadline it is killed. */
  stop(): Promise<void>;
  /** Ends it the hard way (SIGKILL): what a crash leaves behind. */
  kill(): Promise<void>;
}

export interface ServerOptions {
  /** How messages call it. */
  readonly name: string;
  readonly command: string;
  /** One of them has to name `directory`: that is how a later start recognises the process. */
  readonly args: readonly string[];
  /** Holds the data, `server.json` (who runs it, and where) and what the server prints (`console.log`). */
  readonly directory: string;
  /** What `findServer` tells other processes. */
  readonly address: Readonly<Record<string, string | number>>;
  /** True when the server answers; asked every 50 ms. */
  readonly isReady: () => Promise<boolean>;
  readonly readyWithinMs: number;
  /** From SIGTERM to SIGKILL. */
  readonly stopWithinMs: number;
  readonly signal?: AbortSignal | undefined;
}

const RECORD = 'server.json';
const recordSchema = z.object({ pid: z.int(), owner: z.int(), address: z.json() });

/** Parent and command line of a living process; undefined when there is none. */
async function inspect(pid: number): Promise<{ parent: number; command: string } | undefined> {
  if (process.platform === 'linux') {
    try {
      const stat = await readFile(`/proc/${pid}/stat`, 'utf8');
      const parent = Number(stat.slice(stat.lastIndexOf(')')).split(' ')[2]);
      const command = (await readFile(`/proc/${pid}/cmdline`, 'utf8')).replaceAll('\0', ' ');
      return { parent, command };
    } catch {
      return undefined;
    }
  }
  const { stdout } = await execa('ps', ['-ww', '-o', 'ppid=,command=', '-p', String(pid)], { reject: false });
  const match = /^\s*(\d+)\s+(.*)$/s.exec(stdout);
  return match === null ? undefined : { parent: Number(match[1]), command: match[2] ?? '' };
}

async function readJson(path: string): Promise<unknown> {
  try {
    return JSON.parse(await readFile(path, 'utf8'));
  } catch {
    return undefined;
  }
}

/**
 * The living server of `directory`, if there is one. It is in use as long as the process that started it lives: when
 * that one was killed, the server has another parent.
 */
export async function findServer(directory: string) {
  const record = recordSchema.safeParse(await readJson(join(directory, RECORD))).data;
  if (record === undefined) return undefined;
  const found = await inspect(record.pid);
  // Some other process may have the number by now.
  if (found === undefined || !found.command.includes(directory)) return undefined;
  return { ...record, inUse: found.parent === record.owner };
}

function send(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch {
    // It is gone already, which is what was wanted.
  }
}

/** Stops what a start that was killed has left running on the same data. */
async function stopLeftover(name: string, directory: string, deadlineMs: number): Promise<void> {
  const deadline = performance.now() + deadlineMs;
  for (let asked = false; ; asked = true) {
    const left = await findServer(directory);
    if (left === undefined) break;
    if (left.inUse) {
      throw new UsageError(
        `${name} already runs on ${directory}, started by process ${left.owner}: stop that one, or set LOCAL_DIR to another folder.`,
      );
    }
    if (performance.now() > deadline) send(left.pid, 'SIGKILL');
    else if (!asked) send(left.pid, 'SIGTERM');
    await sleep(50);
  }
  await rm(join(directory, RECORD), { force: true });
}

/**
 * Starts one server on `directory` and resolves when it answers.
 *
 * It gets a process group of its own, so that a terminal's Ctrl-C reaches only us and the stores stop last. It
 * therefore outlives us when we are killed; the next start on the directory stops it first.
 *
 * @throws UsageError when a living process uses the directory, or when the server dies: with the end of its output.
 */
export async function startServer(options: ServerOptions): Promise<LocalServer> {
  const { name, directory, signal } = options;
  const record = join(directory, RECORD);
  const consoleFile = join(directory, 'console.log');
  await mkdir(directory, { recursive: true });
  await stopLeftover(name, directory, options.stopWithinMs);
  signal?.throwIfAborted();

  const output = openSync(consoleFile, 'w');
  const child = spawn(options.command, options.args, {
    cwd: directory,
    detached: true,
    stdio: ['ignore', output, output],
  });
  closeSync(output);
  let ended: string | undefined;
  const exited = new Promise<string>((resolve) => {
    child.once('error', (error) => resolve(error.message));
    child.once('exit', (code, by) => resolve(by === null ? `exit code ${code}` : by));
  }).then((how) => (ended = `${name} ended (${how})`));

  async function end(by: NodeJS.Signals): Promise<void> {
    if (ended === undefined) child.kill(by);
    const timer = setTimeout(() => child.kill('SIGKILL'), options.stopWithinMs);
    await exited;
    clearTimeout(timer);
    await rm(record, { force: true });
  }

  try {
    if (child.pid !== undefined) {
      const { address } = options;
      writeFileSync(record, JSON.stringify({ pid: child.pid, owner: process.pid, address }), { flag: 'wx' });
    }
    const deadline = performance.now() + options.readyWithinMs;
    while (!(await options.isReady())) {
      signal?.throwIfAborted();
      if (ended !== undefined || performance.now() > deadline) {
        const last = (await readFile(consoleFile, 'utf8')).trim().split('\n').slice(-12).join('\n');
        const what = ended ?? `${name} did not answer within ${options.readyWithinMs / 1_000} s`;
        throw new UsageError(`${what}; the last it said, in ${consoleFile}:\n${last}`);
      }
      await Promise.race([sleep(50), exited]);
    }
  } catch (error) {
    await end('SIGKILL');
    throw error;
  }
  return { pid: child.pid ?? 0, exited, stop: () => end('SIGTERM'), kill: () => end('SIGKILL') };
}
