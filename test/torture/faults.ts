import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { execa } from 'execa';
import type { Observer } from './observer.ts';
import type { Provider } from './provider.ts';
import type { Trouble } from './proxy.ts';
import type { Random } from './random.ts';
import { PROCESSORS, ROLES, type Rig } from './rig.ts';

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

/** Kills Cassandra, and says what it has forgotten before anybody may write again. */
async function killCassandra({ rig, observer, tail, random }: Scene): Promise<void> {
  const keys = async () => {
    const events = await rig.read('SELECT event_id FROM vehicle_events');
    const files = await rig.read('SELECT name, version FROM files');
    return { events, files };
  };
  const before = await keys();
  await rig.killCassandra();
  rig.proxies.cassandra.set('cut');
  await sleep(random.int(0, 2_000));
  await rig.startCassandra();
  let after: typeof before | undefined;
  while (after === undefined) after = await keys().catch(() => sleep(100).then(() => undefined));
  const missing = (had: object[], has: object[]) => {
    const there = new Set(has.map((row) => JSON.stringify(row)));
    return had.filter((row) => !there.has(JSON.stringify(row))).length;
  };
  const lost = { files: missing(before.files, after.files), events: missing(before.events, after.events) };
  tail.kills += 1;
  tail.ledgerRows += lost.files;
  tail.eventRows += lost.events;
  rig.note(`cassandra lost ${lost.files} acknowledged ledger rows and ${lost.events} acknowledged events`);
  observer.cassandraLostItsTail();
  rig.proxies.cassandra.set('none');
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
    await sleep(6_000);
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
  fault('all', 'everything killed', async (scene) => {
    const roles = Promise.all(ROLES.map((name) => scene.rig.roles[name].restart('SIGKILL')));
    await Promise.all([roles, killRedis(scene), killCassandra(scene)]);
  }),
  fault('folder', 'archive full', fillArchive),
  ...troubles,
];

/** A process ends itself just before, or just after, a step; `step` begins with the role. */
export function killAtStep(step: string, when: 'before' | 'after'): Fault {
  return fault('roles', `killed ${when}: ${step}`, async ({ rig, random }) => {
    const starts = () => ROLES.reduce((sum, name) => sum + rig.roles[name].starts, 0);
    const before = starts();
    await rig.tell('armed.json', JSON.stringify({ step, when, nth: random.int(1, 3) }));
    const until = Date.now() + 8_000;
    while ((await rig.told('armed.json')) !== '' && Date.now() < until) await sleep(50);
    if ((await rig.told('armed.json')) !== '') {
      await rig.tell('armed.json');
      return false;
    }
    while (starts() === before) await sleep(20);
    return true;
  });
}
