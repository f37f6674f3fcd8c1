import { createHash } from 'node:crypto';
import { isLosslessNumber, LosslessNumber, parse as parseLossless } from 'lossless-json';

/** A JSON value as it was sent: a number that a double cannot hold keeps its digits in a LosslessNumber. */
export type Json = null | boolean | number | string | LosslessNumber | Json[] | { [key: string]: Json };

/** Deeper values cannot be written back by every reader; the provider's records are two levels deep. */
export const MAX_DEPTH = 100;

/** A number with over 15 digits or an exponent: perhaps more than a double holds. Only such texts take the slow parser. */
const LONG_NUMBER = /(?:^|[:,[])\s*-?(?:\d[\d.]{15}|[\d.]+[eE])/;

function numberOf(text: string): number | LosslessNumber {
  const number = Number(text);
  return sameNumber(text, number) ? number : new LosslessNumber(text);
}

/** Whether the double prints the very digits that the text has (1.50 and 15e-1 are the same number). */
function sameNumber(text: string, number: number): boolean {
  if (!Number.isFinite(number)) return false;
  return significant(text) === significant(String(number));
}

/** Digits without leading and trailing zeros, with the power of ten of the first one: equal for equal numbers. */
function significant(text: string): string {
  const [mantissa = '', exponent = '0'] = text.toLowerCase().replace(/^-/, '').split('e');
  const [whole = '', fraction = ''] = mantissa.split('.');
  const digits = (whole + fraction).replace(/^0+/, '');
  if (digits === '') return '0';
  const leading = whole.length + fraction.length - digits.length;
  return `${digits.replace(/0+$/, '')}@${whole.length - leading + Number(exponent)}`;
}

/**
 * Parses one JSON value and keeps every digit.
 *
 * @throws SyntaxError with the parser's reason
 */
export function parseJson(text: string): Json {
  const value: Json = JSON.parse(text);
  if (!LONG_NUMBER.test(text)) return value;
  checkDepth(value);
  const lossless: unknown = parseLossless(text, null, {
    parseNumber: numberOf,
    onDuplicateKey: ({ newValue }) => newValue,
  });
  return lossless as Json; // lossless-json types its result as unknown; with numberOf above it is a Json
}

/** @throws RangeError when a value is nested deeper than MAX_DEPTH; walks with a stack of its own */
function checkDepth(root: Json): void {
  let level: Json[] = [root];
  for (let depth = 0; level.length > 0; depth += 1) {
    if (depth > MAX_DEPTH) throw new RangeError(`nested deeper than ${MAX_DEPTH} levels`);
    level = level.flatMap((value) =>
      typeof value === 'object' && value !== null && !isLosslessNumber(value) ? Object.values<Json>(value) : [],
    );
  }
}

/**
 * The one text of a JSON value: keys sorted by UTF-16 code unit, no white space, as RFC 8785 has it, except that a
 * number beyond a double keeps its digits.
 *
 * @throws RangeError for a lone surrogate or a value nested deeper than MAX_DEPTH
 */
export function canonicalJson(value: Json, depth = 0): string {
  if (depth > MAX_DEPTH) throw new RangeError(`nested deeper than ${MAX_DEPTH} levels`);
  if (typeof value === 'string') return canonicalString(value);
  if (value === null || typeof value !== 'object') return JSON.stringify(value);
  if (isLosslessNumber(value)) return value.value;
  if (Array.isArray(value)) return `[${value.map((item) => canonicalJson(item, depth + 1)).join(',')}]`;
  const members = Object.keys(value)
    .sort()
    .map((key) => `${canonicalString(key)}:${canonicalJson(value[key] ?? null, depth + 1)}`);
  return `{${members.join(',')}}`;
}

function canonicalString(text: string): string {
  if (!text.isWellFormed()) throw new RangeError('a lone surrogate, which is not a character');
  return JSON.stringify(text);
}

/** The identity of a record: the first 128 bits of the SHA-256 of its canonical JSON, as 32 hexadecimal digits. */
export function contentId(canonical: string): string {
  return createHash('sha256').update(canonical).digest('hex').slice(0, 32);
}
