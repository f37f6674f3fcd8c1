import { describe, expect, it } from 'vitest';
import {
  createArraySplitter,
  createLineSplitter,
  type RawRecord,
  type RecordSplitter,
} from '../../src/processors/record-splitter.ts';

const MAX_RECORD_BYTES = 200;

function split(splitter: RecordSplitter, ...chunks: Buffer[]): RawRecord[] {
  return [...chunks.flatMap((chunk) => splitter.push(chunk)), ...splitter.end()];
}

/** Brackets, quotes, commas and escapes inside of texts; characters of two, three and four bytes; a byte order mark. */
const trickyRecords = [
  '{"a":"],[{}\\"\\\\"}',
  '{ "b" : [ [ 1 , 2 ] , { } , "é€😀" ] }',
  '"just text, with \\\\"',
  '[]',
  '12.5e3',
  'null',
  '{"\\\\":{"":[{"x":"\\u005d"}]}}',
];
const trickyArray = Buffer.from(`\ufeff \n[\t${trickyRecords.join(' \r\n,  ')} ]\n `);
const trickyLines = Buffer.from(`\ufeff${trickyRecords.join('\n')}\r\n\n  \n`);

describe.each([
  { name: 'an array', create: createArraySplitter, file: trickyArray },
  { name: 'lines', create: createLineSplitter, file: trickyLines },
])('$name', ({ create, file }) => {
  const whole = split(create(MAX_RECORD_BYTES), file);

  it('is cut into its records, numbered from 0', () => {
    expect(whole.map(({ index }) => index)).toEqual(trickyRecords.map((_, index) => index));
    expect(whole.map(({ text }) => text.trim())).toEqual(trickyRecords);
  });

  it('gives the same records wherever two chunks meet', () => {
    for (let at = 0; at <= file.length; at += 1) {
      const parts = [file.subarray(0, at), file.subarray(at)];
      expect(split(create(MAX_RECORD_BYTES), ...parts), `cut at byte ${at}`).toEqual(whole);
    }
  });

  it('gives the same records byte by byte', () => {
    const bytes = Array.from(file, (_, at) => file.subarray(at, at + 1));
    expect(split(create(MAX_RECORD_BYTES), ...bytes)).toEqual(whole);
  });

  it('gives a record that is too large up alone, with the beginning of it', () => {
    const large = `{"a":"${'x'.repeat(10_000)}"}`;
    const text = create === createArraySplitter ? `[1,${large},2]` : `1\n${large}\n2\n`;
    for (const size of [1, 7, 64, 100_000]) {
      const chunks: Buffer[] = [];
      for (let at = 0; at < text.length; at += size) chunks.push(Buffer.from(text.slice(at, at + size)));
      const records = split(create(MAX_RECORD_BYTES), ...chunks);
      expect(records.map(({ problem }) => problem)).toEqual([
        undefined,
        `larger than MAX_RECORD_BYTES: ${large.length} of at most ${MAX_RECORD_BYTES} bytes`,
        undefined,
      ]);
      expect(records[1]?.text.length).toBeLessThanOrEqual(4_096);
      expect(large.startsWith(records[1]?.text ?? '-')).toBe(true);
    }
  });

  it('gives a record that is not UTF-8 up alone', () => {
    const parts = create === createArraySplitter ? ['["é","', '","€"]'] : ['"é"\n"', '"\n"€"'];
    for (const bytes of [[0xff], [0xc3], [0xe2, 0x82], [0xc0, 0xaf], [0xed, 0xa0, 0x80]]) {
      const file = Buffer.concat([Buffer.from(parts[0] ?? ''), Buffer.from(bytes), Buffer.from(parts[1] ?? '')]);
      expect(split(create(MAX_RECORD_BYTES), file).map(({ problem }) => problem)).toEqual([
        undefined,
        'not UTF-8 text',
        undefined,
      ]);
    }
  });

  it.each(['', ' \n\t ', '\ufeff', '\ufeff\n'])('is refused when it holds nothing (%j)', (text) => {
    expect(() => split(create(MAX_RECORD_BYTES), Buffer.from(text))).toThrow('empty: it holds no JSON');
  });
});

describe('an array', () => {
  it('is an error when it is cut off at any byte', () => {
    const end = trickyArray.lastIndexOf(']');
    for (let length = 0; length <= end; length += 1) {
      expect(
        () => split(createArraySplitter(MAX_RECORD_BYTES), trickyArray.subarray(0, length)),
        `cut off after ${length} bytes`,
      ).toThrow(/^(ends too early: .* record \d|empty: it holds no JSON|not a JSON array of records)/);
    }
    expect(split(createArraySplitter(MAX_RECORD_BYTES), trickyArray.subarray(0, end + 1))).toHaveLength(
      trickyRecords.length,
    );
  });

  it('may be empty', () => {
    expect(split(createArraySplitter(MAX_RECORD_BYTES), Buffer.from(' [ ] '))).toEqual([]);
  });

  it.each([
    ['{"a":1}', /does not begin with \[/],
    ['\ufeff\ufeff[]', /does not begin with \[/],
    ['[1,2]]', /more after the end of the array, behind record 1/],
    ['[1][2]', /more after the end/],
    ['[1,2],', /more after the end/],
    ['[1,,2]', /record 1 is missing/],
    ['[,1]', /record 0 is missing/],
    ['[1,]', /record 1 is missing/],
    ['[1}', /record 0 closes a brace that it did not open/],
  ])('%j is refused with the place', (text, reason) => {
    for (const chunks of [[Buffer.from(text)], Array.from(Buffer.from(text), (byte) => Buffer.from([byte]))]) {
      expect(() => split(createArraySplitter(MAX_RECORD_BYTES), ...chunks)).toThrow(reason);
    }
  });
});

describe('lines', () => {
  it('need no line feed at the end, and blank ones do not count', () => {
    const records = split(createLineSplitter(MAX_RECORD_BYTES), Buffer.from('\n1\n \r\n2'));
    expect(records.map(({ index, text }) => [index, text.trim()])).toEqual([
      [0, '1'],
      [1, '2'],
    ]);
  });
});
