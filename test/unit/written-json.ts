import fc from 'fast-check';

/** A JSON value as somebody might write it, and the one text that its canonical form must be. */
export interface WrittenJson {
  readonly text: string;
  readonly canonical: string;
}

const ESCAPES = new Map(
  Object.entries({ '\b': 'b', '\t': 't', '\n': 'n', '\f': 'f', '\r': 'r', '"': '"', '\\': '\\' }),
);

function canonicalCharacter(character: string): string {
  const escape = ESCAPES.get(character);
  if (escape !== undefined) return `\\${escape}`;
  return character < ' ' ? `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}` : character;
}

/** By the code units' numbers, as RFC 8785 says. */
function escapedUnits(character: string): string {
  const units = Array.from({ length: character.length }, (_, at) => character.charCodeAt(at));
  return units.map((unit) => `\\u${unit.toString(16).toUpperCase().padStart(4, '0')}`).join('');
}

/** Every character as it is where JSON allows that, or escaped by its number, or `/` with the escape that it may have. */
const character = fc.tuple(fc.string({ unit: 'binary', minLength: 1, maxLength: 1 }), fc.nat(3)).map(([one, style]) => {
  const canonical = canonicalCharacter(one);
  const text = style === 0 ? escapedUnits(one) : style === 1 && one === '/' ? '\\/' : canonical;
  return { text, canonical };
});
const quoted = fc
  .array(character, { maxLength: 8 })
  .map((characters) => ({
    text: `"${characters.map(({ text }) => text).join('')}"`,
    canonical: `"${characters.map(({ canonical }) => canonical).join('')}"`,
  }));
/** Names that mean something to JavaScript, names that look like numbers, names of a parser's own. */
const key = fc.oneof(
  quoted,
  fc
    .constantFrom('__proto__', 'constructor', 'toString', 'hasOwnProperty', '10', '9', '', 'isLosslessNumber', 'value')
    .map((name) => ({ text: `"${name}"`, canonical: `"${name}"` })),
);

const digits = (min: number, max: number) =>
  fc.string({ unit: fc.constantFrom('0', '0', '1', '5', '9', '2', '7'), minLength: min, maxLength: max });
const writtenNumber = fc
  .record({
    sign: fc.constantFrom('', '-'),
    whole: fc.oneof(
      fc.constant('0'),
      fc.tuple(fc.constantFrom('1', '3', '9'), digits(0, 22)).map(([a, b]) => a + b),
    ),
    fraction: fc.option(digits(1, 22)),
    exponent: fc.option(fc.tuple(fc.constantFrom('e', 'E'), fc.constantFrom('', '+', '-'), fc.nat(420))),
  })
  .map(({ sign, whole, fraction, exponent }) => {
    const text = `${sign}${whole}${fraction === null ? '' : `.${fraction}`}${exponent === null ? '' : exponent.join('')}`;
    const double = Number(text);
    const isExact = Number.isFinite(double) && decimalOf(text) === decimalOf(String(double));
    return { text, canonical: isExact ? String(double) : text };
  });

/** One text for each decimal number: its digits without zeros at either end, and the power of ten. */
function decimalOf(text: string): string {
  const [, sign = '', whole = '', fraction = '', exponent = '0'] =
    /^(-?)(\d+)(?:\.(\d+))?(?:[eE]([+-]?\d+))?$/.exec(text) ?? [];
  const mantissa = BigInt(whole + fraction);
  if (mantissa === 0n) return '0';
  const all = String(mantissa);
  const significant = all.replace(/0+$/, '');
  return `${sign}${significant}e${Number(exponent) - fraction.length + all.length - significant.length}`;
}

const space = fc.string({ unit: fc.constantFrom(' ', '\t', '\r', '\n'), maxLength: 2 });

/** By UTF-16 code unit. */
function compareUnits(a: string, b: string): number {
  return Buffer.compare(Buffer.from(a, 'utf16le').swap16(), Buffer.from(b, 'utf16le').swap16());
}

/** The value of a key's canonical text, whose escapes are few. */
const keyOf = (canonical: string) => String(JSON.parse(canonical));

/** Any JSON value, with any white space, escapes, forms of numbers, order of keys, and keys that come twice. */
export const { value: writtenJson } = fc.letrec<{ value: WrittenJson }>((tie) => ({
  value: fc.oneof(
    { maxDepth: 4, depthSize: 'small' },
    fc.constantFrom('null', 'true', 'false').map((text) => ({ text, canonical: text })),
    quoted,
    writtenNumber,
    fc
      .array(fc.tuple(space, tie('value'), space), { maxLength: 4 })
      .map((items) => ({
        text: `[${items.map(([before, { text }, after]) => before + text + after).join(',')}]`,
        canonical: `[${items.map(([, { canonical }]) => canonical).join(',')}]`,
      })),
    fc.array(fc.tuple(space, key, space, tie('value')), { maxLength: 5 }).map((entries) => {
      // The last one counts where a key comes twice.
      const last = new Map(entries.map(([, name, , { canonical }]) => [name.canonical, canonical]));
      const sorted = [...last].sort(([a], [b]) => compareUnits(keyOf(a), keyOf(b)));
      return {
        text: `{${entries.map(([a, name, b, { text }]) => `${a}${name.text}${b}:${a}${text}${b}`).join(',')}}`,
        canonical: `{${sorted.map((entry) => entry.join(':')).join(',')}}`,
      };
    }),
  ),
}));

/** A text or bytes with a little of it removed, and a little else put in its place. */
export const mutation = fc.record({
  at: fc.double({ min: 0, max: 1, noNaN: true }),
  removed: fc.nat(3),
  inserted: fc.string({ unit: fc.oneof(fc.constantFrom(...'[]{}",:\\0 \n'.split('')), fc.string()), maxLength: 3 }),
});
type Mutation = typeof mutation extends fc.Arbitrary<infer T> ? T : never;

export function mutate(text: string, { at, removed, inserted }: Mutation): string {
  const start = Math.floor(at * text.length);
  return text.slice(0, start) + inserted + text.slice(start + removed);
}
