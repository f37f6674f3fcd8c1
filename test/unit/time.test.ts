import { describe, expect, it } from 'vitest';
import { compareMoments, dayOf, hourOf, monthOf, parseTime } from '../../src/datasets/time.ts';

/** The moment as UTC text with nine decimals, or what is wrong with it. */
function read(text: string, zone = 'UTC'): string {
  const moment = parseTime(text, zone);
  if (typeof moment === 'string') return moment;
  return `${new Date(moment.ms).toISOString().slice(0, -1)} ${String(moment.nanos).padStart(6, '0')}`;
}

describe('a time', () => {
  it.each([
    ['2026-11-22T17:28:25.784422', '2026-11-22T17:28:25.784 422000'],
    ['2026-11-22T17:28:25.784422123', '2026-11-22T17:28:25.784 422123'],
    ['2026-11-22T17:28:25.000000001Z', '2026-11-22T17:28:25.000 000001'],
    ['2026-11-22 17:28:25', '2026-11-22T17:28:25.000 000000'],
    ['2026-11-22T17:28', '2026-11-22T17:28:00.000 000000'],
    ['2026-11-22T17:28:25,5', '2026-11-22T17:28:25.500 000000'],
    ['2026-11-22T17:28:25.1+05:30', '2026-11-22T11:58:25.100 000000'],
    ['2026-11-22T17:28:25.1-0800', '2026-11-23T01:28:25.100 000000'],
    ['2026-11-22T17:28:25+01', '2026-11-22T16:28:25.000 000000'],
    ['2024-02-29T23:59:59.999999999', '2024-02-29T23:59:59.999 999999'],
    ['1969-12-31T23:59:59.999999999', '1969-12-31T23:59:59.999 999999'],
    ['0000-01-01T01:00:00+01:00', '0000-01-01T00:00:00.000 000000'],
    ['1901-03-01T00:00:00.000000001', '1901-03-01T00:00:00.000 000001'],
  ])('%s is read to the nanosecond', (text, moment) => {
    expect(read(text)).toBe(moment);
  });

  it.each([
    ['yesterday', 'not an ISO 8601 date and time'],
    ['', 'not an ISO 8601 date and time'],
    ['2026-11-22', 'not an ISO 8601 date and time'],
    ['2026-11-22T17:28:25.1234567890', 'not an ISO 8601 date and time'],
    ['2026-11-22T17:28:25 Europe/Berlin', 'not an ISO 8601 date and time'],
    ['2026-02-29T00:00:00', 'no such day in the calendar'],
    ['2026-04-31T00:00:00', 'no such day in the calendar'],
    ['2026-13-01T00:00:00', 'no such day in the calendar'],
    ['2026-00-10T00:00:00', 'no such day in the calendar'],
    ['2026-11-22T24:00:00', 'no such time of day'],
    ['2026-11-22T23:60:00', 'no such time of day'],
    ['2026-11-22T23:59:60', 'no such time of day'],
    ['2026-11-22T17:28:25+19:00', 'no such offset from UTC'],
    ['2026-11-22T17:28:25+05:60', 'no such offset from UTC'],
    ['0000-01-01T00:59:59+01:00', 'outside of the years 0000 to 9999 in UTC'],
    ['9999-12-31T23:00:00-01:00', 'outside of the years 0000 to 9999 in UTC'],
  ])('%s is refused: %s', (text, reason) => {
    expect(read(text)).toBe(reason);
  });
});

describe('a time without a zone', () => {
  it('is meant in the zone of the source, in summer and in winter', () => {
    expect(read('2026-07-01T12:00:00', 'Europe/Berlin')).toBe('2026-07-01T10:00:00.000 000000');
    expect(read('2026-12-01T12:00:00', 'Europe/Berlin')).toBe('2026-12-01T11:00:00.000 000000');
    expect(read('2026-07-01T12:00:00Z', 'Europe/Berlin')).toBe('2026-07-01T12:00:00.000 000000');
  });

  it('of an hour that comes twice is the first one', () => {
    expect(read('2026-10-25T02:30:00', 'Europe/Berlin')).toBe('2026-10-25T00:30:00.000 000000');
    expect(read('2026-10-25T01:59:59', 'Europe/Berlin')).toBe('2026-10-24T23:59:59.000 000000');
    expect(read('2026-10-25T03:00:00', 'Europe/Berlin')).toBe('2026-10-25T02:00:00.000 000000');
    expect(read('2026-11-01T01:30:00', 'America/New_York')).toBe('2026-11-01T05:30:00.000 000000');
  });

  it('of an hour that does not exist keeps the order around the gap', () => {
    expect(read('2026-03-29T01:59:59.999', 'Europe/Berlin')).toBe('2026-03-29T00:59:59.999 000000');
    expect(read('2026-03-29T02:30:00', 'Europe/Berlin')).toBe('2026-03-29T01:30:00.000 000000');
    expect(read('2026-03-29T03:00:00', 'Europe/Berlin')).toBe('2026-03-29T01:00:00.000 000000');
    expect(read('2026-03-08T02:30:00', 'America/New_York')).toBe('2026-03-08T07:30:00.000 000000');
  });

  it('is right in zones with half hours and on the other side of the date line', () => {
    expect(read('2026-01-01T00:00:00', 'Asia/Kolkata')).toBe('2025-12-31T18:30:00.000 000000');
    expect(read('2026-01-01T00:00:00', 'Pacific/Kiritimati')).toBe('2025-12-31T10:00:00.000 000000');
  });
});

it('days, months and hours are those of UTC, before 1970 too', () => {
  const ms = Date.parse('1969-12-31T23:59:59.999Z');
  expect(dayOf(ms)).toBe('1969-12-31');
  expect(monthOf(ms)).toBe('1969-12');
  expect(hourOf(ms)).toBe(-3_600_000);
  expect(hourOf(0)).toBe(0);
});

it('moments are ordered by the nanosecond', () => {
  const moments = [
    { ms: 1, nanos: 0 },
    { ms: 0, nanos: 999_999 },
    { ms: -1, nanos: 5 },
    { ms: 0, nanos: 0 },
  ];
  expect(moments.sort(compareMoments)).toEqual([
    { ms: -1, nanos: 5 },
    { ms: 0, nanos: 0 },
    { ms: 0, nanos: 999_999 },
    { ms: 1, nanos: 0 },
  ]);
  expect(compareMoments({ ms: 3, nanos: 4 }, { ms: 3, nanos: 4 })).toBe(0);
});
