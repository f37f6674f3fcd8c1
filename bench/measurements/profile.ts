import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Contender, Figures, Measurement } from '../measurement.ts';
import type { Stores } from '../stores.ts';
import { openBacklog, providerOf } from './drain.ts';

interface CallFrame {
  readonly functionName: string;
  readonly url: string;
}
/** What `node --cpu-prof` writes, as far as it is read here; times are in µs. */
interface CpuProfile {
  readonly nodes: readonly { readonly id: number; readonly callFrame: CallFrame }[];
  readonly samples: readonly number[];
  readonly timeDeltas: readonly number[];
}

/** A function, as called by others, what it allocated itself, in bytes, and those that it called. */
interface AllocationNode {
  readonly callFrame: CallFrame;
  readonly selfSize: number;
  readonly children: readonly AllocationNode[];
}

/** Whose code a function is: a package, a folder of src, a part of Node, or what the engine itself does. */
function ownerOf({ functionName, url }: CallFrame): string {
  const [, part] = /node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(url) ?? [];
  if (part !== undefined) return part;
  // The sources run with their types stripped, from a folder beside theirs.
  const [, folder] = /\/\.build-[0-9a-f]+\/([^/]+)/.exec(url) ?? [];
  if (folder !== undefined) return `src/${folder}`;
  if (/crypto|^Hash|^update$|^digest/.test(url + functionName)) return 'node: hashes';
  if (/stream|net\b|writeBuffer|writev|writeUtf8String|readStart/.test(url + functionName))
    return 'node: sockets and streams';
  if (url.startsWith('node:')) return 'node: other';
  return functionName.startsWith('(') ? functionName : 'native functions';
}

/** The largest of what is spent in all, by owner. */
function figuresOf(spent: ReadonlyMap<string, number>, unit: string, records: number): Figures {
  const sorted = [...spent].sort(([, a], [, b]) => b - a).slice(0, 16);
  const all = [...spent.values()].reduce((sum, one) => sum + one, 0);
  return Object.fromEntries(
    [['all', all] as const, ...sorted].map(([owner, sum]) => [`${owner}, ${unit}`, sum / records]),
  );
}

/** Who allocates how much, whether it is kept or not. */
async function allocationsOf(folder: string, records: number): Promise<Figures> {
  const text = await readFile(join(folder, 'allocations.heapprofile'), 'utf8');
  const { head }: { readonly head: AllocationNode } = JSON.parse(text);
  const spent = new Map<string, number>();
  const add = ({ callFrame, selfSize, children }: AllocationNode): void => {
    const owner = ownerOf(callFrame);
    spent.set(owner, (spent.get(owner) ?? 0) + selfSize);
    children.forEach(add);
  };
  add(head);
  return figuresOf(spent, 'bytes a record', records);
}

async function timesOf(space: string, records: number): Promise<Figures> {
  const folder = join(space, 'profile');
  const names = (await readdir(folder)).filter((name) => name.endsWith('.cpuprofile'));
  const texts = await Promise.all(names.map((name) => readFile(join(folder, name), 'utf8')));
  // The main thread's is by far the largest.
  const profile: CpuProfile = JSON.parse(texts.reduce((a, b) => (b.length > a.length ? b : a)));
  const owners = new Map(profile.nodes.map(({ id, callFrame }) => [id, ownerOf(callFrame)]));
  const spent = new Map<string, number>();
  for (const [index, id] of profile.samples.entries()) {
    const owner = owners.get(id) ?? 'unknown';
    spent.set(owner, (spent.get(owner) ?? 0) + (profile.timeDeltas[index] ?? 0));
  }
  spent.delete('(idle)');
  return figuresOf(spent, 'µs a record', records);
}

/** What Node is told to write into the folder of the processor, and how that is read. */
const PROFILES = {
  times: { nodeArgs: ['--cpu-prof', '--cpu-prof-dir=profile'], read: timesOf },
  allocations: {
    nodeArgs: ['--import', new URL('../sample-allocations.js', import.meta.url).href],
    read: allocationsOf,
  },
};

/** One processor drains a backlog under one of Node's own sampling profilers. */
async function profileDrain(stores: Stores, kind: keyof typeof PROFILES, round: number, pairs: number) {
  const provider = providerOf(round);
  const { nodeArgs, read } = PROFILES[kind];
  const backlog = { provider, pairs, processors: 1 };
  const { space, files, replicas, drained } = await openBacklog(stores, backlog, nodeArgs);
  try {
    await space.ingest.resume();
    await drained();
    await Promise.all(replicas.map((replica) => replica.stop()));
    return { figures: await read(space.folder, files.length * provider.records) };
  } finally {
    await space.close();
  }
}

export const profile: Measurement = {
  name: 'profile',
  about: 'what functions of a processor take themselves, by whose they are: time and memory (with its start)',
  plan: (stores, options) => {
    const pairs = options.quick ? 300 : 2_000;
    const contender = (name: keyof typeof PROFILES): Contender => {
      return { name, run: (round) => profileDrain(stores, name, round, pairs) };
    };
    return { contenders: [contender('times'), contender('allocations')], rounds: Math.min(3, options.rounds) };
  },
};
