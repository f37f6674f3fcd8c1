import { mkdir, open, symlink, utimes, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { gzipSync } from 'node:zlib';
import { execa } from 'execa';
import { beforeAll, describe, expect, it } from 'vitest';
import { openAll, openForWork } from '../../src/commands/connect.ts';
import { versionNow } from '../../src/data-folder.ts';
import { createIngestWorker } from '../../src/processors/ingest.ts';
import { createReconciliation } from '../../src/producers/reconciliation.ts';
import { enqueueFiles } from '../../src/queues/ingest.ts';
import type { Store } from '../../src/storage/client.ts';
import { eventually, openSpace, type Space } from './pipeline.ts';
import { idOf, storedSummaries, summariesOf } from './recomputation.ts';
import { event, events, status } from './records.ts';

const MAX_FILE_BYTES = 16 * 1024 ** 2;

/** Ids of all event rows of a vehicle. */
async function eventIds(space: Space, vehicleId: string, day = '2026-11-20'): Promise<unknown[]> {
  const rows = await space.read('SELECT event_id FROM vehicle_events WHERE vehicle_id = ? AND day = ?', [
    vehicleId,
    day,
  ]);
  return rows.map((row) => row['event_id']).sort();
}

const idsOf = (records: readonly object[]) => records.map(idOf).sort();

/**
 * Writes under the final name, piece by piece.
 *
 * @returns for how many ms it may have lain there without each piece
 */
async function writeSlowly(path: string, pieces: readonly string[], pauseMs: number): Promise<number[]> {
  const lainMs: number[] = [];
  let since = performance.now();
  const file = await open(path, 'a');
  for (const piece of pieces) {
    const began = performance.now();
    await file.write(piece);
    lainMs.push(performance.now() - since);
    since = began;
    await sleep(pauseMs);
  }
  await file.close();
  return lainMs;
}

function cut(text: string, pieces: number): string[] {
  const size = Math.ceil(text.length / pieces);
  return Array.from({ length: pieces }, (_, n) => text.slice(n * size, (n + 1) * size));
}

describe('a file that cannot be loaded is a dead letter with its reason, and stops no other', async () => {
  const space = await openSpace({ MAX_FILE_BYTES, INGEST_ATTEMPTS: 3 });
  const path = (name: string) => join(space.config.DATA_DIR, name);
  const put = (content: string | Buffer) => (name: string) => space.put(name, content, { stoodStill: true });
  const records = (...more: string[]) => `[${[...events(2).map((one) => JSON.stringify(one)), ...more].join(',')}]`;

  const bad: { what: string; name?: string; make: (name: string) => Promise<unknown>; reason: RegExp }[] = [
    { what: 'text', make: put('out of order'), reason: /^not a JSON array of records: it does not begin with \[$/ },
    { what: 'an object', make: put('{"a":1}'), reason: /^not a JSON array of records/ },
    {
      what: 'an array with something that is no JSON',
      make: put(records('{"vehicle_id": nothing}')),
      reason: /^not JSON: record 2: .+/,
    },
    {
      what: 'an array that is cut off',
      make: put(records().slice(0, -60)),
      reason: /^ends too early: the array is not closed, in or behind record 1$/,
    },
    { what: 'an array with more behind it', make: put(`${records()}\n[]`), reason: /^not JSON: there is more after/ },
    { what: 'an empty file', make: put(''), reason: /^empty: it holds no JSON$/ },
    { what: 'white space', make: put(' \n\n'), reason: /^empty: it holds no JSON$/ },
    {
      what: 'a binary file',
      make: put(Buffer.from([0x7f, 0x45, 0x4c, 0x46, 0, 255])),
      reason: /does not begin with \[/,
    },
    {
      what: 'UTF-16',
      make: put(Buffer.from(`\ufeff${records()}`, 'utf16le')),
      reason: /^not UTF-8 text: a byte 0xff where JSON begins, as UTF-16 has it$/,
    },
    { what: 'a folder', make: (name) => mkdir(path(name)), reason: /^not a regular file$/ },
    {
      what: 'a FIFO that nobody writes to',
      make: (name) => execa('mkfifo', [path(name)]),
      reason: /^not a regular file$/,
    },
    {
      what: 'a link out of the data folder',
      make: async (name) => {
        const outside = join(dirname(space.config.DATA_DIR), 'outside.json');
        await writeFile(outside, JSON.stringify(events(3, { vehicle_id: 'outside' })));
        await symlink(outside, path(name));
      },
      reason: /^a link that leads out of the data folder$/,
    },
    { what: 'a link to itself', make: (name) => symlink(name, path(name)), reason: /^a link that leads in a circle$/ },
    {
      what: 'a link that leads nowhere',
      make: (name) => symlink('nothing.json', path(name)),
      reason: /^not in the data folder any more, or a link that leads nowhere$/,
    },
    {
      what: 'a file that is too large',
      make: put(`[${' '.repeat(MAX_FILE_BYTES)}`),
      reason: new RegExp(`^larger than MAX_FILE_BYTES: ${MAX_FILE_BYTES + 1} of at most ${MAX_FILE_BYTES} bytes$`),
    },
    {
      what: 'a gzip file that expands too far',
      name: 'vehicles_events_bomb.json.gz',
      make: put(gzipSync(`[${' '.repeat(MAX_FILE_BYTES)}]`)),
      reason: new RegExp(`^expands to more than MAX_FILE_BYTES: ${MAX_FILE_BYTES} bytes$`),
    },
    {
      what: 'a gzip file that is cut off',
      name: 'vehicles_events_cut.json.gz',
      make: put(gzipSync(records()).subarray(0, -20)),
      reason: /^not a whole gzip file: unexpected end of file$/,
    },
    {
      what: 'a file that is called gzip and is not',
      name: 'vehicles_events_plain.json.gz',
      make: put(records()),
      reason: /^not a whole gzip file: incorrect header check$/,
    },
    {
      what: 'a file most of whose records are bad',
      make: put(JSON.stringify([event({ vehicle_id: 'mostly-bad' }), {}, { vehicle_id: 'mostly-bad' }])),
      reason: /^2 of 3 records are bad, the first is record 1: vehicle_id: missing$/,
    },
    {
      what: 'lines most of which are bad',
      name: 'vehicles_events_lines.jsonl',
      make: put(`${JSON.stringify(event({ vehicle_id: 'mostly-bad' }))}\n{\nnothing\n`),
      reason: /^2 of 3 records are bad, the first is record 1: not JSON: .+/,
    },
    {
      what: 'status reports under the name of events',
      make: put(JSON.stringify([status(), status()])),
      reason: /^2 of 2 records are bad, the first is record 0: event_time: missing$/,
    },
  ];
  const nameOf = (n: number) => bad[n]?.name ?? `vehicles_events_bad_${n}.json`;

  beforeAll(async () => {
    space.startWatcher();
    space.startProcessor();
    for (const [n, { make }] of bad.entries()) {
      await space.put(`vehicles_events_good_${n}.json`, events(3, { vehicle_id: `good-${n}` }));
      await make(nameOf(n));
    }
    // Looks right, by its name.
    await put(records('{}'))('vehicles_events_of_nobody.csv');
    await put(records('{}'))('vehicles_events_hidden.json.tmp');
    await space.loaded(bad.map((_, n) => `vehicles_events_good_${n}.json`));
    await eventually(async () => {
      expect((await space.letters()).map(({ name }) => name).sort()).toEqual(bad.map((_, n) => nameOf(n)).sort());
    });
  });

  it.each(bad.map(({ what, reason }, n) => ({ what, reason, n })))('$what', async ({ reason, n }) => {
    const [row] = (await space.ledger()).filter(({ name }) => name === nameOf(n));
    expect(row).toMatchObject({ state: 'dead_letter', error: expect.stringMatching(reason) as string });
    const [letter] = (await space.letters()).filter(({ name }) => name === nameOf(n));
    expect(letter?.reason).toBe(row?.error);
  });

  it('and leaves no row, rejection or job behind', async () => {
    for (const n of bad.keys()) expect(await eventIds(space, `good-${n}`)).toHaveLength(3);
    expect(await space.count('vehicle_events')).toBe(bad.length * 3);
    expect(await space.count('rejected_records')).toBe(0);
    expect(await space.count('files')).toBe(bad.length * 2);
    // A failed job goes after its letter has come.
    await eventually(async () => expect(await space.queue('ingest').getFailedCount()).toBe(0));
  });
});

describe('a record that cannot be taken is rejected alone', async () => {
  const space = await openSpace();
  beforeAll(() => {
    space.startWatcher();
    space.startProcessor();
  });

  async function rejectionsOf(name: string) {
    const [file] = (await space.ledger()).filter((one) => one.name === name);
    const rows = await space.read('SELECT * FROM rejected_records WHERE name = ? AND version = ?', [
      name,
      file?.version,
    ]);
    return rows.map(({ record_index, field, reason, record }) => ({ index: record_index, field, reason, record }));
  }

  it('one bad in a hundred: 99 rows, and one rejection with index, field, reason and text', async () => {
    const records = events(100, { vehicle_id: 'one-bad' });
    const wrong = { ...event({ vehicle_id: 'one-bad' }), event_time: '2026-02-30T10:00:00' };
    await space.put('vehicles_events_one_bad.json', records.toSpliced(41, 1, wrong));
    await space.loaded(['vehicles_events_one_bad.json']);
    expect(await eventIds(space, 'one-bad')).toEqual(idsOf(records.toSpliced(41, 1)));
    const [row] = await space.ledger();
    expect(row).toMatchObject({ records: 100, loaded: 99, rejected: 1 });
    const [rejection, ...others] = await rejectionsOf('vehicles_events_one_bad.json');
    expect(others).toEqual([]);
    expect(rejection).toMatchObject({ index: 41, field: 'event_time', reason: 'no such day in the calendar' });
    expect(JSON.parse(String(rejection?.record))).toEqual(wrong);
  });

  it('every kind of mistake has its own reason', async () => {
    const mistakes: [text: string | Buffer, field: string, reason: RegExp | string][] = [
      ['7', '', 'expected an object, not number'],
      ['null', '', 'expected an object, not null'],
      ['[]', '', 'expected an object, not an array'],
      [JSON.stringify({ ...event(), vehicle_id: undefined }), 'vehicle_id', 'missing'],
      [JSON.stringify(event({ vehicle_id: '' })), 'vehicle_id', /.+/],
      [JSON.stringify(event({ vehicle_id: 'x'.repeat(70_000) })), 'vehicle_id', /.+/],
      [JSON.stringify(event({ event_time: 'noon' })), 'event_time', 'not an ISO 8601 date and time'],
      [
        JSON.stringify(event({ event_time: '2999-01-01T00:00:00' })),
        'event_time',
        'more than a day after its file was written',
      ],
      [JSON.stringify({ ...event(), event_time: 1_763_800_000 }), 'event_time', /.+/],
      [JSON.stringify({ ...event(), event_value: { a: 1 } }), 'event_value', 'expected text or a number'],
      [JSON.stringify({ ...event(), event_extra_data: [1] }), 'event_extra_data', 'expected an object'],
      [JSON.stringify({ ...event(), event_extra_data: null }), 'event_extra_data', 'expected an object'],
      [JSON.stringify(event({ event_type: 'a\ud800b' })), '', /lone surrogate/],
      [JSON.stringify(event()).replace(/.$/, `,"deep":${'['.repeat(3_000)}${']'.repeat(3_000)}}`), '', /nested deeper/],
      [JSON.stringify(event({ note: 'x'.repeat(2 * 1024 ** 2) })), '', /^larger than MAX_RECORD_BYTES: \d+ of at most/],
      [Buffer.from(JSON.stringify(event({ event_type: 'ü' })), 'latin1'), '', 'not UTF-8 text'],
    ];
    const good = events(mistakes.length, { vehicle_id: 'among-bad' });
    const parts = mistakes.flatMap(([text], n) => [JSON.stringify(good[n]), text]);
    const array = Buffer.concat(parts.flatMap((part, n) => [Buffer.from(n === 0 ? '[' : ','), Buffer.from(part)]));
    const lines = Buffer.concat(parts.flatMap((part) => [Buffer.from(part), Buffer.from('\n')]));
    await space.put('vehicles_events_mistakes.json', Buffer.concat([array, Buffer.from(']')]));
    await space.put('vehicles_events_mistakes.jsonl', lines);
    await space.loaded(['vehicles_events_mistakes.json', 'vehicles_events_mistakes.jsonl']);
    for (const name of ['vehicles_events_mistakes.json', 'vehicles_events_mistakes.jsonl']) {
      expect(await rejectionsOf(name)).toEqual(
        mistakes.map(([, field, reason], n) => ({
          index: 2 * n + 1,
          field,
          reason: typeof reason === 'string' ? reason : (expect.stringMatching(reason) as string),
          record: expect.any(String) as string,
        })),
      );
    }
    expect(await eventIds(space, 'among-bad')).toEqual(idsOf(good));
  });

  it('one line that is no JSON is rejected alone, too', async () => {
    const good = events(3, { vehicle_id: 'lines' });
    const lines = good.map((record) => JSON.stringify(record)).toSpliced(1, 0, '{"vehicle_id": "li');
    await space.put('vehicles_events_line.jsonl', lines.join('\r\n'));
    await space.loaded(['vehicles_events_line.jsonl']);
    expect(await eventIds(space, 'lines')).toEqual(idsOf(good));
    expect(await rejectionsOf('vehicles_events_line.jsonl')).toMatchObject([
      {
        index: 1,
        reason: expect.stringMatching(/^not JSON: /) as string,
        record: expect.stringContaining('"li') as string,
      },
    ]);
  });

  it('a time at the edge of the calendar stops no other record', async () => {
    const good = events(3, { vehicle_id: 'edge' });
    const edge = ['0000-01-01T00:00:00+01:00', '0000-01-01T00:00:00', '1582-10-10T00:00:00', '1969-12-31T23:59:59.5'];
    const odd = edge.map((event_time) => event({ vehicle_id: 'edge', event_time }));
    await space.put('vehicles_events_edge.json', [...good, ...odd]);
    const reports = edge.map((report_time, n) => status({ vehicle_id: `edge-${n}`, report_time }));
    await space.put('vehicles_status_edge.json', [...reports, status(), status()]);
    await space.loaded(['vehicles_events_edge.json', 'vehicles_status_edge.json']);
    expect(await rejectionsOf('vehicles_events_edge.json')).toMatchObject([{ index: 3, field: 'event_time' }]);
    expect(await eventIds(space, 'edge', '0000-01-01')).toEqual(idsOf(odd.slice(1, 2)));
    expect(await eventIds(space, 'edge', '1582-10-10')).toEqual(idsOf(odd.slice(2, 3)));
    expect(await eventIds(space, 'edge', '1969-12-31')).toEqual(idsOf(odd.slice(3, 4)));
    for (const [n, report] of reports.entries()) {
      const rows = await space.read('SELECT status_id FROM vehicle_status WHERE vehicle_id = ?', [`edge-${n}`]);
      expect(rows).toEqual(n === 0 ? [] : [{ status_id: idOf(report) }]);
    }
  });
});

describe('a file', async () => {
  const space = await openSpace({ MAX_FILE_BYTES });
  const path = (name: string) => join(space.config.DATA_DIR, name);
  beforeAll(async () => {
    space.startWatcher();
    space.startProcessor();
    // From here on the watcher's hints count, not only its first comparison.
    await space.put('vehicles_events_first.json', events(1));
    await space.loaded(['vehicles_events_first.json']);
  });

  const versionsOf = async (file: string) =>
    (await space.ledger()).filter(({ name }) => name === file).sort((a, b) => a.finishedAt - b.finishedAt);

  it.each([
    { what: 'an array', extension: 'json', text: (records: object[]) => JSON.stringify(records, null, 4) },
    {
      what: 'lines',
      extension: 'jsonl',
      text: (records: object[]) => records.map((one) => JSON.stringify(one)).join('\n'),
    },
  ])('that is written slowly in place is loaded whole: $what', async ({ extension, text }) => {
    let [name, records, lainMs] = ['', events(0), [Infinity]];
    // Half a file that lies there for two seconds, as this process stood still, is rightly taken for what was meant.
    for (let n = 0; Math.max(...lainMs) > 1_500; n += 1) {
      name = `vehicles_events_slow_${n}.${extension}`;
      records = events(100, { vehicle_id: name });
      // The pauses are longer than the watcher waits for a file to stand still.
      lainMs = await writeSlowly(path(name), cut(text(records), 8), 300);
    }
    await eventually(async () => expect(await eventIds(space, name)).toEqual(idsOf(records)));
    await eventually(async () => {
      const versions = await versionsOf(name);
      // One whose lock or store was lost meanwhile has a row, too, without an error: it was no dead letter.
      const loaded = versions.filter(({ state }) => state !== 'superseded');
      // What ends behind a whole line is a file like any other: of lines, there may be earlier versions.
      if (extension === 'json') expect(loaded).toHaveLength(1);
      expect(loaded.at(-1)).toMatchObject({ records: 100, loaded: 100 });
      for (const { state } of loaded) expect(state).toBe('loaded');
      for (const version of versions) expect(version).toMatchObject({ rejected: 0, error: null });
      expect(await space.queue('ingest').getJobCountByTypes('waiting', 'delayed', 'active')).toBe(0);
      expect(await space.letters()).toEqual([]);
    });
  });

  it('that is rewritten under its name is a new version, and the rows of both are there', async () => {
    const name = 'vehicles_events_20261120100000.json';
    const [first, second] = [events(5, { vehicle_id: 'rewritten' }), events(5, { vehicle_id: 'rewritten' })];
    await space.put(name, first);
    await space.loaded([name]);
    await space.put(name, second);
    await eventually(async () => {
      expect((await versionsOf(name)).map(({ state }) => state)).toEqual(['loaded', 'loaded']);
    });
    expect(await eventIds(space, 'rewritten')).toEqual(idsOf([...first, ...second]));
  });

  it('that is written in place over another of its size within the same second is loaded, too', async () => {
    const name = 'vehicles_events_20261120100001.json';
    const [first, second] = ['a', 'b'].map((type) =>
      events(5, { vehicle_id: 'same-second', event_type: type, event_value: '1', event_extra_data: {} }),
    );
    const now = Date.now() / 1_000;
    await space.put(name, first ?? []);
    await utimes(path(name), now, Math.floor(now) - 5 + 0.25);
    await space.loaded([name]);
    await writeFile(path(name), JSON.stringify(second, null, 4));
    await utimes(path(name), now, Math.floor(now) - 5 + 0.75);
    const both = idsOf([...(first ?? []), ...(second ?? [])]);
    await eventually(async () => expect(await eventIds(space, 'same-second')).toEqual(both));
    const sizes = (await versionsOf(name)).map(({ version }) => version.split('-')[0]);
    expect(new Set(sizes).size).toBe(1);
  });

  it('may hold two events of one vehicle in one nanosecond, and one of them twice', async () => {
    const same = { vehicle_id: 'twins', event_time: '2026-11-20T10:00:00.123456789' };
    const [one, two] = [event({ ...same, event_type: 'a' }), event({ ...same, event_type: 'b' })];
    await space.put('vehicles_events_twins.json', [one, two, one]);
    await space.loaded(['vehicles_events_twins.json']);
    expect(await eventIds(space, 'twins')).toEqual(idsOf([one, two]));
    expect(await versionsOf('vehicles_events_twins.json')).toMatchObject([{ records: 3, loaded: 3 }]);
  });

  it('of lines, of gzip, of both, with a byte order mark, in a folder or with a strange name is read like any other', async () => {
    const files: [name: string, encode: (records: object[]) => string | Buffer][] = [
      ['vehicles_events_f.jsonl', (records) => records.map((one) => `${JSON.stringify(one)}\n`).join('')],
      ['vehicles_events_f.json.gz', (records) => gzipSync(JSON.stringify(records))],
      ['vehicles_events_f.jsonl.gz', (records) => gzipSync(records.map((one) => JSON.stringify(one)).join('\n'))],
      [
        'vehicles_events_two_members.json.gz',
        (records) => Buffer.concat(cut(JSON.stringify(records), 2).map((part) => gzipSync(part))),
      ],
      ['vehicles_events_mark.json', (records) => `\ufeff${JSON.stringify(records)}`],
      ['vehicles_events_mark.jsonl', (records) => `\ufeff${records.map((one) => JSON.stringify(one)).join('\r\n')}`],
      ['2026/11/vehicles_events_deep.json', (records) => JSON.stringify(records)],
      ['vehicles_events_ü 😀 \n %2e.json', (records) => JSON.stringify(records)],
    ];
    const sent = files.map((_, n) => events(20, { vehicle_id: `format-${n}`, event_source: `ä 😀 ${n}` }));
    for (const [n, [name, encode]] of files.entries()) await space.put(name, encode(sent[n] ?? []));
    await space.loaded(files.map(([name]) => name));
    for (const [n] of files.entries()) expect(await eventIds(space, `format-${n}`)).toEqual(idsOf(sent[n] ?? []));
  });

  it('of no records is loaded', async () => {
    await space.put('vehicles_events_none.json', ' [ ]\n');
    await space.loaded(['vehicles_events_none.json']);
    expect(await versionsOf('vehicles_events_none.json')).toMatchObject([{ state: 'loaded', records: 0, error: null }]);
  });

  it('that is a link to one in the data folder is loaded', async () => {
    await space.put('target.txt', JSON.stringify(events(2, { vehicle_id: 'linked' })));
    await symlink('target.txt', path('vehicles_events_link.json'));
    await space.loaded(['vehicles_events_link.json']);
    expect(await eventIds(space, 'linked')).toHaveLength(2);
  });

  it('of 20,000 records is loaded whole, and its bad ones are told with their numbers', async () => {
    const records = Array.from({ length: 200 }, (_, n) => events(100, { vehicle_id: `large-${n}` })).flat();
    const file = records
      .toSpliced(19_999, 1, event({ event_time: 'late' }))
      .toSpliced(6_000, 1, event({ event_time: '' }));
    await space.put('vehicles_events_large.json', file);
    await space.loaded(['vehicles_events_large.json']);
    expect(await versionsOf('vehicles_events_large.json')).toMatchObject([
      { records: 20_000, loaded: 19_998, rejected: 2 },
    ]);
    const [file20k] = await versionsOf('vehicles_events_large.json');
    const rejected = await space.read('SELECT record_index FROM rejected_records WHERE name = ? AND version = ?', [
      'vehicles_events_large.json',
      file20k?.version,
    ]);
    expect(rejected).toEqual([{ record_index: 6_000 }, { record_index: 19_999 }]);
    const rows = await space.read(
      "SELECT event_id FROM vehicle_events WHERE file_name = 'vehicles_events_large.json' ALLOW FILTERING",
    );
    const kept = records.filter((_, n) => n !== 6_000 && n !== 19_999);
    expect(rows.map((row) => row['event_id']).sort()).toEqual(idsOf(kept));
    await space.aggregated();
    const { daily } = await storedSummaries(space.read);
    for (const [key, summary] of Object.entries(summariesOf(kept).daily)) expect(daily[key]).toEqual(summary);
  });
});

describe('a large file that is rewritten in place while its rows are written', async () => {
  const own = await openSpace();

  it('is no dead letter: what lies there then is loaded', async () => {
    own.startWatcher();
    const name = 'vehicles_events_rewritten.json';
    const before = Array.from({ length: 40_000 }, (_, n) => event({ vehicle_id: 'before', event_value: String(n) }));
    await own.put(name, before, { stoodStill: true });
    const after = events(2, { vehicle_id: 'after' });
    const { worker, goOn } = await startHeldUp(own, 'before');
    await eventually(async () => expect(await own.count('change_log')).toBeGreaterThan(0));
    await writeFile(join(own.config.DATA_DIR, name), JSON.stringify(after));
    goOn();
    await eventually(async () => expect(await eventIds(own, 'after')).toEqual(idsOf(after)));
    await eventually(async () =>
      expect((await own.ledger()).map(({ state }) => state).sort()).toEqual(['loaded', 'superseded']),
    );
    const rows = await own.read('SELECT error FROM files WHERE name = ?', [name]);
    expect(rows.map((row) => row['error'])).toEqual([null, null]);
    await worker.close();
  });
});

describe('what was sent is kept', async () => {
  const space = await openSpace();
  beforeAll(() => {
    space.startWatcher();
    space.startProcessor();
  });

  it('fields that nobody knows, numbers beyond a double, numbers for texts', async () => {
    const record =
      '{"vehicle_id":"exact","event_time":"2026-11-20T10:00:00.1","event_source":"gps","event_type":"speed",' +
      '"event_value":12345678901234567890.25,"event_extra_data":{"z":12345678901234567890123,"a":[1.0,-0,1e400]},' +
      '"firmware":{"b":9007199254740993,"a":null},"__proto__":{"x":1},"ünï":"😀"}';
    await space.put('vehicles_events_exact.json', `[${record}]`);
    await space.loaded(['vehicles_events_exact.json']);
    const [row] = await space.read("SELECT * FROM vehicle_events WHERE vehicle_id = 'exact' AND day = '2026-11-20'");
    expect(row).toMatchObject({
      event_value: '12345678901234567890.25',
      event_extra_data: '{"a":[1,0,1e400],"z":12345678901234567890123}',
      unknown_fields: '{"__proto__":{"x":1},"firmware":{"a":null,"b":9007199254740993},"ünï":"😀"}',
    });
  });

  async function statusOf(vehicleId: string) {
    const [row] = await space.read('SELECT * FROM vehicle_status WHERE vehicle_id = ?', [vehicleId]);
    return row;
  }

  it('an older status that arrives last does not win, and its unknown fields do not shine through', async () => {
    const newest = status({ vehicle_id: 'late', report_time: '2026-11-20T10:00:00.000002', status: 'newest' });
    const older = status({ vehicle_id: 'late', report_time: '2026-11-20T10:00:00.000001', status: 'older', odd: 1 });
    const oldest = status({ vehicle_id: 'late', report_time: '1969-07-20T20:17:00', status: 'oldest', odd: 2 });
    for (const [n, report] of [oldest, newest, older, oldest].entries()) {
      await space.put(`vehicles_status_late_${n}.json`, [report]);
      await space.loaded([`vehicles_status_late_${n}.json`]);
      if (n === 0) expect(await statusOf('late')).toMatchObject({ status: 'oldest', unknown_fields: '{"odd":2}' });
    }
    expect(await statusOf('late')).toMatchObject({
      status_id: idOf(newest),
      report_time: '2026-11-20T10:00:00.000Z',
      report_time_nanos: 2_000,
      status: 'newest',
      unknown_fields: null,
    });
    const months = ['2026-11', '1969-07'].map((month) =>
      space.read("SELECT status FROM vehicle_status_history WHERE vehicle_id = 'late' AND month = ?", [month]),
    );
    const history = (await Promise.all(months)).flat().map((row) => row['status']);
    expect(history).toEqual(expect.arrayContaining(['newest', 'older', 'oldest']));
    expect(history).toHaveLength(3);
  });

  it('two reports of one vehicle in one file, the newer one first', async () => {
    const newer = status({ vehicle_id: 'one-file', report_time: '2026-11-20T10:00:00.5', status: 'newer' });
    const older = status({ vehicle_id: 'one-file', report_time: '2026-11-20T10:00:00.4', status: 'zzz', odd: 1 });
    await space.put('vehicles_status_one_file.json', [newer, older]);
    await space.loaded(['vehicles_status_one_file.json']);
    expect(await statusOf('one-file')).toMatchObject({ status: 'newer', unknown_fields: null });
  });

  it('two reports of the same microsecond in two files: their greatest values, a known limit, and the history has both', async () => {
    const same = { vehicle_id: 'tie', report_time: '2026-11-20T10:00:00.123456' };
    const reports = [
      status({ ...same, status_source: 'a', status: 'z', odd: 1 }),
      status({ ...same, status_source: 'z', status: 'a' }),
    ];
    await space.put('vehicles_status_tie_1.json', reports.slice(0, 1));
    await space.loaded(['vehicles_status_tie_1.json']);
    await space.put('vehicles_status_tie_2.json', reports.slice(1));
    await space.loaded(['vehicles_status_tie_2.json']);
    // Cassandra settles a tie of write timestamps cell by cell.
    expect(await statusOf('tie')).toMatchObject({ status_source: 'z', status: 'z' });
    const history = await space.read(
      "SELECT status FROM vehicle_status_history WHERE vehicle_id = 'tie' AND month = '2026-11'",
    );
    expect(history.map((row) => row['status']).sort()).toEqual(['a', 'z']);
  });
});

describe('a file that is written for long', async () => {
  const space = await openSpace();

  it('is queued when it has stood still, not again and again', async () => {
    const name = 'vehicles_events_long.jsonl';
    const records = Array.from({ length: 400 }, () => events(1, { vehicle_id: 'long' })).flat();
    const [first = {}, ...others] = records;
    const path = join(space.config.DATA_DIR, name);
    await writeFile(path, `${JSON.stringify(first)}\n`);
    space.startWatcher();
    const ingest = space.queue('ingest');
    await eventually(async () => expect(await ingest.getJobCountByTypes('waiting', 'prioritized')).toBe(1));
    space.startProcessor();
    const lines = others.map((record) => `${JSON.stringify(record)}\n`);
    const stoodStill = (await writeSlowly(path, lines, 5)).filter((ms) => ms > 150);
    await eventually(async () => expect(await eventIds(space, 'long')).toEqual(idsOf(records)));
    const queued = await eventually(async () => {
      const done = (await ingest.getCompleted()).filter((job) => job.name === name);
      expect(done.length).toBeGreaterThan(0);
      return done;
    });
    // Where the writer stood still, so did the file, and may rightly have been queued.
    expect(queued.length).toBeLessThanOrEqual(3 + stoodStill.length);
  });
});

/** A processor in this process that writes no rows of vehicles with such names until it is told to go on. */
async function startHeldUp(space: Space, vehicles: string) {
  const needs = await openForWork(space.runtime());
  let goOn = () => {};
  const stopped = new Promise<void>((resolve) => {
    goOn = resolve;
  });
  const insertRows: Store['insertRows'] = async (rows) => {
    if (rows.some(({ partition }) => partition.includes(vehicles))) await stopped;
    await needs.store.insertRows(rows);
  };
  const worker = createIngestWorker({ ...needs, store: { ...needs.store, insertRows } });
  const isFull = async () => expect(await needs.ingestQueue.getActiveCount()).toBe(space.config.INGEST_CONCURRENCY);
  return { worker, ingestQueue: needs.ingestQueue, isFull, goOn };
}

describe('a backlog of large files', async () => {
  const space = await openSpace({ INGEST_CONCURRENCY: 16 });

  it('leaves places to files that arrive', async () => {
    const names = Array.from({ length: 24 }, (_, n) => `vehicles_events_large_${n}.json.gz`);
    // How much a compressed file holds is not known before.
    for (const [n, name] of names.entries())
      await space.put(name, gzipSync(JSON.stringify(events(2, { vehicle_id: `large ${n}` }))), { stoodStill: true });
    space.startWatcher();
    await eventually(async () => expect(await space.queue('ingest').getPrioritizedCount()).toBe(names.length));
    const { worker, isFull, goOn } = await startHeldUp(space, 'large');
    await eventually(isFull);
    await space.put('vehicles_events_arrives.json', events(3));
    await space.loaded(['vehicles_events_arrives.json']);
    expect(await space.ledger()).toHaveLength(1);
    goOn();
    await space.loaded(names);
    await worker.close();
  });
});

describe('a backlog of small files, while others arrive', async () => {
  const space = await openSpace({ INGEST_CONCURRENCY: 32 });

  it('gives places up to those that arrive', async () => {
    const { worker, ingestQueue, isFull, goOn } = await startHeldUp(space, 'backlog');
    const enqueue = async (names: readonly string[], backlog: boolean) => {
      const files = names.flatMap((name) => versionNow(space.config.DATA_DIR, name) ?? []);
      await enqueueFiles(ingestQueue, files, { backlog });
    };
    const arrive = async (name: string, behind: readonly string[] = []) => {
      await space.put(name, events(3), { stoodStill: true });
      await enqueue([name], false);
      await enqueue(behind, true);
      await space.loaded([name]);
    };
    const names = Array.from({ length: 40 }, (_, n) => `vehicles_events_backlog_${n}.json`);
    for (const [n, name] of names.entries())
      await space.put(name, events(2, { vehicle_id: `backlog ${n}` }), { stoodStill: true });
    await arrive('vehicles_events_first.json', names);
    await eventually(isFull);
    for (let n = 0; n < 4; n += 1) await arrive(`vehicles_events_arrives_${n}.json`);
    expect(await space.ledger()).toHaveLength(5);
    goOn();
    await space.loaded(names);
    await worker.close();
  });
});

describe('more files than may wait at once', async () => {
  const space = await openSpace({ MAX_QUEUED_FILES: 50 });

  it('are queued as others are loaded, behind what arrives, and none is lost', async () => {
    const names = Array.from({ length: 1_200 }, (_, n) => `vehicles_events_many_${n}.json`);
    for (const name of names) await space.put(name, events(1), { stoodStill: true });
    const ingest = space.queue('ingest');
    const queued = () => ingest.getJobCountByTypes('waiting', 'prioritized', 'delayed', 'active');
    const watcher = space.startWatcher();
    await eventually(async () => expect(await queued()).toBeGreaterThanOrEqual(50));
    await space.put('vehicles_events_arrives.json', events(1));
    await eventually(async () =>
      expect((await ingest.getWaiting()).map(({ name }) => name)).toEqual(['vehicles_events_arrives.json']),
    );
    await sleep(3_000);
    // What is queued in one go may be more, once.
    expect(await queued()).toBeLessThan(50 + 500);
    let isStopped = false;
    const stopped = watcher.stop().then(() => (isStopped = true));
    // By itself: it would be abandoned after eight seconds.
    await eventually(() => expect(isStopped).toBe(true), { withinMs: 7_000 });
    await stopped;
    // One that waits for room ends when it is to begin anew, as when Redis is back, and perhaps empty.
    const wake = new AbortController();
    const runtime = space.runtime();
    const compared = createReconciliation(await openAll(runtime))('', undefined, wake.signal);
    await sleep(1_000);
    wake.abort();
    expect((await compared).queued).toBe(0);
    await runtime.stop();
    space.startWatcher();
    space.startProcessor();
    await space.loaded([...names, 'vehicles_events_arrives.json']);
  });
});
