import fc from 'fast-check';
import { expect, it } from 'vitest';
import { dayOf, hourOf, monthOf, parseTime } from '../../src/datasets/time.ts';

fc.configureGlobal({ numRuns: 10_000 });

const two = (n: number) => String(n).padStart(2, '0');
const four = (n: number) => String(n).padStart(4, '0');
const digits = (max: number) =>
  fc.string({ unit: fc.constantFrom(...'0123456789'.split('')), minLength: 1, maxLength: max });

const isLeap = (year: number) => year % 4 === 0 && (year % 100 !== 0 || year % 400 === 0);
const monthLengths = (year: number) => [31, isLeap(year) ? 29 : 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
const daysIn = (year: number, month: number) => monthLengths(year)[month - 1] ?? 0;

/** Days since 1970-01-01, by counting: years, their leap days, months. */
function daysSinceEpoch(year: number, month: number, day: number): number {
  const past = year - 1;
  const leapDays = Math.floor(past / 4) - Math.floor(past / 100) + Math.floor(past / 400);
  const daysOfMonths = monthLengths(year).slice(0, month - 1);
  return 365 * past + leapDays + daysOfMonths.reduce((sum, days) => sum + days, 0) + day - 1 - 719_162;
}

interface Zone {
  readonly text: string;
  readonly minutes: number;
}
const writtenZone = fc.oneof(
  fc.constantFrom<Zone>({ text: '', minutes: 0 }, { text: 'Z', minutes: 0 }, { text: 'z', minutes: 0 }),
  fc
    .record({
      sign: fc.constantFrom('+', '-'),
      hours: fc.nat(18),
      minutes: fc.nat(59),
      form: fc.constantFrom('+hh', '+hhmm', '+hh:mm'),
    })
    .map(({ sign, hours, minutes, form }): Zone => {
      const rest = { '+hh': '', '+hhmm': two(minutes), '+hh:mm': `:${two(minutes)}` }[form];
      const offset = hours * 60 + (form === '+hh' ? 0 : minutes);
      return { text: `${sign}${two(hours)}${rest}`, minutes: sign === '+' ? offset : -offset };
    }),
);
const calendarDay = fc
  .record({ year: fc.nat(9_999), month: fc.integer({ min: 1, max: 12 }) })
  .chain((of) => fc.record({ ...constants(of), day: fc.integer({ min: 1, max: daysIn(of.year, of.month) }) }));
const writtenTime = fc.record({
  date: calendarDay,
  separator: fc.constantFrom('T', ' '),
  hour: fc.nat(23),
  minute: fc.nat(59),
  second: fc.option(fc.record({ value: fc.nat(59), mark: fc.constantFrom('.', ','), decimals: fc.option(digits(9)) })),
  zone: writtenZone,
});
type WrittenTime = typeof writtenTime extends fc.Arbitrary<infer T> ? T : never;

function constants({ year, month }: { year: number; month: number }) {
  return { year: fc.constant(year), month: fc.constant(month) };
}

function textOf({ date, separator, hour, minute, second, zone }: WrittenTime): string {
  const seconds = second === null ? '' : `:${two(second.value)}`;
  const decimals = second === null || second.decimals === null ? '' : second.mark + second.decimals;
  const day = `${four(date.year)}-${two(date.month)}-${two(date.day)}`;
  return `${day}${separator}${two(hour)}:${two(minute)}${seconds}${decimals}${zone.text}`;
}

/** ns since the epoch. */
function nanosOf({ date, hour, minute, second, zone }: WrittenTime): bigint {
  const minutes = (daysSinceEpoch(date.year, date.month, date.day) * 24 + hour) * 60 + minute - zone.minutes;
  const decimals = (second?.decimals ?? '').padEnd(9, '0');
  return BigInt(minutes * 60 + (second?.value ?? 0)) * 1_000_000_000n + BigInt(decimals);
}
const FIRST = BigInt(daysSinceEpoch(0, 1, 1)) * 86_400_000_000_000n;
const END = BigInt(daysSinceEpoch(10_000, 1, 1)) * 86_400_000_000_000n;

it('every time of the calendar, in every way to write it, is read to the nanosecond', () => {
  fc.assert(
    fc.property(writtenTime, (time) => {
      const expected = nanosOf(time);
      const moment = parseTime(textOf(time), 'UTC');
      if (expected < FIRST || expected >= END) {
        expect(moment).toBe('outside of the years 0000 to 9999 in UTC');
        return;
      }
      if (typeof moment === 'string') throw new Error(moment);
      expect(BigInt(moment.ms) * 1_000_000n + BigInt(moment.nanos)).toBe(expected);
      expect(moment.nanos >= 0 && moment.nanos < 1_000_000).toBe(true);
    }),
  );
});

it('a day, a time of day or an offset that does not exist is refused with its reason', () => {
  const badPart = fc.oneof(
    fc.record({ month: fc.constantFrom(0, ...range(13, 99)) }),
    fc.constant({ day: 0 }),
    fc.record({ dayPastEnd: fc.integer({ min: 1, max: 68 }) }),
    fc.record({ hour: fc.integer({ min: 24, max: 99 }) }),
    fc.record({ minute: fc.integer({ min: 60, max: 99 }) }),
    fc.record({ second: fc.integer({ min: 60, max: 99 }) }),
    fc.record({ offsetHour: fc.integer({ min: 19, max: 99 }) }),
    fc.record({ offsetMinute: fc.integer({ min: 60, max: 99 }) }),
  );
  fc.assert(
    fc.property(writtenTime, badPart, (time, bad) => {
      const date = { ...time.date };
      const wrong: { time: WrittenTime; reason: string } = { time: { ...time, date }, reason: 'no such time of day' };
      if ('month' in bad) Object.assign(date, bad);
      else if ('day' in bad) date.day = 0;
      else if ('dayPastEnd' in bad) date.day = daysIn(date.year, date.month) + bad.dayPastEnd;
      else if ('hour' in bad || 'minute' in bad) Object.assign(wrong.time, bad);
      else if ('second' in bad) wrong.time.second = { value: bad.second, mark: '.', decimals: null };
      else {
        const offset = 'offsetHour' in bad ? `${bad.offsetHour}:00` : `05:${bad.offsetMinute}`;
        wrong.time.zone = { text: `+${offset}`, minutes: 0 };
        wrong.reason = 'no such offset from UTC';
      }
      if (date.month !== time.date.month || date.day !== time.date.day) wrong.reason = 'no such day in the calendar';
      expect(parseTime(textOf(wrong.time), 'UTC')).toBe(wrong.reason);
    }),
  );
});

function range(from: number, to: number): number[] {
  return Array.from({ length: to - from + 1 }, (_, n) => from + n);
}

/** What a time looks like when every digit of it is a 9. */
const LOOKS_LIKE_A_TIME = new Set(
  ['T', ' '].flatMap((separator) =>
    ['', ':99', ...['.', ','].flatMap((mark) => range(1, 9).map((count) => `:99${mark}${'9'.repeat(count)}`))].flatMap(
      (seconds) =>
        ['', 'Z', 'z', '+99', '-99', '+9999', '-9999', '+99:99', '-99:99'].map(
          (zone) => `9999-99-99${separator}99:99${seconds}${zone}`,
        ),
    ),
  ),
);

it('no other text is a time, however near it comes to one', () => {
  const mutation = fc.record({
    at: fc.nat(36),
    removed: fc.nat(2),
    inserted: fc.string({ unit: 'binary', maxLength: 2 }),
  });
  const near = fc.tuple(writtenTime, mutation).map(([time, { at, removed, inserted }]) => {
    const text = textOf(time);
    const cut = at % (text.length + 1);
    return text.slice(0, cut) + inserted + text.slice(cut + removed);
  });
  fc.assert(
    fc.property(fc.oneof({ weight: 9, arbitrary: near }, fc.string({ unit: 'binary' })), (text) => {
      const result = parseTime(text, 'UTC');
      const isKnownForm = LOOKS_LIKE_A_TIME.has(text.replace(/[0-9]/g, '9'));
      expect(result === 'not an ISO 8601 date and time').toBe(!isKnownForm);
    }),
  );
});

const HOUR_MS = 3_600_000;
const formats = new Map<string, Intl.DateTimeFormat>();

/** What clocks in a zone show at an instant, as if it were UTC, in ms. */
function wallClock(timeZone: string, instant: number): number {
  const format =
    formats.get(timeZone) ??
    new Intl.DateTimeFormat('en-US', {
      timeZone,
      hourCycle: 'h23',
      year: 'numeric',
      month: 'numeric',
      day: 'numeric',
      hour: 'numeric',
      minute: 'numeric',
      second: 'numeric',
    });
  formats.set(timeZone, format);
  const [month = 0, day = 0, year = 0, hour = 0, minute = 0, second = 0] = format
    .formatToParts(instant)
    .filter(({ type }) => type !== 'literal')
    .map(({ value }) => Number(value));
  return Date.UTC(year, month - 1, day, hour, minute, second);
}

/** Every instant at which clocks show this, in order; and what it would be by the clock before, where they skip it. */
function instantsOf(timeZone: string, wall: number): { shown: number[]; skipped: number } {
  const around = range(-26, 26).map((hours) => wall + hours * HOUR_MS);
  const offsets = around.map((instant) => ({ instant, offset: wallClock(timeZone, instant) - instant }));
  const candidates = new Set(offsets.map(({ offset }) => wall - offset));
  const shown = [...candidates].filter((instant) => wallClock(timeZone, instant) === wall).sort((a, b) => a - b);
  const before = offsets.findLast(({ instant, offset }) => instant + offset < wall)?.offset ?? 0;
  return { shown, skipped: wall - before };
}

/** Half hours, quarters, changes of half an hour, of a day, of the base offset; winter time that is the exception. */
const ZONES = [
  ...['Europe/Berlin', 'America/New_York', 'America/St_Johns', 'Australia/Lord_Howe', 'Asia/Kathmandu'],
  ...['Europe/Dublin', 'Africa/Casablanca', 'Africa/Monrovia', 'Pacific/Apia', 'Pacific/Kwajalein'],
  ...['America/Caracas', 'Asia/Pyongyang', 'Antarctica/Troll', 'Pacific/Kiritimati', 'Etc/GMT+12'],
];
/** Near these, clocks change in some of the zones. */
const CHANGES = [
  ...['2026-03-29T02:00', '2026-10-25T02:00', '2026-03-08T02:00', '2026-11-01T01:00', '2026-04-05T02:00'],
  ...['2026-10-04T02:00', '2011-12-30T00:00', '1993-08-21T00:00', '2016-05-01T02:30', '2018-05-04T23:30'],
  ...['2026-02-15T03:00', '2026-03-22T02:00', '1972-01-07T00:00', '1986-01-01T00:00'],
].map((time) => Date.parse(`${time}Z`));

it('a time without a zone is the first instant at which the clocks of the source show it', () => {
  const FROM = Date.parse('1900-01-01T00:00:00Z');
  const UNTIL = Date.parse('2100-01-01T00:00:00Z');
  const wallTime = fc.oneof(
    fc.integer({ min: FROM, max: UNTIL }),
    fc
      .tuple(fc.constantFrom(...CHANGES), fc.integer({ min: -3 * HOUR_MS, max: 3 * HOUR_MS }))
      .map(([at, by]) => at + by),
  );
  fc.assert(
    fc.property(fc.constantFrom(...ZONES), wallTime, (zone, wallMs) => {
      const wall = Math.floor(wallMs / 1000) * 1000;
      const { shown, skipped } = instantsOf(zone, wall);
      const text = new Date(wall).toISOString().slice(0, 19);
      expect(parseTime(text, zone)).toEqual({ ms: shown[0] ?? skipped, nanos: 0 });
    }),
  );
});

it('hour, day and month of a moment are those that its UTC text begins with', () => {
  fc.assert(
    fc.property(writtenTime, (time) => {
      const utc = textOf({ ...time, zone: { text: '', minutes: 0 }, separator: 'T' });
      const moment = parseTime(utc, 'UTC');
      if (typeof moment === 'string') throw new Error(moment);
      expect(dayOf(moment.ms)).toBe(utc.slice(0, 10));
      expect(monthOf(moment.ms)).toBe(utc.slice(0, 7));
      expect(new Date(hourOf(moment.ms)).toISOString()).toBe(`${utc.slice(0, 13)}:00:00.000Z`);
    }),
  );
});
