import { constants } from 'node:fs';
import { access, opendir, readFile, statfs } from 'node:fs/promises';
import { join } from 'node:path';
import { UsageError, type Config } from '../config.ts';
import { runTool } from '../local/maven.ts';
import { findLocalServices } from '../local/services.ts';
import { isScanned } from '../producers/data-folder.ts';
import { connectQueues } from '../queues/redis.ts';
import { connectStore } from '../storage/client.ts';
import { migrations } from '../storage/schema.ts';
import { printable } from './printable.ts';
import type { Runtime } from './runtime.ts';

/** One thing that was looked at: what was found, and what to do unless it is ok. */
interface Line {
  readonly check: string;
  readonly state: 'ok' | 'warn' | 'wrong';
  readonly found: string;
  readonly advice: string;
}
type Problem = readonly [isSo: boolean, state: 'warn' | 'wrong', advice: string];
type Look = Pick<Runtime, 'config' | 'log'>;

const GIB = 1024 ** 3;
const CLOCK_SKEW_MS = 1_000;
/** Magic numbers of file systems that other machines write to without this one being told, from Linux's magic.h. */
const NETWORK_FILE_SYSTEMS: Readonly<Record<number, string>> = {
  0x6969: 'NFS',
  0x517b: 'SMB',
  0xff534d42: 'CIFS',
  0xfe534d42: 'SMB',
  0x65735546: 'FUSE',
  0x01021997: '9P',
  0x00c36400: 'CephFS',
  0x5346414f: 'AFS',
  0x0bd00bd0: 'Lustre',
};

/** The first problem that is so decides. */
function line(check: string, found: string, ...problems: readonly Problem[]): Line {
  const [, state, advice] = problems.find(([isSo]) => isSo) ?? [true, 'ok', ''];
  return { check, state, found, advice };
}

const isOlder = (version: string, than: string) => version.localeCompare(than, 'en', { numeric: true }) < 0;
const gib = (bytes: number) => `${(bytes / GIB).toFixed(1)} GiB`;

function clockLine(check: string, skewMs: number): Line {
  const found = `this machine is ${Math.abs(skewMs).toFixed(0)} ms ${skewMs < 0 ? 'behind' : 'ahead'}`;
  const advice = 'Let an NTP service keep the clocks: summaries stay right, but ages and waiting times are off.';
  return line(check, found, [Math.abs(skewMs) > CLOCK_SKEW_MS, 'warn', advice]);
}

function checkNode(): Line[] {
  const advice = 'Install Node 20.19 or later: https://nodejs.org/en/download.';
  return [line('Node', process.versions.node, [isOlder(process.versions.node, '20.19'), 'wrong', advice])];
}

/** Only where this machine's own Cassandra is meant. */
async function checkJava({ config }: Look): Promise<Line[]> {
  const local = await findLocalServices(config.LOCAL_DIR);
  const isLocal = config.CASSANDRA_CONTACT_POINTS === undefined || local?.cassandra?.port === config.CASSANDRA_PORT;
  if (!isLocal) return [];
  const version = /version "([\d.]+)/.exec(await runTool('java', ['-version']))?.[1] ?? 'unknown';
  const isFit = /^(1[7-9]|2[0-3])\b/.test(version);
  return [line('Java', version, [!isFit, 'wrong', 'The local Cassandra needs Java 17 to 23 on the PATH.'])];
}

async function checkRedis({ config, log }: Look): Promise<Line[]> {
  const queues = await connectQueues(config, log, true);
  try {
    const sentAt = Date.now();
    const [seconds, micros] = await queues.connection.time();
    const skewMs = (sentAt + Date.now()) / 2 - Number(seconds) * 1000 - Number(micros) / 1000;
    return [...queues.infos.flatMap(redisLines), clockLine('Redis clock', skewMs)];
  } finally {
    queues.close();
  }
}

/** What one node says of itself. */
function redisLines(info: string): Line[] {
  const field = (name: string) => new RegExp(`^${name}:(.*?)\r?$`, 'm').exec(info)?.[1] ?? '';
  const version = field('redis_version');
  const policy = field('maxmemory_policy');
  const [used, limit] = [Number(field('used_memory')), Number(field('maxmemory'))];
  const full = used / (limit || Infinity);
  const more = 'Raise maxmemory: when it is full, no file can be queued any more.';
  const append =
    'Set appendonly yes: without it a crash loses the queues, and every file is looked up and queued again.';
  return [
    line('Redis version', version, [
      isOlder(version, '6.2'),
      'wrong',
      'Upgrade it to 6.2 or later, which BullMQ needs.',
    ]),
    line(
      'Redis append-only file',
      field('aof_enabled') === '1' ? `on, last write ${field('aof_last_write_status')}` : 'off',
      [field('aof_enabled') !== '1', 'warn', append],
      [field('aof_last_write_status') !== 'ok', 'wrong', "Look at Redis' log, and whether its disk is full."],
    ),
    line('Redis eviction', policy, [
      policy !== 'noeviction',
      'wrong',
      'Set maxmemory-policy noeviction: it may evict queued files.',
    ]),
    line(
      'Redis memory',
      `${gib(used)} of ${limit > 0 ? gib(limit) : 'what the machine has, without a limit'}`,
      [full > 0.95, 'wrong', more],
      [full > 0.75, 'warn', more],
    ),
  ];
}

async function checkCassandra({ config, log }: Look): Promise<Line[]> {
  const store = await connectStore(config, log, '');
  const { CASSANDRA_KEYSPACE: keyspace, CASSANDRA_LOCAL_DATACENTER: center } = config;
  try {
    const columns = 'release_version AS version, data_center AS center';
    const local = await store.run(`SELECT ${columns} FROM system.local`);
    const peers = await store.run(`SELECT ${columns} FROM system.peers`);
    const nodes = [...local.rows, ...peers.rows].map((row) => ({ version: String(row['version']), at: row['center'] }));
    const versions = [...new Set(nodes.map(({ version }) => version))];
    const tooOld = versions.some((version) => isOlder(version, '4.1'));
    const version = line('Cassandra version', versions.join(', '), [tooOld, 'wrong', 'Upgrade it to 4.1 or later.']);
    const clock = clockLine('Cassandra clock', store.clockSkewMs());
    const query = 'SELECT replication FROM system_schema.keyspaces WHERE keyspace_name = ?';
    const replication: Map<string, string> | undefined = (await store.run(query, [keyspace])).rows[0]?.['replication'];
    if (replication === undefined)
      return [version, clock, line('Keyspace', `no ${keyspace}`, [true, 'wrong', 'Run `npx pipeline migrate`.'])];
    const copies = Number(replication.get(center) ?? replication.get('replication_factor') ?? 0);
    const schema = await store.run(`SELECT version FROM ${keyspace}.schema_migrations`).catch(() => ({ rows: [] }));
    const applied = Math.max(0, ...schema.rows.map((row) => Number(row['version'])));
    return [
      version,
      clock,
      replicationLine(config, copies, nodes.filter(({ at }) => at === center).length),
      line(
        'Schema',
        `version ${applied}, this program knows ${migrations.length}`,
        [applied < migrations.length, 'wrong', 'Run `npx pipeline migrate`.'],
        [applied > migrations.length, 'warn', 'The tables are newer than this program: upgrade it.'],
      ),
    ];
  } finally {
    await store.close();
  }
}

function replicationLine(config: Config, copies: number, nodes: number): Line {
  const { CASSANDRA_CONSISTENCY: level, CASSANDRA_LOCAL_DATACENTER: center, CASSANDRA_KEYSPACE: keyspace } = config;
  const majority = Math.floor(copies / 2) + 1;
  const needed = level.endsWith('ONE') ? 1 : level === 'ALL' ? copies : majority;
  const alter = `ALTER KEYSPACE ${keyspace} WITH replication = {'class': 'NetworkTopologyStrategy', '${center}': N}`;
  const few = Math.min(copies, nodes);
  return line(
    'Replication',
    `${copies} copies on ${nodes} node(s) of ${center}, consistency ${level}`,
    [copies === 0, 'wrong', `Set CASSANDRA_LOCAL_DATACENTER, or ${alter}.`],
    [few < needed, 'wrong', `${level} needs ${needed} nodes: start more, or ${alter}, then nodetool repair.`],
    [2 * needed <= copies, 'wrong', 'Set CASSANDRA_CONSISTENCY=LOCAL_QUORUM: reads may miss what was just written.'],
    [
      copies === 1,
      'warn',
      `One copy of each row is lost with its disk. In production: ${alter} with 3, then nodetool repair.`,
    ],
    [few === needed, 'warn', `Every node has to be there for ${level}: use 3 copies and LOCAL_QUORUM.`],
    [
      copies !== config.CASSANDRA_REPLICATION_FACTOR,
      'warn',
      `CASSANDRA_REPLICATION_FACTOR says ${config.CASSANDRA_REPLICATION_FACTOR}, which counts only when the keyspace is made: ${alter}.`,
    ],
  );
}

async function checkDataFolder({ config }: Look): Promise<Line[]> {
  const { DATA_DIR, AFTER_LOAD, RECONCILE_SECONDS } = config;
  const { R_OK, W_OK, X_OK } = constants;
  const may = (mode: number) =>
    access(DATA_DIR, mode).then(
      () => true,
      () => false,
    );
  if (!(await may(constants.F_OK)))
    return [
      line('DATA_DIR', `${DATA_DIR} is not there`, [true, 'warn', 'It is made at the start; is the name right?']),
    ];
  const [reads, writes] = [await may(R_OK | X_OK), await may(W_OK)];
  const kind = NETWORK_FILE_SYSTEMS[(await statfs(DATA_DIR)).type];
  const lateFiles = `No event comes for what other machines write: files are found every RECONCILE_SECONDS (${RECONCILE_SECONDS}).`;
  return [
    line(
      'DATA_DIR',
      `${DATA_DIR} can be ${reads ? 'read' : 'not read'}, ${writes ? 'written' : 'not written'}`,
      [!reads, 'wrong', 'Give this user the right to read and enter it.'],
      [!writes && AFTER_LOAD !== 'keep', 'wrong', `AFTER_LOAD=${AFTER_LOAD} needs the right to write there.`],
    ),
    line('File system', kind ?? 'local', [kind !== undefined, 'warn', lateFiles]),
    ...(reads ? await inotifyLines(DATA_DIR) : []),
  ];
}

/** A watch is needed for each folder. */
async function inotifyLines(dataDir: string): Promise<Line[]> {
  const limit = Number(await readFile('/proc/sys/fs/inotify/max_user_watches', 'utf8').catch(() => ''));
  if (limit === 0) return [];
  const folders = await countFolders(dataDir, '');
  const advice = `Raise it, as in sysctl fs.inotify.max_user_watches=${Math.max(524_288, folders * 4)}: without a watch, files are found by reconciliation only.`;
  return [
    line(
      'inotify',
      `${folders} folder(s) to watch, ${limit} watches at most for all programs of this user`,
      [folders > limit, 'wrong', advice],
      [folders > limit / 2, 'warn', advice],
    ),
  ];
}

async function countFolders(dataDir: string, below: string): Promise<number> {
  let folders = 1;
  for await (const entry of (await opendir(join(dataDir, below)).catch(() => undefined)) ?? []) {
    const path = join(below, entry.name);
    if (entry.isDirectory() && isScanned(path)) folders += await countFolders(dataDir, path);
  }
  return folders;
}

async function checkDisk({ config }: Look): Promise<Line[]> {
  const { bavail, blocks, bsize } = await statfs(config.DATA_DIR).catch(() => statfs('.'));
  const [free, share] = [bavail * bsize, bavail / blocks];
  const advice = 'Make room, or let loaded files go: AFTER_LOAD=delete.';
  return [
    line(
      'Free disk',
      `${gib(free)} (${Math.round(share * 100)} %) where DATA_DIR is`,
      [free < GIB / 4, 'wrong', advice],
      [free < 2 * GIB || share < 0.05, 'warn', advice],
    ),
  ];
}

/** Looks at everything that the pipeline stands on, prints a line for each, and fails when something is wrong. */
export async function doctor(runtime: Runtime, options: { json: boolean }): Promise<void> {
  const look = { config: runtime.config, log: runtime.log.child({}, { level: 'silent' }) };
  const looks = {
    Node: checkNode,
    Java: checkJava,
    Redis: checkRedis,
    Cassandra: checkCassandra,
    DATA_DIR: checkDataFolder,
    Disk: checkDisk,
  };
  const found = Object.entries(looks).map(async ([check, lines]) => {
    try {
      return await lines(look);
    } catch (error) {
      return [line(check, error instanceof Error ? error.message : String(error), [true, 'wrong', ''])];
    }
  });
  const lines = (await Promise.all(found)).flat();
  const text = lines.map(({ state, check, found: what, advice }) =>
    printable(`${state.padEnd(7)}${check.padEnd(24)}${what}${advice && ` → ${advice}`}`),
  );
  process.stdout.write(options.json ? `${JSON.stringify(lines)}\n` : `${text.join('\n')}\n`);
  const wrong = lines.filter(({ state }) => state === 'wrong').length;
  if (wrong > 0) throw new UsageError(`${wrong} of ${lines.length} checks found something wrong.`);
}
