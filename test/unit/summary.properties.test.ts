import fc from 'fast-check';
import { expect, it } from 'vitest';
import { createSummaryFold, type SummarizedEvent, type Summary } from '../../src/datasets/summary.ts';

fc.configureGlobal({ numRuns: 10_000 });

const HOUR_NANOS = 3_600_000_000_000n;
const DAY_NANOS = 24n * HOUR_NANOS;

/** Three days around 1970, so that hours before and after it are among them; moments close to each other are frequent. */
const moment = fc.record({
  ms: fc.oneof(fc.integer({ min: -129_600_000, max: 129_600_000 }), fc.constantFrom(-1, 0, 1, 3_599_999, 3_600_000)),
  nanos: fc.oneof(fc.nat(999_999), fc.constantFrom(0, 1, 999_999)),
});
const type = fc.oneof(fc.constantFrom('speed', 'brake', '__proto__', ''), fc.string({ maxLength: 3 }));
const events = fc.uniqueArray(
  fc.record({
    time: moment,
    id: fc.string({ unit: fc.constantFrom('0', '9', 'a', 'f'), minLength: 1, maxLength: 4 }),
    type,
    source: fc.string({ maxLength: 2 }),
    value: fc.string({ maxLength: 2 }),
  }),
  { maxLength: 25, selector: ({ id }) => id },
);

const nanosOf = ({ time }: SummarizedEvent) => BigInt(time.ms) * 1_000_000n + BigInt(time.nanos);

/** The summary of events, by sorting them. */
function recompute(some: readonly SummarizedEvent[]): Summary | undefined {
  const keyed = some.map((event) => ({ event, nanos: nanosOf(event) }));
  keyed.sort((a, b) => (a.nanos !== b.nanos ? (a.nanos < b.nanos ? -1 : 1) : a.event.id < b.event.id ? -1 : 1));
  const first = keyed[0]?.event.time;
  const last = keyed.at(-1)?.event;
  if (first === undefined || last === undefined) return undefined;
  const types = some.map((event) => event.type);
  const counts = new Map(types.map((one) => [one, types.filter((other) => other === one).length]));
  return { count: some.length, first, last, typeCounts: counts };
}

function fold(some: Iterable<SummarizedEvent | Summary | undefined>): Summary | undefined {
  const folded = createSummaryFold();
  for (const one of some) {
    if (one === undefined) continue;
    if ('count' in one) folded.addSummary(one);
    else folded.addEvent(one);
  }
  return folded.result();
}

function groupsOf<T>(values: readonly T[], keyOf: (value: T, index: number) => unknown): T[][] {
  const groups = new Map<unknown, T[]>();
  for (const [index, value] of values.entries()) {
    const key = keyOf(value, index);
    groups.set(key, [...(groups.get(key) ?? []), value]);
  }
  return [...groups.values()];
}

const floor = (nanos: bigint, unit: bigint) => (nanos - (((nanos % unit) + unit) % unit)) / unit;
const shuffled = events.chain((all) =>
  fc.record({ all: fc.constant(all), order: fc.shuffledSubarray(all, { minLength: all.length }) }),
);

it('a summary is what a recomputation gives, in whatever order the events come', () => {
  fc.assert(
    fc.property(shuffled, ({ all, order }) => {
      expect(fold(order)).toEqual(recompute(all));
    }),
  );
});

it('a day folded from its hours is what a recomputation of the day gives', () => {
  fc.assert(
    fc.property(shuffled, ({ order }) => {
      for (const day of groupsOf(order, (event) => floor(nanosOf(event), DAY_NANOS))) {
        const hours = groupsOf(day, (event) => floor(nanosOf(event), HOUR_NANOS)).map(fold);
        expect(fold(hours)).toEqual(recompute(day));
      }
    }),
  );
});

it('a summary is the same in whatever parts the events are folded first, and the parts of parts', () => {
  const parts = fc.array(fc.nat(5), { minLength: 25, maxLength: 25 });
  fc.assert(
    fc.property(shuffled, parts, parts, ({ all, order }, inner, outer) => {
      const small = groupsOf(order, (_, index) => inner[index]).map(fold);
      const large = groupsOf(small, (_, index) => outer[index]).map(fold);
      expect(fold(large)).toEqual(recompute(all));
    }),
  );
});

const MAX_TYPES = 1_000;

/** Counts of so many types, the first of them by name each, the others together. */
function cappedCounts(types: readonly string[]): Map<string, number> {
  const counts = new Map<string, number>();
  const named = [...new Set(types)].filter((one) => one !== '(other)');
  const kept = new Set(named.length < MAX_TYPES ? types : named.sort().slice(0, MAX_TYPES));
  for (const one of types) {
    const key = kept.has(one) ? one : '(other)';
    counts.set(key, (counts.get(key) ?? 0) + 1);
  }
  return counts;
}

it('a flood of types is counted in one row: the first by name each, all others together, in whatever parts', () => {
  const flood = fc
    .record({
      types: fc.integer({ min: 990, max: 2_600 }),
      step: fc.constantFrom(1, 7, 613, 1_009),
      other: fc.boolean(),
    })
    .map(({ types, step, other }) => {
      const names = Array.from({ length: types }, (_, n) => (other && n === 5 ? '(other)' : `${(n * step) % types}`));
      return [...names, ...names.slice(0, 300)];
    });
  fc.assert(
    fc.property(flood, fc.integer({ min: 1, max: 40 }), (types, parts) => {
      const all = types.map((one, n) => ({
        time: { ms: n, nanos: 0 },
        id: String(n),
        type: one,
        source: '',
        value: '',
      }));
      const expected = { ...recomputeEnds(all), count: all.length, typeCounts: cappedCounts(types) };
      expect(fold(all)).toEqual(expected);
      expect(fold(groupsOf(all.reverse(), (_, index) => index % parts).map(fold))).toEqual(expected);
    }),
    { numRuns: 200 },
  );
});

function recomputeEnds(ordered: readonly SummarizedEvent[]) {
  return { first: ordered[0]?.time, last: ordered.at(-1) };
}
