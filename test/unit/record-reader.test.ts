import { createHash } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { datasetOf } from '../../src/datasets/catalog.ts';
import { closeDataFile, FileProblem, openDataFile } from '../../src/processors/data-file.ts';
import { readRecords } from '../../src/processors/record-reader.ts';
import { idOf } from '../integration/recomputation.ts';
import { event } from '../integration/records.ts';

const MAX_BYTES = 8 * 1024 ** 2;
/** However small they are: what is in memory at once is bounded by this. */
const MAX_CHUNK_RECORDS = 11_000;

let folder = '';
beforeAll(async () => (folder = await mkdtemp(join(tmpdir(), 'reader-'))));
afterAll(() => rm(folder, { recursive: true }));

interface Reading {
  /** Identities of the records that were taken, in order. */
  readonly ids: readonly unknown[];
  readonly rejected: readonly { index: number; field: string; reason: string }[];
}

/** What the reader makes of a file, or what it says is wrong with it. */
async function read(
  extension: string,
  content: Buffer | string,
  { mayGrow = false, writtenAt = Date.parse('2026-11-22T00:00:00Z') } = {},
): Promise<Reading | string> {
  const name = `vehicles_events_x.${extension}`;
  await writeFile(join(folder, name), content);
  const kind = datasetOf(name);
  if (kind === undefined) throw new Error(`${name} is no data file`);
  const ids: unknown[] = [];
  const rejected: { index: number; field: string; reason: string }[] = [];
  const file = await openDataFile(folder, name, MAX_BYTES);
  try {
    const options = {
      ...kind,
      context: { lineage: { name, version: '1' }, writtenAt, sourceTimeZone: 'UTC' },
      maxRecordBytes: 1024 ** 2,
      maxBytes: MAX_BYTES,
      mayGrow,
    };
    for await (const chunk of readRecords(file, options, createHash('sha256'))) {
      expect(chunk.taken.length + chunk.rejected.length).toBeLessThan(MAX_CHUNK_RECORDS);
      ids.push(...chunk.taken.map(({ rows: [row] }) => row?.values[row.columns.indexOf('event_id')]));
      rejected.push(...chunk.rejected.map(({ index, field, reason }) => ({ index, field, reason })));
    }
    return { ids, rejected };
  } catch (error) {
    if (error instanceof FileProblem) return error.message;
    throw error;
  } finally {
    closeDataFile(file);
  }
}

const records = [event({ event_type: 'tür' }), event({ event_value: '😀', event_extra_data: { a: [1, {}] } })];
const ids = records.map(idOf);
const array = Buffer.from(JSON.stringify(records));
const lines = Buffer.from(records.map((record) => `${JSON.stringify(record)}\n`).join(''));

function textOf(bytes: Buffer): string | undefined {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    return undefined;
  }
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** Every element is a row of its own content or a rejection, and what is as it was sent is no rejection. */
function expectAccounted(reading: Reading | string, elements: readonly unknown[], what: string): void {
  if (typeof reading === 'string') throw new Error(`${what}: ${reading}`);
  const rejected = new Map(reading.rejected.map(({ index, reason }) => [index, reason]));
  const kept = elements.filter((_, index) => !rejected.has(index));
  expect(reading.ids, what).toEqual(kept.map((element) => idOf(Object(element))));
  expect(reading.ids.length + reading.rejected.length, what).toBe(elements.length);
  for (const [index, element] of elements.entries()) {
    if (ids.includes(idOf(Object(element)))) expect(rejected.has(index), what).toBe(false);
  }
  for (const reason of rejected.values()) expect(reason, what).toMatch(/^\S.{6,}/);
}

it('half a line at the end of a file that may still grow is no bad record, wherever it is cut', async () => {
  const [first = '', second = ''] = records.map((record) => `${JSON.stringify(record)}\n`);
  const start = Buffer.byteLength(first);
  for (let end = start; end <= start + Buffer.byteLength(second); end += 1) {
    const bytes = lines.subarray(0, end);
    const isWhole = end === start || end >= start + Buffer.byteLength(second) - 1;
    const wanted = isWhole
      ? { ids: ids.slice(0, end === start ? 1 : 2), rejected: [] }
      : expect.stringMatching(/^ends with record 1: not /);
    expect(await read('jsonl', bytes, { mayGrow: true }), `cut at ${end}`).toEqual(wanted);
  }
});

const ARRAY_PROBLEM = /^(not JSON: |not a JSON array of records: |ends too early: |empty: )/;

async function checkArray(bytes: Buffer, what: string): Promise<void> {
  const reading = await read('json', bytes);
  const text = textOf(bytes);
  const value = text === undefined ? undefined : parsed(text);
  if (Array.isArray(value)) expectAccounted(reading, value, what);
  else if (typeof reading === 'string') expect(reading, what).toMatch(ARRAY_PROBLEM);
  else {
    expect(text, what).toBeUndefined();
    expect(
      reading.rejected.map(({ reason }) => reason),
      what,
    ).toContain('not UTF-8 text');
    expect(ids, what).toEqual(expect.arrayContaining([...reading.ids]));
  }
}

async function checkLines(bytes: Buffer, what: string): Promise<void> {
  const reading = await read('jsonl', bytes);
  // Without a text, each line is looked at by itself.
  const parts = bytes
    .toString('latin1')
    .split('\n')
    .map((line) => textOf(Buffer.from(line, 'latin1')));
  const elements = parts.filter((part) => part === undefined || /[^ \t\r]/.test(part));
  if (elements.length === 0) expect(reading, what).toBe('empty: it holds no JSON');
  else {
    expectAccounted(
      reading,
      elements.map((part) => (part === undefined ? undefined : parsed(part))),
      what,
    );
  }
}

function* flipsOf(file: Buffer): Generator<{ bytes: Buffer; what: string }> {
  for (let bit = 0; bit < file.length * 8; bit += 1) {
    const bytes = Buffer.from(file);
    const at = Math.floor(bit / 8);
    bytes.writeUInt8((bytes[at] ?? 0) ^ (1 << (bit % 8)), at);
    yield { bytes, what: `bit ${bit % 8} of byte ${at} is flipped` };
  }
}

describe('a file that is cut off after any byte is told from a whole one', () => {
  it('as an array', async () => {
    for (let length = 0; length < array.length; length += 1) {
      expect(await read('json', array.subarray(0, length)), `after ${length} bytes`).toMatch(
        /^(ends too early: the array is not closed, in or behind record \d|empty: it holds no JSON)$/,
      );
    }
  });

  it('as lines, of which the last is rejected alone', async () => {
    for (let length = 0; length < lines.length; length += 1) {
      await checkLines(lines.subarray(0, length), `after ${length} bytes`);
    }
  });

  it('as gzip', async () => {
    const file = gzipSync(array);
    for (let length = 0; length < file.length; length += 1) {
      expect(await read('json.gz', file.subarray(0, length)), `after ${length} bytes`).toBe(
        'not a whole gzip file: unexpected end of file',
      );
    }
  });
});

describe('a file any bit of which is flipped makes rows of what it says, or has a reason', () => {
  it('as an array', async () => {
    for (const { bytes, what } of flipsOf(array)) await checkArray(bytes, what);
  });

  it('as lines', async () => {
    for (const { bytes, what } of flipsOf(lines)) await checkLines(bytes, what);
  });

  it('as gzip, whose checksum finds all but what does no harm', async () => {
    for (const { bytes, what } of flipsOf(gzipSync(lines))) {
      const reading = await read('jsonl.gz', bytes);
      if (typeof reading === 'string') expect(reading, what).toMatch(/^not a whole gzip file: /);
      else expect(reading, what).toEqual({ ids, rejected: [] });
    }
  });
});

describe('of gzip', () => {
  const first = gzipSync(lines);
  const second = gzipSync(`${JSON.stringify(event())}\n`);

  /** A part may carry a file name of any length in its header. */
  function grown(part: Buffer, size: number): Buffer {
    const header = Buffer.from(part.subarray(0, 10));
    header.writeUInt8(8, 3);
    return Buffer.concat([header, Buffer.from(`${'x'.repeat(size - part.length - 1)}\0`), part.subarray(10)]);
  }

  it('several parts are read one after the other, wherever a read ends', async () => {
    for (let past = -first.length; past <= first.length; past += 1) {
      // The reader takes 256 KiB at once.
      const parts = [grown(first, 256 * 1024 + past), second, first];
      const reading = await read('jsonl.gz', Buffer.concat(parts));
      expect(reading, `a part ends ${past} bytes behind the read`).toMatchObject({ ids: { length: 5 }, rejected: [] });
    }
  });

  it.each([
    ['zeros', Buffer.alloc(512), 512],
    ['zeros and another part', Buffer.concat([Buffer.alloc(3), second]), 3 + second.length],
    ['text', Buffer.from('more'), undefined],
    ['half a header', second.subarray(0, 5), undefined],
  ])('%s behind the end are not dropped in silence', async (_what, rest, left) => {
    expect(await read('jsonl.gz', Buffer.concat([first, rest]))).toMatch(
      left === undefined
        ? /^not a whole gzip file: (incorrect header check|unexpected end of file)$/
        : `not a whole gzip file: the last ${left} bytes are not compressed data`,
    );
  });
});

it('a million tiny records are counted, some thousands at a time', async () => {
  for (const [extension, text] of [
    ['json', `[${'1,'.repeat(999_999)}1]`],
    ['jsonl', '1\n'.repeat(1_000_000)],
  ] as const) {
    const reading = await read(extension, text);
    if (typeof reading === 'string') throw new Error(reading);
    expect(reading.rejected).toHaveLength(1_000_000);
    expect(reading.rejected.at(-1)).toEqual({ index: 999_999, field: '', reason: 'expected an object, not number' });
  }
});

describe('a record that is ahead of its file', () => {
  it.each([
    ['by a day is taken', '2026-11-22T00:00:00Z', '2026-11-23T00:00:00.000Z', 1],
    ['by more than a day is rejected', '2026-11-22T00:00:00Z', '2026-11-23T00:00:00.001Z', 0],
    ['is rejected, however late it is read', '2020-01-01T00:00:00Z', '2020-01-02T00:00:00.001Z', 0],
    ['is taken where the clock of the file was never set', '1980-01-01T00:00:00Z', '2026-11-22T00:00:00Z', 1],
    ['is measured by the time of the file also where that is ahead', '2500-01-01T00:00:00Z', '2500-01-01T09:00:00Z', 1],
  ] as const)('%s', async (_what, writtenAt, time, taken) => {
    const record = event({ event_time: time });
    const reason = 'more than a day after its file was written';
    const wanted =
      taken === 1
        ? { ids: [idOf(record)], rejected: [] }
        : { ids: [], rejected: [{ index: 0, field: 'event_time', reason }] };
    for (const [extension, text] of [
      ['json', JSON.stringify([record])],
      ['jsonl', JSON.stringify(record)],
    ] as const) {
      expect(await read(extension, text, { writtenAt: Date.parse(writtenAt) })).toEqual(wanted);
    }
  });
});

describe('a text in another encoding is refused', () => {
  const utf16be = Buffer.from(array.toString(), 'utf16le').swap16();
  it.each([
    ['UTF-16, little end first', Buffer.from(`\ufeff${array.toString()}`, 'utf16le')],
    ['UTF-16, big end first', Buffer.concat([Buffer.from([0xfe, 0xff]), utf16be])],
    ['UTF-16 without a mark, little end first', Buffer.from(array.toString(), 'utf16le')],
    ['UTF-16 without a mark, big end first', utf16be],
    ['UTF-32', Buffer.from(Array.from(array.toString('latin1'), (one) => [one.charCodeAt(0), 0, 0, 0]).flat())],
  ])('%s', async (_what, bytes) => {
    expect(await read('json', bytes)).toMatch(
      /^not UTF-8 text: a byte 0x(ff|fe|00) where JSON begins, as UTF-16 has it$/,
    );
    const reading = await read('jsonl', bytes);
    if (typeof reading === 'string') throw new Error(reading);
    expect(reading.ids).toEqual([]);
    expect(reading.rejected.length).toBeGreaterThan(0);
  });

  it('Latin-1, of which only the records with other characters than ASCII are', async () => {
    const plain = event();
    const texts = [plain, event({ event_type: 'tür' })].map((record) => JSON.stringify(record));
    const rejected = [{ index: 1, field: '', reason: 'not UTF-8 text' }];
    for (const [extension, text] of [
      ['json', `[${texts.join(',')}]`],
      ['jsonl', texts.join('\n')],
    ] as const) {
      expect(await read(extension, Buffer.from(text, 'latin1'))).toEqual({ ids: [idOf(plain)], rejected });
    }
  });
});
