import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Figures, Measurement } from '../measurement.ts';
import type { Stores } from '../stores.ts';
import { openBacklog, providerOf } from './drain.ts';

/** What `node --cpu-prof` writes, as far as it is read here; times are in µs. */
interface CpuProfile {
  readonly nodes: readonly { readonly id: number; readonly callFrame: { functionName: string; url: string } }[];
  readonly samples: readonly number[];
  readonly timeDeltas: readonly number[];
}

/** Whose code a function is: a package, a folder of src, a part of Node, or what the engine itself does. */
function ownerOf({ functionName, url }: CpuProfile['nodes'][number]['callFrame']): string {
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

async function profileOf(folder: string, records: number): Promise<Figures> {
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
  const sorted = [...spent].sort(([, a], [, b]) => b - a).slice(0, 16);
  return Object.fromEntries(sorted.map(([owner, us]) => [`${owner}, µs a record`, us / records]));
}

/** One processor drains a backlog under Node's own sampling profiler. */
async function profileDrain(stores: Stores, round: number, pairs: number) {
  const provider = providerOf(round);
  const { space, files, replicas, drained } = await openBacklog(stores, { provider, pairs, processors: 1 }, [
    '--cpu-prof',
    '--cpu-prof-dir=profile',
  ]);
  try {
    await space.ingest.resume();
    await drained();
    await Promise.all(replicas.map((replica) => replica.stop()));
    return { figures: await profileOf(join(space.folder, 'profile'), files.length * provider.records) };
  } finally {
    await space.close();
  }
}

export const profile: Measurement = {
  name: 'profile',
  about: 'where the time of a processor goes: the time of functions themselves, by whose they are (with its start)',
  plan: (stores, options) => {
    const pairs = options.quick ? 300 : 2_000;
    const run = (round: number) => profileDrain(stores, round, pairs);
    return { contenders: [{ name: 'processor', run }], rounds: Math.min(3, options.rounds) };
  },
};
