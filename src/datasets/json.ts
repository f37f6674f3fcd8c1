import { hash } from 'node:crypto';
import { compareNumber, isLosslessNumber, LosslessNumber, parse as parseLossless } from 'lossless-json';
import { remember } from './remember.ts';

/** A JSON value as it was sent: a number that a double cannot hold keeps its digits in a LosslessNumber. */
export type Json = null | boolean | number | string | LosslessNumber | Json[] | JsonObject;
export type JsonObject = { [key: string]: Json };

/** Deeper values cannot be written back by every reader; the provider's records are two levels deep. */
export const MAX_DEPTH = 100;

/** A number with over 15 digits or an exponent: perhaps more than a double holds. Only such texts take the slow parser. */
const LONG_NUMBER = /(?:^|[:,[])\s*-?(?:\d[\d.]{15}|[\d.]+[eE])/;

/** A text that JSON writes as it is, as it does most. */
const PLAIN = /^[ !#-[\]-~]*$/;

/** A number, where the double prints the very digits that the text has (1.50 and 15e-1 are the same number). */
function numberOf(text: string): number | LosslessNumber {
  const number = Number(text);
  return Number.isFinite(number) && compareNumber(text, String(number)) === 0 ? number : new LosslessNumber(text);
}

/** Parses one JSON value and keeps every digit. @throws SyntaxError, or RangeError as `canonicalJson` does */
export function parseJson(text: string): Json {
  const value: Json = JSON.parse(text);
  if (!LONG_NUMBER.test(text)) return value;
  canonicalJson(value); // Refuses what is nested too deep for the parser below, which recurses.
  const options = { parseNumber: numberOf, onDuplicateKey: ({ newValue }: { newValue: unknown }) => newValue };
  return parseLossless(text, null, options) as Json; // typed as unknown; with numberOf it is a Json
}

/** Whether a JSON text surely holds no number that JSON.parse could change. */
export function isLossless(text: string): boolean {
  return !LONG_NUMBER.test(text);
}

/** The members of an object, sorted by key as canonical JSON has them: what comes before each value there, and its text. */
export interface CanonicalMembers {
  readonly keys: readonly string[];
  readonly prefixes: readonly string[];
  readonly texts: readonly string[];
}

/** Layouts of objects that are remembered: a file's records mostly have one, and their inner objects another. Only small ones. */
const REMEMBERED_LAYOUTS = 100;
const LAYOUT_KEYS = 50;
const KEY_LENGTH = 100;
type Layout = Omit<CanonicalMembers, 'texts'> & { readonly unsorted: readonly string[] };
const layouts = new Map<string, Layout>();

function layoutOf(value: JsonObject): Layout {
  const unsorted = Object.keys(value);
  // The first key and the number of keys mostly tell layouts apart; that all are the same is looked at.
  const id = `${unsorted.length} ${unsorted[0]}`;
  const known = unsorted.length <= LAYOUT_KEYS ? layouts.get(id) : undefined;
  if (known?.unsorted.every((key, index) => key === unsorted[index]) === true) return known;
  const keys = unsorted.toSorted();
  const prefixes = keys.map((key, index) => `${index === 0 ? '{' : ','}${canonicalJson(key)}:`);
  const layout = { unsorted, keys, prefixes };
  if (keys.length > LAYOUT_KEYS || keys.some(({ length }) => length > KEY_LENGTH)) return layout;
  return remember(layouts, id, layout, REMEMBERED_LAYOUTS);
}

/** As `canonicalJson` for each member of an object. */
export function canonicalMembers(value: JsonObject, depth = 0): CanonicalMembers {
  const { keys, prefixes } = layoutOf(value);
  return { keys, prefixes, texts: keys.map((key) => canonicalJson(value[key] ?? null, depth + 1)) };
}

/** The canonical text of the object with these members. */
export function joinMembers({ prefixes, texts }: CanonicalMembers): string {
  let joined = '';
  // By index here, and where else it is for each record: to go through entries allocates more than all that is done with them.
  for (let at = 0; at < texts.length; at += 1) joined += `${prefixes[at]}${texts[at]}`;
  return joined === '' ? '{}' : `${joined}}`;
}

/**
 * The one text of a JSON value: keys sorted by UTF-16 code unit, no white space, as RFC 8785 has it, except that a
 * number beyond a double keeps its digits. @throws RangeError for a lone surrogate or nesting deeper than MAX_DEPTH
 */
export function canonicalJson(value: Json, depth = 0): string {
  if (depth > MAX_DEPTH) throw new RangeError(`nested deeper than ${MAX_DEPTH} levels`);
  if (typeof value === 'string') {
    if (PLAIN.test(value)) return `"${value}"`;
    if (value.isWellFormed()) return JSON.stringify(value);
    throw new RangeError('a lone surrogate, which is not a character');
  }
  if (value === null || typeof value !== 'object') return JSON.stringify(value);
  if (isLosslessNumber(value)) return value.value;
  if (!Array.isArray(value)) return joinMembers(canonicalMembers(value, depth));
  return `[${value.map((item) => canonicalJson(item, depth + 1)).join(',')}]`;
}

/** The identity of a record: the first 128 bits of the SHA-256 of its canonical JSON, as 32 hexadecimal digits. */
export function contentId(canonical: string): string {
  return hash('sha256', canonical, 'hex').slice(0, 32);
}
