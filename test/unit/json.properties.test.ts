import fc from 'fast-check';
import { expect, it } from 'vitest';
import { canonicalJson, parseJson } from '../../src/datasets/json.ts';
import { mutate, mutation, writtenJson } from './written-json.ts';

fc.configureGlobal({ numRuns: 10_000 });

/** A number that no double holds: beside it the parser that keeps every digit is used. */
const LONG = '12345678901234567890123';
const canonical = (text: string) => canonicalJson(parseJson(text));

it('every way to write a value has the same canonical text, also beside a long number', () => {
  fc.assert(
    fc.property(writtenJson, fc.boolean(), (written, besideLong) => {
      if (besideLong) expect(canonical(`[${written.text},${LONG}]`)).toBe(`[${written.canonical},${LONG}]`);
      else expect(canonical(written.text)).toBe(written.canonical);
      expect(canonical(written.canonical)).toBe(written.canonical);
    }),
  );
});

it('what is not JSON is refused, and nothing else, also beside a long number', () => {
  fc.assert(
    fc.property(writtenJson, mutation, fc.boolean(), (written, change, besideLong) => {
      const mutated = mutate(written.text, change);
      const text = besideLong ? `[${mutated},${LONG}]` : mutated;
      expect(outcomeOf(() => parseJson(text))).toBe(outcomeOf(() => JSON.parse(text)));
    }),
  );
});

/** A lone surrogate may come to light early; it is no question of JSON's grammar. */
function outcomeOf(parse: () => unknown): string {
  try {
    parse();
  } catch (error) {
    if (!(error instanceof RangeError)) return String(error instanceof SyntaxError);
  }
  return 'JSON';
}

it('a lone surrogate is refused wherever it is', () => {
  const lone = fc
    .tuple(fc.string({ unit: 'binary' }), fc.integer({ min: 0xd800, max: 0xdfff }), fc.string({ unit: 'grapheme' }))
    .map((parts) => parts.map((part) => (typeof part === 'number' ? `\\u${part.toString(16)}` : JSON.stringify(part))))
    .map(([before = '', surrogate = '', after = '']) => `${before.slice(0, -1)}${surrogate}${after.slice(1)}`);
  const around = fc.constantFrom<(text: string) => string>(
    (text) => text,
    (text) => `[1,{"a":[${text}]}]`,
    (text) => `{"b":{${text}:1}}`,
    (text) => `{"n":${LONG},"b":{${text}:1}}`,
    (text) => `[${LONG},${text}]`,
  );
  fc.assert(
    fc.property(lone, around, (text, wrap) => {
      expect(() => canonical(wrap(text))).toThrow(/lone surrogate/);
    }),
  );
});
