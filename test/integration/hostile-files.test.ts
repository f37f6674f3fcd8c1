import { chmod, mkdir, readFile, rename, symlink, utimes, writeFile } from 'node:fs/promises';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { dirname, join } from 'node:path';
import { gzipSync } from 'node:zlib';
import type { JobType } from 'bullmq';
import { execa } from 'execa';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { eventually, openSpace, type LedgerRow, type Letter, type QueueName, type Role } from './pipeline.ts';
import { idOf, storedSummaries, summariesOf } from './recomputation.ts';
import { event, events, type ProviderEvent } from './records.ts';
import { stoodStill, TELLS_STANDSTILL } from './standstill.ts';

const MB = 1024 ** 2;
const MAX_FILE_BYTES = 120 * MB;
/** All of it: Node, the program, eight files at once. */
const MAX_RESIDENT_MB = 350;

/** What must become of a file: a dead letter with its reason, or these rows and rejections; or either, accounted for. */
type Fate =
  | { readonly letter: RegExp }
  | { readonly rows: readonly ProviderEvent[]; readonly rejected: readonly RegExp[] }
  | 'either';
interface HostileFile {
  readonly what: string;
  readonly fate: Fate;
  /** Made from the beginning of the name; `.json` follows it where this is left out. */
  readonly name?: (stem: string) => string | Buffer;
  /** Puts it there. */
  readonly make: (path: Buffer) => Promise<unknown>;
}

const space = await openSpace({ MAX_FILE_BYTES, INGEST_ATTEMPTS: 3 });
const dataDir = space.config.DATA_DIR;
const incoming = join(dirname(dataDir), 'incoming');

/** A minute old, so that what is wrong with it is final at once; renamed into place. */
function write(content: () => string | Buffer, mode = 0o644) {
  return async (path: Buffer) => {
    await writeFile(incoming, content(), { mode });
    const minuteAgo = Date.now() / 1_000 - 60;
    await utimes(incoming, minuteAgo, minuteAgo);
    await rename(incoming, path);
  };
}

const dead = (what: string, content: string | Buffer | (() => string | Buffer), reason: RegExp): HostileFile => ({
  what,
  fate: { letter: reason },
  make: write(typeof content === 'function' ? content : () => content),
});
const named = (file: HostileFile, ending: string): HostileFile => ({ ...file, name: (stem) => stem + ending });
const lines = (file: HostileFile) => named(file, '.jsonl');
const zipped = (file: HostileFile) => named(file, '.json.gz');

/** A file of one record. */
function one(what: string, record: ProviderEvent): HostileFile {
  return { what, fate: { rows: [record], rejected: [] }, make: write(() => JSON.stringify([record])) };
}

const odd = (changes: Record<string, unknown> = {}) => event({ vehicle_id: 'odd', ...changes });

/** A record whose text is given is rejected for a reason, or taken with changes, between two good ones. */
function between(
  what: string,
  text: (record: ProviderEvent) => string | Buffer,
  fate: RegExp | Partial<ProviderEvent>,
): HostileFile[] {
  return ['array', 'lines'].map((kind) => {
    const [before, record, after] = [odd(), odd(), odd()];
    const [start, comma, end] = kind === 'array' ? ['[', ',', ']'] : ['', '\n', '\n'];
    const parts = () => [start, JSON.stringify(before), comma, text(record), comma, JSON.stringify(after), end];
    const isRejected = fate instanceof RegExp;
    const file: HostileFile = {
      what: `${what}, among ${kind}`,
      fate: {
        rows: isRejected ? [before, after] : [before, { ...record, ...fate }, after],
        rejected: isRejected ? [fate] : [],
      },
      make: write(() => Buffer.concat(parts().map((part) => Buffer.from(part)))),
    };
    return kind === 'array' ? file : lines(file);
  });
}

/** A record's text with more in it. */
const withMore = (more: string) => (record: ProviderEvent) => `${JSON.stringify(record).slice(0, -1)},${more}}`;
const nested = (open: string, inner: string, close: string) => open.repeat(100_000) + inner + close.repeat(100_000);

/** Expands to a gigabyte. */
function bomb(start: string, filling: string): Buffer {
  const part = gzipSync(Buffer.alloc(64 * MB, filling));
  return Buffer.concat([gzipSync(start), ...Array.from({ length: 16 }, () => part)]);
}

const contents: HostileFile[] = [
  dead('nothing', '', /^empty: it holds no JSON$/),
  zipped(dead('nothing that is gzipped', gzipSync(''), /^empty: it holds no JSON$/)),
  dead('null', 'null', /^not a JSON array of records: it does not begin with \[$/),
  dead('{}', '{}', /^not a JSON array of records: it does not begin with \[$/),
  lines(dead('{} as a line', '{}', /^1 of 1 records are bad, the first is record 0: vehicle_id: missing$/)),
  lines(dead('null as a line', 'null', /^1 of 1 records are bad, .*: expected an object, not null$/)),
  dead('zero bytes', Buffer.alloc(4_096), /^not UTF-8 text: a byte 0x00 where JSON begins/),
  dead('a NUL in a text', JSON.stringify([odd()]).replace('speed', 'sp\0eed'), /^not JSON: record 0: Bad control/),
  dead('two byte order marks', '\ufeff\ufeff[]', /^not a JSON array of records/),
  dead('a million tiny records', `[${'1,'.repeat(999_999)}1]`, /^1000000 of 1000000 records are bad, the first is/),
  lines(dead('a million tiny lines', '1\n'.repeat(1_000_000), /^1000000 of 1000000 records are bad, the first is/)),
  lines(dead('a million blank lines', '\n'.repeat(1_000_000), /^empty: it holds no JSON$/)),
  dead('100 MB of opening brackets', () => Buffer.alloc(100 * MB, '['), /^ends too early: the array is not closed/),
  zipped(dead('a gzip bomb of white space', () => bomb('[', ' '), /^expands to more than MAX_FILE_BYTES: \d+ bytes$/)),
  named(
    dead('a gzip bomb of one line', () => bomb('"', 'x'), /^expands to more than MAX_FILE_BYTES/),
    '.jsonl.gz',
  ),
  zipped(dead('gzip in gzip', gzipSync(gzipSync('[]')), /^not a JSON array of records/)),
  zipped(
    dead('half of a gzip file', gzipSync(JSON.stringify([odd()])).subarray(0, 90), /^not a whole gzip file: unex/),
  ),
  zipped(
    dead(
      'two gzip files in one with zeros between them',
      Buffer.concat([gzipSync('['), Buffer.alloc(9), gzipSync(']')]),
      /^not a whole gzip file: the last \d+ bytes are not compressed data$/,
    ),
  ),
  ...between(
    'a record of 100 MB',
    () => `{"a":"${'x'.repeat(100 * MB)}"}`,
    /^larger than MAX_RECORD_BYTES: 1048576\d\d of/,
  ),
  ...between('arrays nested 100,000 deep', () => nested('[', '', ']'), /^expected an object, not an array$/),
  ...between('objects nested 100,000 deep', () => nested('{"a":', '1', '}'), /^nested deeper than 100 levels$/),
  ...between('a field nested 100,000 deep', withMore(`"x":${nested('[', '', ']')}`), /^nested deeper than 100/),
  ...between('a lone surrogate', () => JSON.stringify(odd({ event_type: '\udc00' })), /lone surrogate/),
  ...between('a lone surrogate in a key', withMore('"\\ud800":1'), /lone surrogate/),
  ...between('an overlong encoding', () => Buffer.from([0x22, 0xc0, 0xaf, 0x22]), /^not UTF-8 text$/),
  ...between('a key that comes twice', withMore('"event_type":"the last"'), { event_type: 'the last' }),
  one('an escaped NUL', odd({ event_type: 'a\0b' })),
  ...between(
    'a type of 70,000 characters',
    (record) => JSON.stringify({ ...record, event_type: 'x'.repeat(70_000) }),
    /^Too big: expected string to have <=256 characters$/,
  ),
  one('a type with the longest name', odd({ event_type: '車'.repeat(256) })),
  one('a value of a megabyte', odd({ event_value: 'x'.repeat(MB - 1_000) })),
  one('a vehicle with the longest name', odd({ vehicle_id: '車'.repeat(256) })),
  one('names that mean something to JavaScript', {
    ...odd({ constructor: { prototype: {} }, toString: 1, hasOwnProperty: null }),
    ...(JSON.parse('{"__proto__":{"vehicle_id":"other"}}') as object),
  }),
];

/** Of good files, any bit is flipped, or an end is missing. The choice is the same in every run. */
function* mutants(): Generator<HostileFile> {
  for (let n = 0; n < 60; n += 1) {
    const bytes = Buffer.from(JSON.stringify(events(20, { vehicle_id: 'mutant' })));
    const file = n % 3 === 0 ? gzipSync(bytes) : bytes;
    const at = (n * 7_919) % file.length;
    const bit = 1 << (n % 8);
    const isCut = n % 5 === 0;
    if (!isCut) file.writeUInt8((file[at] ?? 0) ^ bit, at);
    const mutant: HostileFile = {
      what: isCut
        ? `a file of ${file.length} bytes that ends at ${at}`
        : `a file with bit ${bit} of byte ${at} flipped`,
      fate: 'either',
      make: write(() => (isCut ? file.subarray(0, at) : file)),
    };
    yield n % 3 === 0 ? zipped(mutant) : mutant;
  }
}

const socket = createServer();
const inside = odd();
const thing = (what: string, reason: RegExp, make: HostileFile['make']): HostileFile => ({
  what,
  fate: { letter: reason },
  make,
});
const things: HostileFile[] = [
  thing('a folder', /^not a regular file$/, (path) => mkdir(path)),
  thing('a FIFO that nobody writes to', /^not a regular file$/, (path) => execa('mkfifo', [path.toString()])),
  thing('a socket', /^not a regular file$/, (path) => once(socket.listen(path.toString()), 'listening')),
  thing('a link to a device', /^a link that leads out of the data folder$/, (path) => symlink('/dev/zero', path)),
  thing('a link to the folder above', /^a link that leads out of the data folder$/, (path) => symlink('..', path)),
  thing('a link to the data folder', /^not a regular file$/, (path) => symlink('.', path)),
  thing('a link that leads nowhere', /, or a link that leads nowhere$/, (path) => symlink('nothing', path)),
  thing('links in a circle', /^a link that leads in a circle$/, async (path) => {
    await symlink(path, join(dataDir, 'circle'));
    await symlink('circle', path);
  }),
  thing(
    'a file that may not be read',
    /^may not be read: check its permissions$/,
    write(() => JSON.stringify([odd()]), 0),
  ),
  {
    what: 'a link to a file of another name',
    fate: { rows: [inside], rejected: [] },
    make: async (path) => {
      await write(() => JSON.stringify([inside]))(Buffer.from(join(dataDir, 'inside.txt')));
      await symlink('inside.txt', path);
    },
  },
  named(one('a name with a line feed', odd()), '\n\n.json'),
  named(one('a name that a shell would run', odd()), '$(reboot);`x`&&"\'|>*?\\ %s%00{}.json'),
  named(one('a name that moves the cursor of a terminal', odd()), '\u001b[2J\u202e.json'),
  named(one('a name like a way out on Windows', odd()), '\\..\\..\\x.json'),
  { ...one('a name of 255 bytes', odd()), name: (stem) => `${stem}${'é'.repeat(115)}.json` },
];

/** Together, the types of this hour are larger than any one row of Cassandra may be. */
const flood = Array.from({ length: 25_000 }, (_, n) =>
  event({ vehicle_id: 'flood', event_type: String(n).padStart(256, '車') }),
);
contents.push({
  what: 'a flood of types',
  fate: { rows: flood, rejected: [] },
  make: write(() => JSON.stringify(flood)),
});

const files = [...contents, ...things, ...mutants()].map((file, n) => {
  const stem = `vehicles_events_${String(n).padStart(4, '0')}`;
  return { ...file, name: file.name?.(stem) ?? `${stem}.json`, good: `${stem}_good.json` };
});
const NOT_UTF8 = Buffer.from('vehicles_events_\xff\xfe.json', 'latin1');

/** To root nothing is unreadable; without these two rights it is. */
const withoutRights = process.getuid?.() === 0 ? ['setpriv', '--bounding-set=-dac_override,-dac_read_search'] : [];
let processor: Role;
let ledger: Map<string, LedgerRow[]>;
let letters: Letter[];
let storedIds: Map<unknown, unknown[]>;
const goodRecords: ProviderEvent[] = [];

const pathOf = (name: string | Buffer) => Buffer.concat([Buffer.from(`${dataDir}/`), Buffer.from(name)]);

async function make({ name, good, make: put }: (typeof files)[number]): Promise<void> {
  await put(pathOf(name));
  const records = events(2, { vehicle_id: 'good' });
  goodRecords.push(...records);
  await space.put(good, records);
}

beforeAll(async () => {
  // What a processor finds at its start, and what comes later.
  const half = files.length / 2;
  for (const file of files.filter((_, n) => n < half)) await make(file);
  await write(() => JSON.stringify([odd()]))(pathOf(NOT_UTF8));
  processor = space.startRole('process', [...TELLS_STANDSTILL, ...withoutRights]);
  space.startWatcher();
  for (const file of files.filter((_, n) => n >= half)) await make(file);
  await space.loaded(
    files.map(({ good }) => good),
    { withinMs: 150_000 },
  );
  await eventually(
    async () => {
      const settled = new Set((await space.ledger()).map(({ name }) => name));
      expect(files.filter(({ name }) => !settled.has(name.toString())).map(({ what }) => what)).toEqual([]);
      // A failed job goes after its letter has come, which is one once it has failed, too.
      const count = (name: QueueName, ...types: JobType[]) => space.queue(name).getJobCountByTypes(...types);
      expect(await count('ingest', 'waiting', 'prioritized', 'delayed', 'active', 'failed')).toBe(0);
      expect(await count('dead-letter', 'waiting', 'active')).toBe(0);
    },
    { withinMs: 150_000 },
  );
  await space.aggregated();
  ledger = groupBy(await space.ledger(), ({ name }) => name);
  letters = await space.letters();
  storedIds = await readStoredIds();
}, 400_000);
afterAll(() => socket.close());

function groupBy<T, K>(values: readonly T[], keyOf: (value: T) => K): Map<K, T[]> {
  const groups = new Map<K, T[]>();
  for (const value of values) {
    const group = groups.get(keyOf(value));
    if (group === undefined) groups.set(keyOf(value), [value]);
    else group.push(value);
  }
  return groups;
}

/** Rows by their file. */
async function readStoredIds(): Promise<Map<unknown, unknown[]>> {
  const rows = await space.read('SELECT file_name, event_id FROM vehicle_events');
  const groups = groupBy(rows, (row) => row['file_name']);
  return new Map([...groups].map(([name, group]) => [name, group.map((row) => row['event_id']).sort()]));
}

async function rejectionsOf({ name, version }: LedgerRow): Promise<string[]> {
  const query = 'SELECT reason FROM rejected_records WHERE name = ? AND version = ?';
  return (await space.read(query, [name, version])).map(({ reason }) => String(reason));
}

it.each(files)('$what', async ({ name, fate }) => {
  const versions = ledger.get(name.toString()) ?? [];
  expect(versions).toHaveLength(1);
  const [version] = versions;
  const ownLetters = letters.filter((letter) => letter.name === name);
  const rows = storedIds.get(name) ?? [];
  if (version?.state === 'dead_letter') {
    expect(ownLetters.map(({ reason }) => reason)).toEqual([version.error]);
    expect(rows).toEqual([]);
    expect(await rejectionsOf(version)).toEqual([]);
    if (fate !== 'either') expect(version.error).toMatch('letter' in fate ? fate.letter : /no dead letter at all/);
    return;
  }
  expect(version).toMatchObject({ state: 'loaded', error: null });
  expect(ownLetters).toEqual([]);
  if (version === undefined) return;
  const rejected = await rejectionsOf(version);
  expect([version.loaded, version.rejected, version.records]).toEqual([
    rows.length,
    rejected.length,
    rows.length + rejected.length,
  ]);
  if (fate === 'either') return;
  expect(rows).toEqual('rows' in fate ? fate.rows.map(idOf).sort() : 'a dead letter');
  const reasons = 'rejected' in fate ? fate.rejected : [];
  expect(rejected).toEqual(reasons.map((reason) => expect.stringMatching(reason) as string));
});

it('a name that is not UTF-8 is a dead letter that says so', async () => {
  await eventually(async () => {
    const said = (await space.letters()).filter(
      ({ reason }) => reason.includes('not UTF-8') && reason.includes('name'),
    );
    expect(said).toHaveLength(1);
  });
});

it('everything else goes on: every good file among them is loaded, and the summaries are right', async () => {
  const sent = files.flatMap(({ fate }) =>
    fate !== 'either' && 'rows' in fate && fate.rows !== flood ? fate.rows : [],
  );
  expect(files.flatMap(({ good }) => storedIds.get(good) ?? []).sort()).toEqual(goodRecords.map(idOf).sort());
  const stored = await storedSummaries(space.read);
  const expected = summariesOf([...goodRecords, ...sent]);
  for (const [key, summary] of Object.entries(expected.daily)) expect(stored.daily[key]).toEqual(summary);
  for (const [key, summary] of Object.entries(expected.hourly)) expect(stored.hourly[key]).toEqual(summary);
  const flooded = stored.daily['flood 2026-11-20'] ?? {};
  expect(flooded['event_count']).toBe(flood.length);
  expect(flooded['event_type_counts']).toMatchObject({ '(other)': flood.length - 1_000 });
});

it(`the processor is the one that was started, kept every lock, and never held ${MAX_RESIDENT_MB} MB`, async () => {
  const status = await readFile(`/proc/${processor.pid}/status`, 'utf8');
  const residentMb = Number(/^VmHWM:\s+(\d+) kB$/m.exec(status)?.[1]) / 1024;
  console.log(`hostile files: the processor held ${Math.round(residentMb)} MB at most`);
  expect(residentMb).toBeLessThan(MAX_RESIDENT_MB);
  const log = await space.said('process');
  if (stoodStill(log)) console.log('hostile files: something stood still, so locks were not looked at');
  const isWrong = stoodStill(log) ? /"level":(50|60)/ : /stalled|renew lock|"level":(50|60)/i;
  expect(log.split('\n').filter((line) => isWrong.test(line))).toEqual([]);
});

it('files in a folder that may not be entered are dead letters, and one that may not be read is told of', async () => {
  const own = await openSpace();
  const folder = (name: string) => join(own.config.DATA_DIR, name);
  const names = ['listed/vehicles_events_1.json', 'closed/vehicles_events_2.json'];
  for (const name of names) await own.put(name, events(2), { stoodStill: true });
  await chmod(folder('listed'), 0o444);
  await chmod(folder('closed'), 0);
  for (const role of ['watch', 'process']) own.startRole(role, withoutRights);
  const { said } = own;
  await eventually(async () => {
    expect(await own.letters()).toMatchObject([{ name: names[0], reason: 'may not be read: check its permissions' }]);
    expect(await said('watch')).toMatch(/"folder":"closed","reason":"EACCES.*a folder cannot be read/);
  });
  own.startRole('doctor', withoutRights);
  await eventually(async () =>
    expect(await said('doctor')).toMatch(/wrong +Folders +3, of which 1 cannot be read .*rights to closed/),
  );
  own.startRole('verify', withoutRights);
  await eventually(async () => expect(await said('verify')).toMatch(/wrong +closed: cannot be read: EACCES/));
  for (const name of ['listed', 'closed']) await chmod(folder(name), 0o755);
  await own.loaded(names);
  await eventually(async () => expect(await own.letters()).toEqual([]));
  // Of one that is loaded as well.
  await chmod(folder('listed'), 0o444);
  await eventually(async () => expect(await own.letters()).toHaveLength(1));
  await chmod(folder('listed'), 0o755);
  await eventually(async () => expect(await own.letters()).toEqual([]));
});
