import { readdir, readFile } from 'node:fs/promises';

/** Linux counts processor time in hundredths of a second, whatever the kernel's own tick is. */
const TICKS_PER_SECOND = 100;

interface ProcessState {
  readonly parent: number;
  readonly cpuSeconds: number;
  readonly rssBytes: number;
}

async function readState(pid: number): Promise<ProcessState | undefined> {
  const text = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => undefined);
  if (text === undefined) return undefined;
  // The name, in brackets, may hold anything; the fields after it are numbers. The 4th of all is the parent.
  const fields = text
    .slice(text.lastIndexOf(')') + 2)
    .split(' ')
    .map(Number);
  const field = (number: number) => fields[number - 3] ?? 0;
  const cpuSeconds = (field(14) + field(15) + field(16) + field(17)) / TICKS_PER_SECOND;
  return { parent: field(4), cpuSeconds, rssBytes: field(24) * 4_096 };
}

/** The living processes among these and all that they have started. */
async function withDescendants(pids: readonly number[]): Promise<ProcessState[]> {
  const all = new Map<number, ProcessState>();
  for (const name of await readdir('/proc')) {
    const state = /^\d+$/.test(name) ? await readState(Number(name)) : undefined;
    if (state !== undefined) all.set(Number(name), state);
  }
  const isOurs = (pid: number): boolean => {
    const parent = all.get(pid)?.parent;
    return pids.includes(pid) || (parent !== undefined && parent > 1 && isOurs(parent));
  };
  return [...all].filter(([pid]) => isOurs(pid)).map(([, state]) => state);
}

const sum = (numbers: readonly number[]) => numbers.reduce((total, number) => total + number, 0);

/** What processes and all that they have started use now: seconds of processor time so far, and resident memory. */
export async function usageOf(pids: readonly number[]): Promise<{ cpuSeconds: number; rssBytes: number }> {
  const states = await withDescendants(pids);
  return { cpuSeconds: sum(states.map((one) => one.cpuSeconds)), rssBytes: sum(states.map((one) => one.rssBytes)) };
}

/** Looks at processes again and again until `stop`, which says what they used meanwhile. */
export async function watchUsage(pids: readonly number[], everyMs = 1_000) {
  const first = await usageOf(pids);
  let peak = first.rssBytes;
  const look = async () => {
    const { rssBytes } = await usageOf(pids);
    peak = Math.max(peak, rssBytes);
  };
  const timer = setInterval(() => void look(), everyMs);
  return {
    /** Seconds of processor time since the watching began, and all of it; the peak of the resident memory together. */
    stop: async () => {
      clearInterval(timer);
      const last = await usageOf(pids);
      const cpuSeconds = last.cpuSeconds - first.cpuSeconds;
      return { cpuSeconds, lifeCpuSeconds: last.cpuSeconds, peakRssBytes: Math.max(peak, last.rssBytes) };
    },
  };
}

/** Open file descriptors and inotify watches of one process. */
export async function handlesOf(pid: number): Promise<{ descriptors: number; inotifyWatches: number }> {
  const descriptors = await readdir(`/proc/${pid}/fdinfo`).catch(() => []);
  const infos = await Promise.all(
    descriptors.map((number) => readFile(`/proc/${pid}/fdinfo/${number}`, 'utf8').catch(() => '')),
  );
  const inotifyWatches = sum(
    infos.map((info) => info.split('\n').filter((line) => line.startsWith('inotify ')).length),
  );
  return { descriptors: descriptors.length, inotifyWatches };
}
