import { describe, expect, it } from 'vitest';
import { canonicalJson, contentId, MAX_DEPTH, parseJson } from '../../src/datasets/json.ts';

const canonical = (text: string) => canonicalJson(parseJson(text));
/** So long that the parser that keeps every digit is used. */
const LONG = '12345678901234567890123';

describe('the canonical text of a JSON value', () => {
  it('does not depend on the order of keys or on white space', () => {
    expect(canonical('{ "b": [1, {"y": 2, "x": 3}],\n"a": null }')).toBe('{"a":null,"b":[1,{"x":3,"y":2}]}');
    expect(canonical(`{"b":${LONG},"a":1}`)).toBe(`{"a":1,"b":${LONG}}`);
  });

  it('sorts keys by UTF-16 code unit', () => {
    expect(canonical('{"\\ud83d\\ude00":1,"\\ufb33":2,"a":3,"B":4,"10":5,"9":6}')).toBe(
      '{"10":5,"9":6,"B":4,"a":3,"\u{1f600}":1,"\ufb33":2}',
    );
  });

  it.each([
    ['1.0', '1'],
    ['1e0', '1'],
    ['-0', '0'],
    ['-0.0', '0'],
    ['0.1', '0.1'],
    ['1E2', '100'],
    ['100000000000000000000', '100000000000000000000'],
    ['1e20', '100000000000000000000'],
    ['0.00000001', '1e-8'],
    ['1e-8', '1e-8'],
    ['0.00000000000000001', '1e-17'],
    ['-0.00000000000000001', '-1e-17'],
    ['1.50000000000000000', '1.5'],
  ])('writes the number %s as %s, alone and beside a long one', (text, expected) => {
    expect(canonical(text)).toBe(expected);
    expect(canonical(`[${text},${LONG}]`)).toBe(`[${expected},${LONG}]`);
  });

  it.each([LONG, '0.1234567890123456789', '1e400', '-123456789012345678.5', '9007199254740993'])(
    'keeps the digits of %s, which a double cannot hold',
    (text) => {
      expect(canonical(`{"n":[${text}]}`)).toBe(`{"n":[${text}]}`);
    },
  );

  it('keeps a key called __proto__, also beside a long number', () => {
    expect(canonical('{"__proto__":{"a":1},"b":2}')).toBe('{"__proto__":{"a":1},"b":2}');
    expect(canonical(`{"__proto__":{"a":1},"b":${LONG}}`)).toBe(`{"__proto__":{"a":1},"b":${LONG}}`);
    expect(canonical(`{"constructor":1,"toString":${LONG}}`)).toBe(`{"constructor":1,"toString":${LONG}}`);
  });

  it('is that of the last one where a key comes twice, also beside a long number', () => {
    expect(canonical('{"a":1,"a":2}')).toBe('{"a":2}');
    expect(canonical(`{"a":1,"a":2,"b":${LONG}}`)).toBe(`{"a":2,"b":${LONG}}`);
    expect(canonical(`{"a":{"x":1},"a":{"y":${LONG}}}`)).toBe(`{"a":{"y":${LONG}}}`);
  });

  it('reads escapes the same beside a long number', () => {
    const text = '"\\u00e9\\n\\"\\\\\\/\\ud83d\\ude00"';
    expect(canonical(`[${text},${LONG}]`)).toBe(`[${canonical(text)},${LONG}]`);
  });

  it.each(['"\\ud800"', '"\\udc00"', '"a\\ud800b"', '{"\\ud800":1}', `["\\udfff",${LONG}]`])(
    'is refused to %s, a lone surrogate',
    (text) => {
      expect(() => canonical(text)).toThrow(/lone surrogate/);
    },
  );

  it('is refused to what is nested too deep, however deep that is', () => {
    const nested = (depth: number, inner = '1') => '['.repeat(depth) + inner + ']'.repeat(depth);
    expect(canonical(nested(MAX_DEPTH))).toBe(nested(MAX_DEPTH));
    expect(canonical(nested(MAX_DEPTH, LONG))).toBe(nested(MAX_DEPTH, LONG));
    for (const depth of [MAX_DEPTH + 1, 5_000, 100_000]) {
      expect(() => canonical(nested(depth)), String(depth)).toThrow(RangeError);
      expect(() => canonical(nested(depth, LONG)), String(depth)).toThrow(RangeError);
    }
  });

  it('is not to be had of what is not JSON', () => {
    for (const text of ['', '{', '[1,]', '{"a":01}', "{'a':1}", 'NaN', `[${LONG},]`, `{"a":${LONG}`, '"\t"']) {
      expect(() => canonical(text), text).toThrow(SyntaxError);
    }
  });
});

it('the identity of a record is the first half of the SHA-256 of its canonical text', () => {
  expect(contentId('{}')).toBe('44136fa355b3678a1146ad16f7e8649e');
});
