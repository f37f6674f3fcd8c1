import { remember } from './remember.ts';

/** A moment at the precision that the provider sent: whole ms since the epoch, and 0 to 999,999 ns past them. */
export interface Moment {
  readonly ms: number;
  readonly nanos: number;
}

export const HOUR_MS = 3_600_000;
export const DAY_MS = 86_400_000;

const ISO_8601 = /^(\d{4}-\d\d-\d\d)[T ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d{1,9}))?)?(Z|z|[+-]\d\d(?::?\d\d)?)?$/;
/** An offset can move a time out of the years that four digits name. */
const FIRST_MS = Date.parse('0000-01-01');
const LAST_MS = Date.parse('9999-12-31T23:59:59.999Z');

const offsetFormats = new Map<string, Intl.DateTimeFormat>();

/** The ms that a zone is ahead of UTC at an instant; of long ago there are offsets with seconds. */
function zoneOffset(timeZone: string, ms: number): number {
  const format = offsetFormats.get(timeZone) ?? new Intl.DateTimeFormat('en', { timeZone, timeZoneName: 'longOffset' });
  offsetFormats.set(timeZone, format);
  const [, sign, ...parts] = /([+-])(\d\d):(\d\d)(?::(\d\d))?$/.exec(format.format(ms)) ?? [];
  const [hours = 0, minutes = 0, seconds = 0] = parts.map((part: string | undefined) => Number(part ?? 0));
  return (sign === '-' ? -1_000 : 1_000) * (hours * 3_600 + minutes * 60 + seconds);
}

/** The ms that a zone is ahead of UTC at a local wall-clock time; in a repeated hour the first of the two. */
function wallClockOffset(timeZone: string, wallMs: number): number {
  if (timeZone === 'UTC') return 0;
  const before = zoneOffset(timeZone, wallMs - DAY_MS);
  const candidate = zoneOffset(timeZone, wallMs - before);
  return zoneOffset(timeZone, wallMs - candidate) === candidate ? candidate : before;
}

/** In ms ahead of UTC. */
function writtenOffset(zone: string): number | undefined {
  if (zone === 'Z' || zone === 'z') return 0;
  const hours = Number(zone.slice(1, 3));
  const minutes = Number(zone.slice(3).replace(':', ''));
  if (hours > 18 || minutes > 59) return undefined;
  return (zone.startsWith('-') ? -1 : 1) * (hours * HOUR_MS + minutes * 60_000);
}

/**
 * Reads an ISO 8601 date and time with up to nine decimals; one without a zone is in `sourceTimeZone`, an IANA name.
 * Returns a sentence that says what is wrong with a text that is no such thing.
 */
export function parseTime(text: string, sourceTimeZone: string): Moment | string {
  const match = ISO_8601.exec(text);
  if (match === null) return 'not an ISO 8601 date and time';
  const [, day = '', hour, minute, second = '00', decimals = '', zone] = match;
  const midnight = midnightOf(day);
  if (Number.isNaN(midnight)) return 'no such day in the calendar';
  const [hours, minutes, seconds] = [Number(hour), Number(minute), Number(second)];
  if (hours > 23 || minutes > 59 || seconds > 59) return 'no such time of day';
  const digits = decimals.padEnd(9, '0');
  const wallMs = midnight + hours * HOUR_MS + minutes * 60_000 + seconds * 1_000 + Number(digits.slice(0, 3));
  const offset = zone === undefined ? wallClockOffset(sourceTimeZone, wallMs) : writtenOffset(zone);
  if (offset === undefined) return 'no such offset from UTC';
  const ms = wallMs - offset;
  if (ms < FIRST_MS || ms > LAST_MS) return 'outside of the years 0000 to 9999 in UTC';
  return { ms, nanos: Number(digits.slice(3)) };
}

/** Days that are remembered, as records mostly are of the same few. */
const REMEMBERED_DAYS = 10_000;
const midnights = new Map<string, number>();
const days = new Map<number, string>();

/** The start of a `YYYY-MM-DD` in UTC, in ms since the epoch; NaN for a day that no calendar has. */
function midnightOf(day: string): number {
  const known = midnights.get(day);
  if (known !== undefined) return known;
  const midnight = Date.parse(day);
  const isDay = !Number.isNaN(midnight) && dayOf(midnight) === day;
  return remember(midnights, day, isDay ? midnight : NaN, REMEMBERED_DAYS);
}

/** The UTC day of a time in ms since the epoch, as `YYYY-MM-DD`. */
export function dayOf(ms: number): string {
  const number = Math.floor(ms / DAY_MS);
  const known = days.get(number);
  return known ?? remember(days, number, new Date(number * DAY_MS).toISOString().slice(0, 10), REMEMBERED_DAYS);
}
/** The UTC month, as `YYYY-MM`. */
export const monthOf = (ms: number) => dayOf(ms).slice(0, 7);
/** The start of the UTC hour, in ms since the epoch. */
export const hourOf = (ms: number) => Math.floor(ms / HOUR_MS) * HOUR_MS;
/** The µs of a time in ms since the epoch that may have a fraction, as those of clocks have. */
export const microsOfClock = (ms: number) => BigInt(Math.floor(ms * 1_000));
/** Negative when `a` is before `b`, 0 when they are the same nanosecond. */
export const compareMoments = (a: Moment, b: Moment) => a.ms - b.ms || a.nanos - b.nanos;
/** The µs since the epoch, as far as they are over. */
export const microsOf = ({ ms, nanos }: Moment) => BigInt(ms) * 1000n + BigInt(Math.floor(nanos / 1000));
