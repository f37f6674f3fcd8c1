import { constants } from 'node:fs';
import { access, readFile, statfs } from 'node:fs/promises';
import { UsageError, type Config } from '../config.ts';
import { isFitForCassandra, javaVersion } from '../local/maven.ts';
import { findLocalServices } from '../local/find.ts';
import { isLookedInto, pathsBelow } from '../data-folder.ts';
import { connectQueues } from '../queues/redis.ts';
import { messageOf, type Runtime } from '../runtime.ts';
import { connectStore } from '../storage/client.ts';
import { appliedVersion } from '../storage/migrations.ts';
import { migrations } from '../storage/schema.ts';
import { print, printable } from '../terminal.ts';

/** One thing that was looked at: what was found, and what to do unless it is ok. */
type Line = { check: string; state: 'ok' | 'warn' | 'wrong'; found: string; advice: string };
/** What to do about something wrong, or about what is only worth a warning; false or nothing when all is well. */
type Advice = { wrong?: string | false; warn?: string | false };

const GIB = 1024 ** 3;
/** NFS, SMB (three), FUSE, 9P, CephFS: what other machines write to them, inotify does not tell. From Linux's magic.h. */
const NETWORK_FILE_SYSTEMS = [0x6969, 0x517b, 0xff534d42, 0xfe534d42, 0x65735546, 0x01021997, 0x00c36400];

function line(check: string, found: string, { wrong, warn }: Advice = {}): Line {
  return { check, state: wrong ? 'wrong' : warn ? 'warn' : 'ok', found, advice: wrong || warn || '' };
}

const gib = (bytes: number) => `${(bytes / GIB).toFixed(1)} GiB`;
const isOlder = (version: string, than: string) => version.localeCompare(than, 'en', { numeric: true }) < 0;

function clockLine(check: string, skewMs: number): Line {
  const found = `this machine is ${Math.abs(skewMs).toFixed(0)} ms ${skewMs < 0 ? 'behind' : 'ahead'}`;
  return line(check, found, { warn: Math.abs(skewMs) > 1_000 && 'Keep the clocks in step with NTP: ages are off.' });
}

async function checkNode(config: Config): Promise<Line[]> {
  const version = process.versions.node;
  const node = line('Node', version, {
    wrong: isOlder(version, '20.19') && 'Install Node 20.19 or later.',
    warn: isOlder(version, '22') && 'Its security is mended no more since April 2026: newer ones are, and faster.',
  });
  const local = await findLocalServices(config.LOCAL_DIR);
  // Java is only for a Cassandra of this machine.
  const isLocal = config.CASSANDRA_CONTACT_POINTS === undefined || local.CASSANDRA_PORT === config.CASSANDRA_PORT;
  if (!isLocal) return [node];
  const java = await javaVersion().catch(String);
  return [node, line('Java', java, { wrong: !isFitForCassandra(java) && 'Put Java 17 to 23 on the PATH.' })];
}

async function checkRedis(config: Config, log: Runtime['log']): Promise<Line[]> {
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
  const [version, policy] = [field('redis_version'), field('maxmemory_policy')];
  const [isAppending, written] = [field('aof_enabled') === '1', field('aof_last_write_status')];
  const [used, limit] = [Number(field('used_memory')), Number(field('maxmemory'))];
  const full = used / (limit || Infinity);
  const more = 'Raise maxmemory: once it is reached, no file can be queued.';
  return [
    line('Redis version', version, { wrong: isOlder(version, '6.2') && 'Upgrade it to 6.2 or later.' }),
    line('Redis append-only file', isAppending ? `on, last write ${written}` : 'off', {
      wrong: isAppending && written !== 'ok' && "Look at Redis' log, and whether its disk is full.",
      warn: !isAppending && 'Set appendonly yes, or a crash of it makes all files be looked up and queued again.',
    }),
    line('Redis eviction', policy, { wrong: policy !== 'noeviction' && 'Set maxmemory-policy to noeviction.' }),
    line('Redis memory', `${gib(used)} of ${limit > 0 ? gib(limit) : "the machine's, without a limit"}`, {
      wrong: full > 0.95 && more,
      warn: full > 0.75 && more,
    }),
  ];
}

async function checkCassandra(config: Config, log: Runtime['log']): Promise<Line[]> {
  const { CASSANDRA_KEYSPACE: keyspace, CASSANDRA_LOCAL_DATACENTER: center } = config;
  const store = await connectStore(config, log, '');
  try {
    const tables = ['system.local', 'system.peers'];
    const results = tables.map((table) => store.run(`SELECT release_version, data_center FROM ${table}`));
    const nodes = (await Promise.all(results)).flatMap(({ rows }) => rows);
    const versions = [...new Set(nodes.map((node) => String(node['release_version'])))];
    const tooOld = versions.some((version) => isOlder(version, '4.1'));
    const lines = [
      line('Cassandra version', versions.join(', '), { wrong: tooOld && 'Upgrade it to 4.1 or later.' }),
      clockLine('Cassandra clock', store.clockSkewMs()),
    ];
    const query = 'SELECT replication FROM system_schema.keyspaces WHERE keyspace_name = ?';
    const replication: Map<string, string> | undefined = (await store.run(query, [keyspace])).rows[0]?.['replication'];
    if (replication === undefined)
      return [...lines, line('Keyspace', `no ${keyspace}`, { wrong: 'Run `npx pipeline migrate`.' })];
    const copies = Number(replication.get(center) ?? replication.get('replication_factor') ?? 0);
    const there = nodes.filter((node) => node['data_center'] === center).length;
    const version = await appliedVersion(store, `${keyspace}.`).catch(() => 0);
    const schema = line('Schema', `version ${version}, this program knows ${migrations.length}`, {
      wrong: version < migrations.length && 'Run `npx pipeline migrate`.',
      warn: version > migrations.length && 'The tables are newer than this program: upgrade it.',
    });
    return [...lines, replicationLine(config, copies, there), schema];
  } finally {
    await store.close();
  }
}

function replicationLine(config: Config, copies: number, nodes: number): Line {
  const { CASSANDRA_CONSISTENCY: level, CASSANDRA_LOCAL_DATACENTER: center, CASSANDRA_KEYSPACE: keyspace } = config;
  const needed = level.endsWith('ONE') ? 1 : level === 'ALL' ? copies : Math.floor(copies / 2) + 1;
  const alter = `ALTER KEYSPACE ${keyspace} WITH replication = {'class': 'NetworkTopologyStrategy', '${center}': 3}`;
  const spare = Math.min(copies, nodes) - needed;
  return line('Replication', `${copies} copies on ${nodes} node(s) of ${center}, consistency ${level}`, {
    wrong:
      (copies === 0 && `Set CASSANDRA_LOCAL_DATACENTER, or ${alter}.`) ||
      (spare < 0 && `${level} needs ${needed} nodes: start more.`) ||
      (2 * needed <= copies && 'Set CASSANDRA_CONSISTENCY=LOCAL_QUORUM: reads may miss what was just written.'),
    warn: spare === 0 && `No node may fail. In production, start three nodes, ${alter}, then nodetool repair.`,
  });
}

async function checkDataFolder({ DATA_DIR, AFTER_LOAD }: Config): Promise<Line[]> {
  const { R_OK, W_OK, X_OK } = constants;
  const disk = await statfs(DATA_DIR).catch(() => undefined);
  if (disk === undefined)
    return [line('DATA_DIR', `${DATA_DIR} is not there`, { warn: 'It is made at the start: is the name right?' })];
  const { type, bavail, blocks, bsize } = disk;
  const may = async (mode: number) => (await access(DATA_DIR, mode).catch(() => false)) !== false;
  const [reads, writes] = [await may(R_OK | X_OK), await may(W_OK)];
  const isRemote = NETWORK_FILE_SYSTEMS.includes(type);
  const room = 'Make room, or let loaded files go with AFTER_LOAD=delete.';
  return [
    line('DATA_DIR', `${DATA_DIR}: ${reads ? '' : 'no '}reading, ${writes ? '' : 'no '}writing`, {
      wrong: (!reads || (!writes && AFTER_LOAD !== 'keep')) && 'Give this user the rights to it.',
    }),
    line('File system', isRemote ? 'of a network' : 'local', {
      warn: isRemote && "Other machines' files are found every RECONCILE_SECONDS only: no event comes.",
    }),
    line('Free disk', `${gib(bavail * bsize)} of ${gib(blocks * bsize)} where DATA_DIR is`, {
      wrong: bavail * bsize < GIB / 4 && room,
      warn: (bavail * bsize < 2 * GIB || bavail < blocks / 20) && room,
    }),
    ...(reads ? await folderLines(DATA_DIR) : []),
  ];
}

/** Each folder has to be read, and needs a watch. Other systems than Linux have no limit of watches. */
async function folderLines(dataDir: string): Promise<Line[]> {
  let folders = 1;
  const unread: string[] = [];
  const isCounted = (path: string) => {
    const isOne = isLookedInto(path);
    folders += isOne ? 1 : 0;
    return isOne;
  };
  for (const _path of pathsBelow(dataDir, '', isCounted, (folder) => unread.push(folder)));
  const rights = line('Folders', `${folders}, of which ${unread.length} cannot be read`, {
    wrong:
      unread.length > 0 && `Give this user the rights to ${unread.slice(0, 3).join(', ')}: its files are not seen.`,
  });
  const limit = Number(await readFile('/proc/sys/fs/inotify/max_user_watches', 'utf8').catch(() => 0));
  if (limit === 0) return [rights];
  const advice = `Set sysctl fs.inotify.max_user_watches=${folders * 4}, or files are found by reconciliation only.`;
  const found = `${folders} folder(s) to watch, ${limit} watches at most for all programs of a user`;
  return [rights, line('inotify', found, { wrong: folders > limit && advice, warn: folders > limit / 2 && advice })];
}

const CHECKS = { Node: checkNode, Redis: checkRedis, Cassandra: checkCassandra, DATA_DIR: checkDataFolder };

/** Looks at all that the pipeline stands on, prints a line for each, and fails when something is wrong. */
export async function doctor({ config, log }: Runtime, options: { json: boolean }): Promise<void> {
  const silent = log.child({}, { level: 'silent' });
  const looks = Object.entries(CHECKS).map(async ([check, look]) =>
    look(config, silent).catch((error: unknown) => [
      line(check, messageOf(error), { wrong: 'The rest of it could not be looked at.' }),
    ]),
  );
  const lines = (await Promise.all(looks)).flat();
  const texts = lines.map(({ check, state, found, advice }) =>
    printable(`${state.padEnd(6)} ${check.padEnd(23)} ${found}${advice && `  → ${advice}`}`),
  );
  print(options.json, lines, texts.join('\n'));
  const wrong = lines.filter(({ state }) => state === 'wrong').length;
  if (wrong > 0) throw new UsageError(`${wrong} of ${lines.length} checks found something wrong.`);
}
