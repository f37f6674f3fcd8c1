import { tzOffset } from '@date-fns/tz';

/**
 * A moment at the precision that the provider sent.
 *
 * `ms` are whole milliseconds since 1970-01-01T00:00Z, rounded down; `nanos` are the nanoseconds past it, 0 to 999,999.
 */
export interface Moment {
  readonly ms: number;
  readonly nanos: number;
}

export const HOUR_MS = 3_600_000;
export const DAY_MS = 86_400_000;

/** An offset can move a time out of the years that four digits name. */
const FIRST_MS = Date.parse('0000-01-01T00:00:00.000Z');
const LAST_MS = Date.parse('9999-12-31T23:59:59.999Z');

const ISO_8601 = /^(\d{4})-(\d\d)-(\d\d)[T ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d{1,9}))?)?(Z|z|[+-]\d\d(?::?\d\d)?)?$/;

/** The minutes that a zone is ahead of UTC at a local wall-clock time; in a repeated hour the first of the two. */
function wallClockOffset(timeZone: string, wallMs: number): number {
  if (timeZone === 'UTC') return 0;
  const before = tzOffset(timeZone, new Date(wallMs - DAY_MS));
  const candidate = tzOffset(timeZone, new Date(wallMs - before * 60_000));
  return tzOffset(timeZone, new Date(wallMs - candidate * 60_000)) === candidate ? candidate : before;
}

function zoneMinutes(zone: string): number | undefined {
  if (zone === 'Z' || zone === 'z') return 0;
  const hours = Number(zone.slice(1, 3));
  const minutes = Number(zone.slice(3).replace(':', '') || '0');
  if (hours > 18 || minutes > 59) return undefined;
  return (zone.startsWith('-') ? -1 : 1) * (hours * 60 + minutes);
}

/**
 * Reads an ISO 8601 date and time with up to nine decimals, with or without a zone.
 *
 * @param sourceTimeZone the IANA zone of times that carry none
 * @returns the moment, or a sentence that says what is wrong with the text
 */
export function parseTime(text: string, sourceTimeZone: string): Moment | string {
  const match = ISO_8601.exec(text);
  if (match === null) return 'not an ISO 8601 date and time';
  const [, year = '', month = '', day = '', hour = '', minute = '', second = '0', decimals = '', zone] = match;
  const date = new Date(0);
  date.setUTCFullYear(Number(year), Number(month) - 1, Number(day));
  if (date.getUTCMonth() !== Number(month) - 1 || date.getUTCDate() !== Number(day))
    return 'no such day in the calendar';
  if (Number(hour) > 23 || Number(minute) > 59 || Number(second) > 59) return 'no such time of day';
  const digits = decimals.padEnd(9, '0');
  const wallMs =
    date.getTime() + ((Number(hour) * 60 + Number(minute)) * 60 + Number(second)) * 1000 + Number(digits.slice(0, 3));
  const offset = zone === undefined ? wallClockOffset(sourceTimeZone, wallMs) : zoneMinutes(zone);
  if (offset === undefined) return 'no such offset from UTC';
  const ms = wallMs - offset * 60_000;
  if (ms < FIRST_MS || ms > LAST_MS) return 'outside of the years 0000 to 9999 in UTC';
  return { ms, nanos: Number(digits.slice(3)) };
}

/** The UTC day as `YYYY-MM-DD`. Times are within the years 0000 to 9999, so this is ten characters. */
export function dayOf(ms: number): string {
  return new Date(ms).toISOString().slice(0, 10);
}

/** The UTC month as `YYYY-MM`. */
export function monthOf(ms: number): string {
  return new Date(ms).toISOString().slice(0, 7);
}

/** The start of the UTC hour, in ms since the epoch. */
export function hourOf(ms: number): number {
  return Math.floor(ms / HOUR_MS) * HOUR_MS;
}

/** Negative when `a` is before `b`, 0 when they are the same nanosecond. */
export function compareMoments(a: Moment, b: Moment): number {
  return a.ms - b.ms || a.nanos - b.nanos;
}
