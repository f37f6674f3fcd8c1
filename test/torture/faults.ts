import { mkdir, writeFile } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { execa } from 'execa';
import { z } from 'zod';
import { idOf } from '../integration/recomputation.ts';
import type { Observer } from './observer.ts';
import type { Provider } from './provider.ts';
import type { Trouble } from './proxy.ts';
import type { Random } from './random.ts';
import { PROCESSORS, ROLES, type Rig } from './rig.ts';

const firedSchema = z.object({ role: z.string(), about: z.string() });

/** What a fault may use. */
export interface Scene {
  readonly rig: Rig;
  readonly provider: Provider;
  readonly observer: Observer;
  readonly random: Random;
  /** Rows that Cassandra had acknowledged and did not have any more after it was killed. */
  readonly tail: { kills: number; ledgerRows: number; eventRows: number };
}

/** Something that goes wrong. Resolves when it is over; what was lost of it then has to be made good. */
export interface Fault {
  readonly name: string;
  /** Faults of one place are not made at the same time. */
  readonly place: 'roles' | 'redis' | 'cassandra' | 'folder' | 'all';
  /** Resolves to false when it did not come to it. */
  readonly run: (scene: Scene) => Promise<boolean>;
}

const fault = (place: Fault['place'], name: string, run: (scene: Scene) => Promise<unknown>): Fault => ({
  name,
  place,
  run: async (scene) => (await run(scene)) !== false,
});

/** Resolves to the processor that an aggregation run is active in. */
async function aggregatingProcessor({ rig }: Scene) {
  const until = Date.now() + 5_000;
  while (Date.now() < until) {
    const active = await Promise.race([rig.queues.aggregation.getActive(), sleep(1_000, [])]);
    const by = active[0]?.processedBy ?? '';
    const name = PROCESSORS.find((one) => by.endsWith(`:${rig.roles[one].pid}`));
    if (name !== undefined) return name;
  }
  return undefined;
}

/** Files that are being loaded when Cassandra is killed. */
const BURST = 80;

/**
 * Kills Cassandra in the middle of a burst of files, and says what it had acknowledged and has forgotten, before anybody
 * may write again. It is what it wrote to its commit log since it last marked there what is whole, some tenths of a second.
 */
async function killCassandra({ rig, provider, observer, tail, random }: Scene): Promise<void> {
  const names = Array.from({ length: BURST }, (_, n) => `vehicles_events_burst${tail.kills}_${n}.json`);
  await Promise.all(names.map((name) => provider.put(name, provider.eventContent(random, name), 'loaded')));
  const loaded = async () => {
    const rows = await rig.read('SELECT name FROM files WHERE name IN ?', [names]);
    return new Set(rows.map((row) => String(row['name'])));
  };
  let acknowledged = await loaded();
  const until = Date.now() + 5_000;
  while (acknowledged.size < BURST / 2 && Date.now() < until) acknowledged = await loaded();
  await rig.killCassandra();
  rig.proxies.cassandra.set('cut');
  await sleep(random.int(0, 2_000));
  observer.cassandraLostItsTail();
  await rig.startCassandra();
  const there = await loaded();
  const rows = await rig.read('SELECT event_id FROM vehicle_events');
  const ids = new Set(rows.map((row) => row['event_id']));
  // The rows of a file were acknowledged before its row in the ledger was.
  const files = [...provider.files.values()].filter(({ name }) => acknowledged.has(name));
  const events = files.flatMap((file) => file.events).filter((event) => !ids.has(idOf(event)));
  const forgotten = files.filter(({ name }) => !there.has(name));
  tail.kills += 1;
  tail.ledgerRows += forgotten.length;
  tail.eventRows += events.length;
  rig.note(`cassandra forgot ${forgotten.length} of ${files.length} ledger rows and ${events.length} events`);
  rig.proxies.cassandra.set('none');
}

/** Tables whose rows say that something was done to others. */
const TABLES = ['aggregation_state', 'reconciliation_state', 'change_log', 'hourly_summary', 'vehicle_status'];

/** Each table goes to disk by itself: a row of one may be safe there while what it speaks of in another is not yet. */
async function killCassandraAfterFlushOf(table: string, scene: Scene): Promise<void> {
  const flushEvery = (ms: number) => scene.rig.read(`ALTER TABLE ${table} WITH memtable_flush_period_in_ms = ${ms}`);
  await flushEvery(200);
  await sleep(3_000);
  await killCassandra(scene);
  await flushEvery(0);
}

async function killRedis({ rig, random }: Scene): Promise<void> {
  await rig.killRedis();
  await sleep(random.int(0, 2_000));
  await rig.startRedis();
}

const troubles = (['cut', 'swallow', 'delay', 'half-open'] as const).flatMap((trouble: Trouble) =>
  (['redis', 'cassandra'] as const).map((store) =>
    fault(store, `${store} connection: ${trouble}`, async ({ rig, random }) => {
      rig.proxies[store].set(trouble);
      await sleep(random.int(2_000, 6_000));
      rig.proxies[store].set('none');
    }),
  ),
);

/** A file system without room where loaded files go. Needs the right to mount. */
async function fillArchive({ rig }: Scene): Promise<boolean> {
  const archive = join(rig.data, 'archive');
  await mkdir(archive, { recursive: true });
  const { failed } = await execa('mount', ['-t', 'tmpfs', '-o', 'size=4k,nr_inodes=2', 'none', archive], {
    reject: false,
  });
  if (failed) return false;
  try {
    await writeFile(join(archive, '.full'), '');
    await sleep(8_000);
  } finally {
    await execa('umount', ['-l', archive]);
  }
  return true;
}

export const faults: readonly Fault[] = [
  fault('roles', 'watcher killed', ({ rig }) => rig.roles.watch.restart('SIGKILL')),
  fault('roles', 'processor killed', ({ rig, random }) => rig.roles[random.pick(PROCESSORS)].restart('SIGKILL')),
  fault('roles', 'all processors killed', ({ rig }) =>
    Promise.all(PROCESSORS.map((name) => rig.roles[name].restart('SIGKILL'))),
  ),
  fault('roles', 'aggregating processor killed', async (scene) => {
    const name = await aggregatingProcessor(scene);
    return name !== undefined && scene.rig.roles[name].restart('SIGKILL');
  }),
  fault('roles', 'board killed', ({ rig }) => rig.roles.board.restart('SIGKILL')),
  fault('roles', 'processor stopped for 15 s', async ({ rig, random }) => {
    const role = rig.roles[random.pick(PROCESSORS)];
    role.signal('SIGSTOP');
    await sleep(15_000);
    role.signal('SIGCONT');
  }),
  fault('roles', 'watcher stopped for 15 s', async ({ rig }) => {
    rig.roles.watch.signal('SIGSTOP');
    await sleep(15_000);
    rig.roles.watch.signal('SIGCONT');
  }),
  fault('roles', 'rolling restart', async ({ rig }) => {
    for (const name of ROLES) await rig.roles[name].restart('SIGTERM');
  }),
  fault('roles', 'clock stepped', async ({ rig, random }) => {
    const file = `clock-${random.pick(['watch', ...PROCESSORS])}`;
    await rig.tell(file, String(random.pick([-1, 1]) * random.int(2, 10) * 60_000));
    await sleep(random.int(3_000, 6_000));
    await rig.tell(file);
  }),
  fault('roles', 'file that ends its processor', async ({ provider, random }) => {
    const kills = random.chance(0.3) ? 9 : random.int(1, 2);
    const name = `vehicles_events_${Date.now()}_poison${kills}.json`;
    const content = provider.eventContent(random, name);
    if (kills < 9) await provider.put(name, content, 'loaded');
    else await provider.put(name, { ...content, events: [], records: 0 }, 'dead letter', /^ended \d processors/);
  }),
  fault('redis', 'redis killed', killRedis),
  fault('redis', 'redis flushed', ({ rig }) => rig.redis.flushall()),
  fault('redis', 'redis at its memory limit', async ({ rig, random }) => {
    const used = Number(/used_memory:(\d+)/.exec(await rig.redis.info('memory'))?.[1]);
    await rig.redis.config('SET', 'maxmemory', String(used + random.int(0, 20_000)));
    await sleep(random.int(2_000, 5_000));
    await rig.redis.config('SET', 'maxmemory', '0');
  }),
  fault('cassandra', 'cassandra killed', killCassandra),
  fault('cassandra', 'cassandra killed after a flush of the ledger', (scene) =>
    killCassandraAfterFlushOf('files', scene),
  ),
  fault('cassandra', 'cassandra killed after a flush of another table', (scene) =>
    killCassandraAfterFlushOf(scene.random.pick(TABLES), scene),
  ),
  fault('all', 'everything killed', async (scene) => {
    const roles = Promise.all(ROLES.map((name) => scene.rig.roles[name].restart('SIGKILL')));
    await Promise.all([roles, killRedis(scene), killCassandra(scene)]);
  }),
  fault('folder', 'archive full', fillArchive),
  fault('roles', 'file rewritten while it is moved', rewriteWhileMoved),
  ...troubles,
];

/** Resolves, when a process has come to the step and has sent itself the signal, to its role and the file concerned. */
async function signalAtStep({ rig }: Scene, step: string, when: 'before' | 'after', signal: NodeJS.Signals, nth = 1) {
  await rig.tell('fired.json');
  await rig.tell('armed.json', JSON.stringify({ step, when, nth, signal }));
  const until = Date.now() + 30_000;
  while (Date.now() < until) {
    const fired = await rig.told('fired.json');
    if (fired.endsWith('}')) return firedSchema.parse(JSON.parse(fired));
    await sleep(50);
  }
  await rig.tell('armed.json');
  return undefined;
}

/** The watcher stops just before it moves a loaded file away; the provider puts another version in its place. */
async function rewriteWhileMoved(scene: Scene): Promise<boolean> {
  const { rig, provider, random } = scene;
  const fired = await signalAtStep(scene, 'watch folder rename', 'before', 'SIGSTOP');
  if (fired === undefined) return false;
  const name = relative(rig.data, fired.about);
  if (!name.includes('poison') && name.includes('events'))
    await provider.replace(name, provider.eventContent(random, name));
  rig.note(`${name} is rewritten while it is moved`);
  rig.roles.watch.signal('SIGCONT');
  return true;
}

/** A process ends itself just before, or just after, a step; `step` begins with the role. */
export function killAtStep(step: string, when: 'before' | 'after'): Fault {
  return fault('roles', `killed ${when}: ${step}`, async (scene) => {
    const starts = () => ROLES.reduce((sum, name) => sum + scene.rig.roles[name].starts, 0);
    const before = starts();
    if (/slice|distinct|WaitingChildren|updateData/.test(step))
      await scene.rig.queues.aggregation.add('rebuild by the torture suite', { rebuild: true });
    if ((await signalAtStep(scene, step, when, 'SIGKILL', scene.random.int(1, 3))) === undefined) return false;
    while (starts() === before) await sleep(20);
    return true;
  });
}
