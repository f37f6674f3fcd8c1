import { isDeepStrictEqual } from 'node:util';
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { FileProblem } from '../../src/processors/data-file.ts';
import {
  createArraySplitter,
  createLineSplitter,
  type RawRecord,
  type RecordSplitter,
} from '../../src/processors/record-splitter.ts';
import { mutate, mutation, writtenJson } from './written-json.ts';

fc.configureGlobal({ numRuns: 10_000 });

const MAX_RECORD_BYTES = 1024 ** 2;

/** Where chunks meet, as shares of the file. */
const borders = fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { maxLength: 8 });
const space = fc.string({ unit: fc.constantFrom(' ', '\t', '\r', '\n'), maxLength: 3 });
const blank = fc.string({ unit: fc.constantFrom(' ', '\t', '\r'), maxLength: 3 });
const mark = fc.constantFrom('', '\ufeff');

const arrayFile = fc
  .record({ mark, around: space, items: fc.array(fc.tuple(space, writtenJson, space), { maxLength: 6 }) })
  .map((file) => {
    const items = file.items.map(([before, { text }, after]) => before + text + after);
    return `${file.mark}${file.around}[${file.around}${items.join(',')}]${file.around}`;
  });
const line = fc.tuple(blank, writtenJson, blank).map(([before, { text }, after]) => {
  // Between tokens a line feed is white space; in texts there is none.
  return before + text.replaceAll('\n', ' ') + after;
});
const linesFile = fc
  .record({ mark, lines: fc.array(fc.oneof({ weight: 3, arbitrary: line }, blank), { maxLength: 6 }), end: blank })
  .map((file) => file.mark + [...file.lines, file.end].join('\n'));

function split(splitter: RecordSplitter, file: Buffer, cuts: readonly number[]): RawRecord[] {
  const at = [0, ...cuts.map((share) => Math.floor(share * file.length)).sort((a, b) => a - b), file.length];
  const chunks = at.slice(1).map((end, n) => file.subarray(at[n], end));
  return [...chunks.flatMap((chunk) => splitter.push(chunk)), ...splitter.end()];
}

function expectRecords(records: readonly RawRecord[], expected: readonly unknown[]): void {
  expect(records.map(({ index }) => index)).toEqual(expected.map((_, index) => index));
  for (const { problem } of records) expect(problem).toBeUndefined();
  const values = records.map(({ text }): unknown => JSON.parse(text));
  expect(isDeepStrictEqual(values, expected)).toBe(true);
}

it('an array that is cut into chunks anywhere gives the elements that JSON.parse gives', () => {
  fc.assert(
    fc.property(arrayFile, borders, (text, cuts) => {
      const expected: unknown[] = JSON.parse(text.replace(/^\ufeff/, ''));
      expectRecords(split(createArraySplitter(MAX_RECORD_BYTES), Buffer.from(text), cuts), expected);
    }),
  );
});

it('lines that are cut into chunks anywhere give what JSON.parse gives of each that is not blank', () => {
  fc.assert(
    fc.property(linesFile, borders, (text, cuts) => {
      const lines = text.replace(/^\ufeff/, '').split('\n');
      const expected = lines.filter((one) => /[^ \t\r]/.test(one)).map((one): unknown => JSON.parse(one));
      const read = () => split(createLineSplitter(MAX_RECORD_BYTES), Buffer.from(text), cuts);
      if (expected.length === 0) expect(read).toThrow('empty: it holds no JSON');
      else expectRecords(read(), expected);
    }),
  );
});

/** The records' values; a record that is no JSON is told as the whole file's problem, as the reader does. */
function readArray(file: Buffer, cuts: readonly number[]): unknown[] | 'no array of records' | 'not UTF-8' {
  try {
    const records = split(createArraySplitter(MAX_RECORD_BYTES), file, cuts);
    if (records.some(({ problem }) => problem === 'not UTF-8 text')) return 'not UTF-8';
    return records.map(({ text }): unknown => JSON.parse(text));
  } catch (error) {
    if (error instanceof SyntaxError || error instanceof FileProblem) return 'no array of records';
    throw error;
  }
}

function parseArray(text: string): unknown[] | 'no array of records' {
  try {
    const value: unknown = JSON.parse(text);
    return Array.isArray(value) ? value : 'no array of records';
  } catch {
    return 'no array of records';
  }
}

it('a file that comes near to an array of records is one exactly when JSON.parse says so', () => {
  fc.assert(
    fc.property(arrayFile, fc.array(mutation, { minLength: 1, maxLength: 2 }), borders, (text, changes, cuts) => {
      const mutated = changes.reduce(mutate, text).toWellFormed();
      const expected = parseArray(mutated.replace(/^\ufeff/, ''));
      expect(isDeepStrictEqual(readArray(Buffer.from(mutated), cuts), expected), mutated).toBe(true);
    }),
  );
});

it('bytes that are not UTF-8 never become a record', () => {
  const isText = (bytes: Buffer) => {
    try {
      return new TextDecoder('utf-8', { fatal: true }).decode(bytes).length >= 0;
    } catch {
      return false;
    }
  };
  const flip = fc.record({ at: fc.double({ min: 0, max: 1, noNaN: true }), mask: fc.integer({ min: 1, max: 255 }) });
  fc.assert(
    fc.property(arrayFile, fc.array(flip, { minLength: 1, maxLength: 3 }), borders, (text, flips, cuts) => {
      const bytes = Buffer.from(text);
      for (const { at, mask } of flips) {
        const place = Math.min(bytes.length - 1, Math.floor(at * bytes.length));
        bytes.writeUInt8((bytes[place] ?? 0) ^ mask, place);
      }
      const result = readArray(bytes, cuts);
      if (!isText(bytes)) expect(Array.isArray(result)).toBe(false);
      else expect(isDeepStrictEqual(result, parseArray(bytes.toString().replace(/^\ufeff/, '')))).toBe(true);
    }),
  );
});

it('a record that is larger than allowed is given up alone, whatever is in it and wherever chunks meet', () => {
  const MAX = 20;
  const kinds = [
    { create: createArraySplitter, join: (texts: string[]) => `[${texts.join(',')}]` },
    { create: createLineSplitter, join: (texts: string[]) => texts.map((text) => `${text}\n`).join('') },
  ];
  const records = fc.array(
    fc.oneof(
      fc.json({ maxDepth: 2 }),
      fc.string().map((text) => JSON.stringify(text)),
    ),
    { minLength: 1, maxLength: 6 },
  );
  fc.assert(
    fc.property(records, fc.constantFrom(...kinds), borders, (texts, { create, join }, cuts) => {
      const found = split(create(MAX), Buffer.from(join(texts)), cuts);
      expect(found.map(({ problem, text }) => problem ?? text)).toEqual(
        texts.map((text) => {
          const bytes = Buffer.byteLength(text);
          return bytes <= MAX ? text : `larger than MAX_RECORD_BYTES: ${bytes} of at most ${MAX} bytes`;
        }),
      );
    }),
  );
});
