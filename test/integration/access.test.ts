import { randomBytes } from 'node:crypto';
import { mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { inspect } from 'node:util';
import { auth, Client, type types } from 'cassandra-driver';
import { execa } from 'execa';
import { Redis } from 'ioredis';
import { pino } from 'pino';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parseConfig, UsageError } from '../../src/config.ts';
import { findCassandraJars, startCassandra } from '../../src/local/cassandra.ts';
import { freePort } from '../../src/local/ports.ts';
import { findRedisBinary, startRedis } from '../../src/local/redis.ts';
import { connectQueues } from '../../src/queues/redis.ts';
import { connectStore } from '../../src/storage/client.ts';
import { migrate, requireSchema } from '../../src/storage/migrations.ts';
import { makeCertificates } from './certificates.ts';
import { eventually } from './pipeline.ts';
import { events } from './records.ts';

const ROOT = resolve(import.meta.dirname, '../..');
const LIB = join(ROOT, '.local/lib');
const OPERATIONS = await readFile(join(ROOT, 'docs/operations.md'), 'utf8');

/** A password like no other, so that it can be looked for in whatever is said. */
const secret = (what: string) => `${what}-${randomBytes(12).toString('hex')}`;
const SECRETS = {
  redis: secret('redis'),
  redisAdmin: secret('redis-admin'),
  cassandra: secret('cassandra'),
  migrate: secret('migrate'),
  board: secret('board'),
  keystore: secret('keystore'),
};

/** The rules just as people copy them from the manual, with passwords in the place of their names. */
const [redisRule = ''] = /^user pipeline .*$/m.exec(OPERATIONS) ?? [];
const [migrateGrants = [], pipelineGrants = []] = [...OPERATIONS.matchAll(/^```cql\n(.*?)^```$/gms)].map(
  ([, block = '']) =>
    block
      .replace('MIGRATE_PASSWORD', SECRETS.migrate)
      .replace('PIPELINE_PASSWORD', SECRETS.cassandra)
      .split(';\n')
      .filter((statement) => statement.trim() !== ''),
);

const folder = await mkdtemp(join(tmpdir(), 'access-'));
afterAll(() => rm(folder, { recursive: true, force: true, maxRetries: 10 }));
const files = await makeCertificates(folder, SECRETS.keystore);

/** Redis with TLS alone, a user by the manual's rule, and one for the tests. */
async function startSafeRedis() {
  const port = await freePort(0);
  const users = [
    'user default off',
    `user admin on >${SECRETS.redisAdmin} ~* &* +@all`,
    redisRule.replace('PIPELINE_PASSWORD', SECRETS.redis),
  ];
  await writeFile(join(folder, 'users.acl'), `${users.join('\n')}\n`);
  const tls = [
    '--tls-cert-file',
    files.certificate,
    '--tls-key-file',
    files.key,
    '--tls-ca-cert-file',
    files.authority,
  ];
  const onlyTls = ['--port', '0', '--tls-port', String(port), '--tls-auth-clients', 'no', ...tls];
  const server = await startRedis({
    binary: await findRedisBinary(LIB),
    directory: join(folder, 'redis'),
    port,
    args: [...onlyTls, '--aclfile', join(folder, 'users.acl')],
  });
  afterAll(server.kill);
  const admin = new Redis({
    port,
    username: 'admin',
    password: SECRETS.redisAdmin,
    tls: { ca: await readFile(files.authority) },
  });
  afterAll(() => admin.disconnect());
  return { ...server, admin, url: `rediss://pipeline:${SECRETS.redis}@127.0.0.1:${port}` };
}

/** Cassandra with passwords, rights and TLS alone; `admin` is the superuser that it makes. */
async function startSafeCassandra() {
  const server = await startCassandra({
    jars: await findCassandraJars(LIB),
    directory: join(folder, 'cassandra'),
    port: await freePort(0),
    heapMb: 512,
    settings: {
      authenticator: 'PasswordAuthenticator',
      authorizer: 'CassandraAuthorizer',
      client_encryption_options: {
        enabled: true,
        optional: false,
        keystore: files.keystore,
        keystore_password: SECRETS.keystore,
        store_type: 'PKCS12',
      },
      auto_snapshot: false,
      // What was granted or taken away counts at once.
      ...Object.fromEntries(['roles', 'permissions', 'credentials'].map((cache) => [`${cache}_validity`, '0ms'])),
    },
    flags: ['-Dcassandra.superuser_setup_delay_ms=0'],
  });
  afterAll(server.kill);
  const connect = async () => {
    const client = new Client({
      contactPoints: ['127.0.0.1'],
      localDataCenter: 'datacenter1',
      protocolOptions: { port: server.port },
      authProvider: new auth.PlainTextAuthProvider('cassandra', 'cassandra'),
      sslOptions: { rejectUnauthorized: true, ca: [await readFile(files.authority)] },
    });
    await client.connect();
    return client;
  };
  // The superuser is made a moment after the start.
  const admin = await eventually(connect);
  afterAll(() => admin.shutdown());
  const run = async (...statements: readonly string[]) => {
    let result: types.ResultSet | undefined;
    for (const statement of statements) result = await admin.execute(statement);
    return result?.rows ?? [];
  };
  return { ...server, run };
}

const redis = await startSafeRedis();
const cassandra = await startSafeCassandra();
const dataDir = join(folder, 'data');
await mkdir(dataDir);
const boardPort = await freePort(0);
const environment = {
  DATA_DIR: dataDir,
  REDIS_URL: redis.url,
  REDIS_TLS_CA_FILE: files.authority,
  CASSANDRA_CONTACT_POINTS: '127.0.0.1',
  CASSANDRA_PORT: String(cassandra.port),
  CASSANDRA_TLS: 'true',
  CASSANDRA_TLS_CA_FILE: files.authority,
  CASSANDRA_USERNAME: 'pipeline',
  CASSANDRA_PASSWORD: SECRETS.cassandra,
  BOARD_PASSWORD: SECRETS.board,
  BOARD_PORT: String(boardPort),
  RECONCILE_SECONDS: '1',
  SETTLE_SECONDS: '1',
  AGGREGATION_EVERY_SECONDS: '1',
  DURABLE_SECONDS: '0',
  AFTER_LOAD: 'archive',
  LOG_LEVEL: 'trace',
  LOG_FORMAT: 'json',
};
const asMigrate = { CASSANDRA_USERNAME: 'pipeline_migrate', CASSANDRA_PASSWORD: SECRETS.migrate };

/** All that any process has said, by what it was. */
const said = new Map<string, string>();
const running: { kill(signal: NodeJS.Signals): boolean }[] = [];
afterAll(() => {
  for (const child of running) child.kill('SIGKILL');
});

/** Starts a command as a process of its own; all that it says is kept. */
function pipeline(args: string, more: Record<string, string> = {}) {
  const command = [join(ROOT, 'bin/pipeline.js'), ...args.split(' ')];
  const child = execa(process.execPath, command, {
    cwd: folder,
    env: { ...environment, ...more },
    stdin: 'ignore',
    all: true,
    reject: false,
  });
  child.all.on('data', (chunk: Buffer) => said.set(args, (said.get(args) ?? '') + chunk.toString()));
  running.push(child);
  return child;
}

function expectNoSecret(text: string, where: string): void {
  for (const [what, value] of Object.entries(SECRETS)) {
    for (const form of [value, encodeURIComponent(value), Buffer.from(value).toString('base64').slice(0, -4)])
      expect(text.includes(form), `${where} shows the password of ${what}`).toBe(false);
  }
}

/** Command lines of all processes of this machine. */
async function commandLines(): Promise<string> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name));
  const lines = pids.map((pid) => readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => ''));
  return (await Promise.all(lines)).join('\n');
}

async function put(name: string, content: string): Promise<void> {
  await writeFile(join(dataDir, `${name}.tmp`), content);
  await rename(join(dataDir, `${name}.tmp`), join(dataDir, name));
}

const board = (path: string, method = 'GET', body?: object) =>
  fetch(`http://127.0.0.1:${boardPort}${path}`, {
    method,
    headers: {
      authorization: `Basic ${Buffer.from(`admin:${SECRETS.board}`).toString('base64')}`,
      'content-type': 'application/json',
    },
    ...(body && { body: JSON.stringify(body) }),
  });

/** Each version that the ledger knows, as `name: state`. */
async function fileStates(): Promise<string[]> {
  const rows = await cassandra.run('SELECT name, state FROM vehicle_data.files');
  return rows.map((row) => `${row['name']}: ${row['state']}`).sort();
}

describe('with the rights of the manual, and no others,', () => {
  it('migrate makes the tables, as the role that may', async () => {
    expect(redisRule).toContain('-@all');
    expect([migrateGrants.length, pipelineGrants.length]).toEqual([2, 3]);
    await cassandra.run(...migrateGrants);
    expect((await pipeline('migrate', asMigrate)).exitCode).toBe(0);
    await cassandra.run(...pipelineGrants);
    // A second time it finds nothing to do.
    expect((await pipeline('migrate', asMigrate)).all).toContain('is up to date');
  });

  it('all roles work: files are loaded, archived, summarized; dead letters are retried and given up', async () => {
    for (const role of ['watch', 'process', 'board']) void pipeline(role);
    const names = [1, 2, 3].map((n) => `vehicles_events_${n}.json`);
    for (const name of names) await put(name, JSON.stringify([...events(20), { vehicle_id: 'bad' }]));
    for (const name of ['vehicles_events_broken_1.json', 'vehicles_events_broken_2.json']) await put(name, 'not JSON');
    const loaded = names.map((name) => `${name}: loaded`);
    const broken = [1, 2].map((n) => `vehicles_events_broken_${n}.json: dead_letter`);
    await eventually(async () => expect(await fileStates()).toEqual([...loaded, ...broken]));
    await eventually(async () => expect(await readdir(join(dataDir, 'archive'))).toEqual(names));
    await eventually(async () => {
      const [sum] = await cassandra.run('SELECT sum(event_count) AS events FROM vehicle_data.daily_summary');
      expect(Number(sum?.['events'])).toBe(60);
    });

    await eventually(async () => {
      const { stdout } = await pipeline('failed list --json');
      for (const n of [1, 2]) expect(stdout).toContain(`vehicles_events_broken_${n}.json`);
    });
    await put('vehicles_events_broken_1.json', JSON.stringify(events(1)));
    expect((await pipeline('failed retry vehicles_events_broken_2.json')).stdout).toContain(
      '1 dead letter(s) sent back',
    );
    await eventually(async () => expect(await fileStates()).toContain('vehicles_events_broken_1.json: loaded'));
    await eventually(async () => {
      const { stdout } = await pipeline('failed list');
      expect(stdout).toContain('vehicles_events_broken_2.json');
      expect(stdout).toContain('1 dead letter(s)');
    });
    expect((await pipeline('failed discard --all')).exitCode).toBe(0);
    expect(await fileStates()).toContain('vehicles_events_broken_2.json: discarded');
    const others = ['status', 'status --json', 'aggregate --json', 'aggregate --rebuild', `backfill ${dataDir}`];
    for (const command of others) expect((await pipeline(command)).exitCode, said.get(command)).toBe(0);
  });

  it('the board shows and does all that it can', async () => {
    for (const path of [
      '/',
      '/metrics',
      '/board',
      '/readyz',
      '/board/api/queues',
      '/board/api/queues?activeQueue=ingest',
    ]) {
      const answer = await board(path);
      expect(answer.status, path).toBe(200);
      said.set(`board ${path}`, await answer.text());
    }
    expect(said.get('board /')).toMatch(/Redis answers · Cassandra answers/);
    expect(said.get('board /metrics')).toMatch(/^vehicle_data_workers 1$/m);
    const queue = '/board/api/queues/ingest';
    const job = { name: 'by hand', data: { name: '../x', size: 1, mtimeNs: '1' }, options: {} };
    for (const [path, method, body] of [
      [`${queue}/pause`, 'PUT'],
      [`${queue}/add`, 'POST', job],
      [`${queue}/resume`, 'PUT'],
      [`${queue}/promote`, 'PUT'],
      ['/board/api/queues/aggregation/add', 'POST', { name: 'by hand', data: {}, options: {} }],
      [`${queue}/clean/completed`, 'PUT'],
      ['/board/api/queues/dead-letter/retry/failed', 'PUT'],
      ['/board/api/queues/dead-letter/clean/failed', 'PUT'],
      ['/board/api/redis/stats', 'GET'],
    ] as const) {
      const answer = await board(path, method, body);
      expect(answer.status, `${path} ${await answer.text()}`).toBeLessThan(400);
    }
  });

  it('Redis has refused nothing', async () => {
    expect(await redis.admin.acl('LOG')).toEqual([]);
  });

  it('no command line, log, answer or metric shows a password', async () => {
    const lines = await commandLines();
    expect(lines).toContain('bin/pipeline.js\0watch');
    expect(lines).toContain(join(folder, 'redis'));
    expect(lines).toContain('CassandraDaemon');
    expectNoSecret(lines, 'a command line');
    for (const role of ['watch', 'process', 'board']) expect(said.get(role), role).toContain('"level"');
    for (const [what, text] of said) expectNoSecret(text, what);
    expectNoSecret(await readFile(join(folder, 'redis/console.log'), 'utf8'), 'the log of Redis');
    expectNoSecret(await readFile(join(folder, 'cassandra/console.log'), 'utf8'), 'the log of Cassandra');
  });
});

describe('with less, a role says what is wrong, in one sentence without a password:', () => {
  const other = secret('other');
  const log = pino(
    { level: 'trace' },
    { write: (line) => said.set('in process', (said.get('in process') ?? '') + line) },
  );

  /** What a role that is started with other variables would end with. */
  async function problem(changes: Record<string, string>, open = openStores): Promise<string> {
    try {
      await open(parseConfig({ ...environment, ...changes }));
      return 'none';
    } catch (error) {
      expect(error, inspect(error)).toBeInstanceOf(UsageError);
      expectNoSecret(inspect(error, { depth: 10 }), 'an error');
      expect(inspect(error, { depth: 10 })).not.toContain(other);
      return error instanceof Error ? error.message : '';
    }
  }
  async function openStores(config: ReturnType<typeof parseConfig>): Promise<void> {
    (await connectQueues(config, log)).close();
    const store = await connectStore(config, log);
    await requireSchema(store).finally(store.close);
  }
  const redisUrl = (login: string) => redis.url.replace(/\/\/.*@/, `//${login}`);

  beforeAll(async () => {
    const replication = "{'class': 'SimpleStrategy', 'replication_factor': 1}";
    await cassandra.run(
      `CREATE KEYSPACE elsewhere WITH replication = ${replication}`,
      'CREATE TABLE elsewhere.schema_migrations (version int PRIMARY KEY)',
    );
  });

  it('nothing, when nothing is', async () => {
    expect(await problem({})).toBe('none');
  });

  const rule = redisRule.split(' ').slice(4);
  it.each([
    [
      'scripts',
      [...rule, '-evalsha'],
      /^Redis at 127\.0\.0\.1:\d+ does not let this user work \(NOPERM: .*'evalsha'.*docs\/operations\.md\.$/,
    ],
    ['waiting', [...rule, '-bzpopmin'], /NOPERM: .*'bzpopmin'/],
    ['the list of processors', rule.filter((part) => part !== '+client|list'), /NOPERM: .*'client(\|list)?'/],
    ['its information', [...rule, '-info'], /does not let this user work \(NOPERM.*'info'/],
    ['the keys of the prefix', [...rule, 'resetkeys', '~{other}:*'], /NOPERM: .*keys/],
    ['writing', ['~*', '+@all', '-@write'], /NOPERM: .*'hset'.*'bzpopmin'/],
  ])('Redis withholds %s', async (_what, rules, expected) => {
    await redis.admin.acl('SETUSER', 'less', 'reset', 'on', `>${other}`, ...rules);
    expect(await problem({ REDIS_URL: redisUrl(`less:${other}@`) })).toMatch(expected);
  });

  it.each<[string, Record<string, string>, RegExp]>([
    [
      'Redis gets a wrong password',
      { REDIS_URL: redisUrl(`pipeline:${other}@`) },
      /^Redis at .* refuses the login .* Check the user and password in REDIS_URL\.$/,
    ],
    ['Redis gets no password', { REDIS_URL: redisUrl('') }, /^Redis at .* refuses the login \(NOAUTH/],
    ['Redis is of an unknown authority', { REDIS_TLS_CA_FILE: '' }, /^Redis at .* is not trusted .* REDIS_TLS_CA_FILE/],
    ['Redis is asked without TLS', { REDIS_URL: redis.url.replace('rediss', 'redis') }, /^Redis at .* does not answer/],
    ['nobody listens', { REDIS_URL: redis.url.replace(/\d+$/, '1') }, /^Redis at 127\.0\.0\.1:1 does not answer/],
    [
      'no sentinel answers',
      { REDIS_URL: `redis+sentinel://pipeline:${other}@127.0.0.1:1,127.0.0.1:2/main` },
      /^Redis at 127\.0\.0\.1:1, 127\.0\.0\.1:2 does not answer/,
    ],
    [
      'no node of a cluster answers',
      { REDIS_URL: `redis+cluster://pipeline:${other}@127.0.0.1:1` },
      /^Redis at 127\.0\.0\.1:1 does not answer/,
    ],
    [
      'REDIS_URL is none',
      { REDIS_URL: `redis://pipeline:${other}/@127.0.0.1` },
      /^The environment has 1 bad value\(s\):\n {2}REDIS_URL: not redis/,
    ],
    [
      'an authority is missing',
      { CASSANDRA_TLS_CA_FILE: join(folder, 'none.pem') },
      /CASSANDRA_TLS_CA_FILE: not a file that can be read$/,
    ],
    [
      'Cassandra gets a wrong password',
      { CASSANDRA_PASSWORD: other },
      /^Cassandra at .* refuses the login: check CASSANDRA_USERNAME/,
    ],
    [
      'Cassandra gets no password',
      { CASSANDRA_USERNAME: '', CASSANDRA_PASSWORD: '' },
      /^Cassandra at .* refuses the login/,
    ],
    [
      'Cassandra is of an unknown authority',
      { CASSANDRA_TLS_CA_FILE: '' },
      /^Cassandra at .* is not trusted .* CASSANDRA_TLS_CA_FILE/,
    ],
    [
      'the name of Cassandra has no address',
      { CASSANDRA_CONTACT_POINTS: 'no-such-host.invalid' },
      /^Cassandra at no-such-host\.invalid port \d+ does not answer \(No host could be resolved\)/,
    ],
    ['Cassandra is asked without TLS', { CASSANDRA_TLS: 'false' }, /^Cassandra at .* does not answer/],
    [
      'the keyspace is of another role',
      { CASSANDRA_KEYSPACE: 'elsewhere' },
      /^Cassandra withholds a right: .*SELECT.*docs\/operations\.md/,
    ],
  ])('%s', async (_what, changes, expected) => {
    expect(await problem(changes)).toMatch(expected);
  });

  it('Cassandra lets it read and not write', async () => {
    await cassandra.run('REVOKE MODIFY ON KEYSPACE vehicle_data FROM pipeline');
    expect(await problem({})).toMatch(/^Cassandra withholds a right: .*MODIFY.*docs\/operations\.md lists\.$/);
    await cassandra.run('GRANT MODIFY ON KEYSPACE vehicle_data TO pipeline');
    expect(await problem({})).toBe('none');
  });

  it('a role that may not make a keyspace migrates', async () => {
    const migrateAs = async (config: ReturnType<typeof parseConfig>) => {
      await migrate(config, log);
    };
    expect(await problem({ CASSANDRA_KEYSPACE: 'another' }, migrateAs)).toMatch(
      /^Cassandra withholds a right: .*CREATE/,
    );
  });

  it('a command ends with 1 and just that sentence', async () => {
    const { exitCode, all } = await pipeline('status', { REDIS_URL: redisUrl(`pipeline:${other}@`) });
    expect(exitCode).toBe(1);
    expect(all).toMatch(/^Redis at 127\.0\.0\.1:\d+ refuses the login .*\.$/);
  });

  it('roles that run when the passwords change, and the board, go on and say nothing secret', async () => {
    const logged = (role: string) => said.get(role)?.length ?? 0;
    const before = new Map(['watch', 'process', 'board'].map((role) => [role, logged(role)]));
    await redis.admin.acl('SETUSER', 'pipeline', 'resetpass', `>${other}`);
    await cassandra.run(`ALTER ROLE pipeline WITH PASSWORD = '${other}'`);
    await redis.admin.client('KILL', 'USER', 'pipeline');
    await eventually(async () => expect((await board('/readyz')).status).toBe(503));
    for (const path of ['/', '/metrics', '/readyz', '/board/api/queues']) {
      const answer = await board(path).catch(() => undefined);
      said.set(`board ${path} without Redis`, (await answer?.text()) ?? '');
    }
    for (const [role, length] of before) await eventually(() => expect(logged(role), role).toBeGreaterThan(length));
    await redis.admin.acl('SETUSER', 'pipeline', 'resetpass', `>${SECRETS.redis}`);
    await cassandra.run(`ALTER ROLE pipeline WITH PASSWORD = '${SECRETS.cassandra}'`);
    await eventually(async () => expect((await board('/readyz')).status).toBe(200));
    for (const [what, text] of said) {
      expectNoSecret(text, what);
      expect(text, what).not.toContain(other);
    }
  });
});
